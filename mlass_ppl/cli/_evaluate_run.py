"""An evaluation on the command line: progress bars, the run directory, the tables."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import OptionError
from ._common import console, say

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..evaluate import Evaluation, Stimuli


def check_files(*paths: Path | None) -> None:
    """Raise OptionError where a file to write is a folder."""
    for path in paths:
        if path is not None and path.is_dir():
            raise OptionError(f"{path} is a folder; expected the name of a file to write.")


def run_evaluation(
    evaluation: Evaluation,
    bundle: Bundle,
    stimuli: Stimuli,
    memory_limit: float | None,
    run_dir: Path | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Evaluate, write the report to the run directory (default: runs/HASH) and the given files,
    and print it."""
    from dataclasses import replace
    from functools import partial

    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ..evaluate import Pipeline, config_hash, evaluate, save

    if run_dir is None:
        run_dir = Path("runs") / config_hash(evaluation.describe(bundle, stimuli))
    pipeline = Pipeline.default()
    separate = partial(pipeline.separate, memory_limit=memory_limit)  # which no record depends on
    bars: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console(stderr=True)) as progress:

            def update(label: str, done: float, total: int) -> None:
                if label not in bars:
                    bars[label] = progress.add_task(label, total=total)
                progress.update(bars[label], completed=done)

            report = evaluate(
                evaluation,
                bundle,
                stimuli,
                run_dir,
                command=shlex.join(["mlass", *sys.argv[1:]]),
                progress=update,
                notice=lambda line: progress.console.print(line, style="yellow", markup=False),
                pipeline=replace(pipeline, separate=separate),
            )
    except KeyboardInterrupt:
        say(f"Interrupted. The same command goes on with what {run_dir} holds.", stderr=True)
        raise typer.Exit(130) from None
    files = (run_dir / "report.json", run_dir / "report.md"), (json_file, markdown_file)
    for json_path, markdown_path in files:
        save(report, json_file=json_path, markdown_file=markdown_path)
    out = console()
    width = out.width if out.is_terminal else max(out.width, 160)
    for part in report.tables(width):
        out.print(part, width=width)
