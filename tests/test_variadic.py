"""`--sources 2 3`: list options that take all values up to the next option."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from mlass_ppl.cli._variadic import VariadicCommand

app = typer.Typer()


@app.command(cls=VariadicCommand)
def show(
    names: Annotated[list[str] | None, typer.Argument()] = None,
    sources: Annotated[list[int], typer.Option("--sources", "-s")] = [2, 3],  # noqa: B006
    infer: Annotated[list[str], typer.Option()] = ["bp"],  # noqa: B006
    num: Annotated[int, typer.Option()] = 1,
    force: Annotated[bool, typer.Option()] = False,
) -> None:
    typer.echo(f"{names or []} {sources} {infer} {num} {force}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "[] [2, 3] ['bp'] 1 False"),
        ("a b", "['a', 'b'] [2, 3] ['bp'] 1 False"),
        ("a --sources 4 5 6 --infer exact bp", "['a'] [4, 5, 6] ['exact', 'bp'] 1 False"),
        ("a -s 4 5", "['a'] [4, 5] ['bp'] 1 False"),
        ("--sources 4 --sources 5", "[] [4, 5] ['bp'] 1 False"),
        ("--sources=4 --num 7 a", "['a'] [4] ['bp'] 7 False"),
        ("--infer x y --force a", "['a'] [2, 3] ['x', 'y'] 1 True"),
        ("--infer x y -- a b", "['a', 'b'] [2, 3] ['x', 'y'] 1 False"),
        ("--sources -4 -5", "[] [-4, -5] ['bp'] 1 False"),
        ("-- --sources 4", "['--sources', '4'] [2, 3] ['bp'] 1 False"),
    ],
)
def test_values_are_taken_up_to_the_next_option(arguments: str, expected: str) -> None:
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == expected


@pytest.mark.parametrize("arguments", ["--infer --num 5", "a --infer", "--infer -- a"])
def test_an_option_without_values_is_refused(arguments: str) -> None:
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 2
    assert "one or more" in result.output


def test_a_value_of_another_type_is_refused() -> None:
    result = CliRunner().invoke(app, ["--sources", "2", "mnist"])
    assert result.exit_code == 2
    assert "sources" in result.output
