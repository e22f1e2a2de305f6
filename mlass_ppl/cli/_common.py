"""What the commands share: errors as sentences, engines and programs by name, progress bars."""

from __future__ import annotations

import inspect
import os
import runpy
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..errors import MlassError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

Program = Callable[[], Any]
Report = Callable[[int, int], None]
"""Progress: called with what is done and the total."""

ENGINES = ("auto", "exact", "bp", "bp-marginals", "loopy", "truncated", "extractor")
SHAPES = ("additive", "joint", "chain", "balanced", "star", "fine")
_SHAPE_OF = {"auto": "additive", "truncated": "additive", "exact": "joint", "extractor": "star"}
_RUN_NAME = "mlass_program"


def console(*, stderr: bool = False) -> Console:
    """A console on the current standard output or error."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def say(text: str, *, style: str | None = None, stderr: bool = False) -> None:
    """Print one line as it is: brackets are no markup, long lines are not broken."""
    console(stderr=stderr).print(text, style=style, markup=False, soft_wrap=True)


def fail(error: Exception) -> NoReturn:
    """End the command: the error's sentence in red on standard error, exit code 2."""
    say(f"{type(error).__name__}: {error}", style="red", stderr=True)
    raise typer.Exit(2)


@contextmanager
def sentences() -> Iterator[None]:
    """Ends the command with `fail` on any error that this library raises on purpose."""
    try:
        yield
    except MlassError as error:
        fail(error)
    except MemoryError as error:
        fail(OptionError(f"out of memory ({error}). Ask for fewer --candidates or files at once."))


def settle_threads() -> None:
    """Leave busy cores alone: threads that wait for each other on a busy machine are many times
    slower than one. $OMP_NUM_THREADS, where it is set, is obeyed."""
    import torch

    if "OMP_NUM_THREADS" in os.environ or not hasattr(os, "getloadavg"):
        return
    idle = round(cores() - os.getloadavg()[0])
    torch.set_num_threads(max(1, min(torch.get_num_threads(), idle, 8)))


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_KEEP = 128
"""Tokens of each stem that engines look at, of the thousand and more that codecs of sound have."""


def engine_from_name(name: str, *, sound: bool = False) -> Any:
    """The engine that `--infer` names; for sound, between the promising tokens. Raises OptionError
    listing the choices."""
    if name not in ENGINES:
        raise OptionError(f"unknown engine '{name}': expected one of {', '.join(ENGINES)}.")
    from ..infer import BP, Auto, Exact, Extractor, LoopyBP, Truncated

    keep, lists = (_KEEP, {"keep": _KEEP}) if sound else (None, {})
    engines = (
        Auto(**lists), Exact(), BP(keep=keep), BP(draw="marginals", keep=keep), LoopyBP(),
        Truncated(**lists), Extractor(),
    )  # fmt: skip
    return dict(zip(ENGINES, engines, strict=True))[name]


def shape_for(engine: str) -> str:
    """The ready-made shape that an engine was made for."""
    return _SHAPE_OF.get(engine, "chain")


def program_from(option: str, sources: int | None = None) -> Program:
    """The program that `--program` names: a shape ("chain", with `sources`) or a Python file.

    The file holds one function of source(...) and mix(...) sites without required arguments, or
    several of which one is called `program`. Raises OptionError saying what is wrong with it.
    """
    if option in SHAPES:
        from .. import shapes

        if sources is None:
            raise OptionError(f"shape '{option}' needs --sources, the number of sources.")
        program: Program = getattr(shapes, option)(sources)
        return program
    path = Path(option)
    if not path.is_file():
        raise OptionError(
            f"--program '{option}' is neither a Python file nor one of the shapes "
            f"{', '.join(SHAPES)}."
        )
    return _program_in(path, _run(path))


def _run(path: Path) -> dict[str, Any]:
    try:
        return runpy.run_path(str(path), run_name=_RUN_NAME)
    except SyntaxError as error:
        raise OptionError(
            f"program file '{path}' is no valid Python: {error.msg} (line {error.lineno})."
        ) from error
    except MlassError:
        raise
    except (Exception, SystemExit) as error:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]  # fmt: skip
        where = f" (line {frames[-1].lineno})" if frames else ""
        raise OptionError(
            f"program file '{path}' stops with {type(error).__name__}: {error}{where}. It is run "
            "once to find its program, so it should only define functions."
        ) from error


def _program_in(path: Path, names: dict[str, Any]) -> Program:
    found = {
        name: value
        for name, value in names.items()
        if inspect.isfunction(value)
        and value.__module__ == _RUN_NAME
        and not name.startswith("_")
        and _runs_alone(value)
    }
    if "program" in found:
        return found["program"]
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise OptionError(
            f"program file '{path}' holds {len(found)} functions that could be the program: "
            f"{', '.join(found)}. Call the one to use 'program', or begin the others' names with _."
        )
    raise OptionError(
        f"program file '{path}' holds no program. Expected a function without arguments, as in:\n"
        "  from mlass_ppl import mix, source\n\n"
        "  def duo():\n"
        '      return mix("mixture", source("left"), source("right"))'
    )


def _runs_alone(function: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(
        parameter.default is not inspect.Parameter.empty or parameter.kind in kinds
        for parameter in inspect.signature(function).parameters.values()
    )


@contextmanager
def progress_bar(steps: int = 1) -> Iterator[Callable[[str], Report]]:
    """A progress bar on standard error over `steps` pieces of work of equal length.

    Yields a function: called with a description when a piece begins, it returns the callback
    `(done, total)` for that piece.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task("", total=float(steps))
        begun = 0

        def piece(description: str) -> Report:
            nonlocal begun
            start = begun
            begun += 1
            bar.update(task, description=description, completed=float(start))

            def report(done: int, total: int) -> None:
                bar.update(task, completed=start + done / max(total, 1))

            return report

        yield piece
        bar.update(task, description="done", completed=float(steps))
