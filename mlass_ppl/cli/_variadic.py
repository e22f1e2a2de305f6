"""Options that take several values: `--sources 2 3`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand

_NUMBER = re.compile(r"-\.?\d")


class VariadicCommand(TyperCommand):
    """A command whose list options take all values up to the next option.

    `--sources 2 3` is read as `--sources 2 --sources 3`, for every option that is declared
    `list[...]`. Arguments therefore stand before such an option, or behind `--`:

        @app.command(cls=VariadicCommand)
        def evaluate(bundle: str, sources: list[int] = typer.Option([2, 3])) -> None: ...
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = {
            name
            for param in self.get_params(ctx)
            if getattr(param, "multiple", False)
            for name in (*param.opts, *param.secondary_opts)
            if name.startswith("-")
        }
        return super().parse_args(ctx, list(_expanded(args, names)))


def _expanded(args: Iterable[str], names: set[str]) -> Iterable[str]:
    option, taken, ended = None, 0, False
    for argument in args:
        if ended or argument == "--":
            _check_taken(option, taken)
            option, ended = None, True
            yield argument
        elif argument.startswith("-") and argument != "-" and not _NUMBER.match(argument):
            _check_taken(option, taken)
            option, taken = (argument if argument in names else None), 0
            yield argument
        else:
            if option is not None and taken:
                yield option
            taken += 1
            yield argument
    _check_taken(option, taken)


def _check_taken(option: str | None, taken: int) -> None:
    if option is not None and not taken:
        raise BadParameter(f"option '{option}' needs one or more values, and none came.")
