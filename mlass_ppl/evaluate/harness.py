"""Evaluate a bundle: every row on the same mixtures, record by record, resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError, PlanError
from ._memory import peak_mb, reset_peak
from .config import Evaluation
from .directory import Notice, RunDirectory
from .protocol import MixtureSet
from .provenance import codec_device, provenance
from .records import Record
from .report import Report
from .rows import rows_from_records
from .tasks import Batch, BlackFloor, Fraction, MixtureFloor, Refined, Separated, Task, TokenCeiling

Progress = Callable[[str, float, int], None]
"""Called with a label, the mixtures done (with fractions) and their total."""


@dataclass(frozen=True)
class Pipeline:
    """The function that the harness drives, with the signature of `mlass_ppl.separate`, and the
    compiler of programs."""

    separate: Callable[..., Any]
    compile: Callable[..., Any]

    @classmethod
    def default(cls) -> Pipeline:
        from ..declare import compile_program
        from ..separate import separate

        return cls(separate, compile_program)


@torch.no_grad()
def evaluate(
    evaluation: Evaluation,
    bundle: Any,
    images: Tensor,
    directory: str | Path,
    *,
    command: str | None = None,
    progress: Progress | None = None,
    notice: Notice = print,
    pipeline: Pipeline | None = None,
) -> Report:
    """Evaluate `bundle` on mixtures of `images` float32 [N, C, H, W] and return the tables.

    `directory` keeps the configuration and one record per mixture and row; records that are there
    are not made again. A method that cannot be planned for some number of sources (PlanError, such
    as the memory limit of Exact) is left out there: `notice` gets a line and the report says why.
    Raises OptionError when `images` hold fewer than `num` or when another configuration made the
    directory, and whatever the bundle, the engines and the codec raise, before any long work
    where it can be known.
    """
    if evaluation.num > len(images):
        raise OptionError(
            f"{evaluation.num:,} mixtures were asked for, but split '{evaluation.split}' has "
            f"{len(images):,} images and as many mixtures. Ask for fewer with --num."
        )
    if evaluation.refine is not None:
        evaluation.refine.check(bundle)
    pipeline = pipeline or Pipeline.default()
    left_out = _left_out(evaluation, bundle, pipeline, notice)
    skipped = {(item["sources"], item["row"]) for item in left_out}
    config = evaluation.describe(bundle, images)
    with RunDirectory(directory, config, notice) as run:
        for sources in evaluation.sources:
            mixtures = MixtureSet.make(images, sources, evaluation.pairing_seed)
            for task in _tasks(evaluation, sources, bundle, pipeline, notice):
                if (sources, task.name) not in skipped:
                    _fill(run, task, mixtures, evaluation, progress)
        rows = rows_from_records(
            run.records, order=[method.name for method in evaluation.methods], seed=evaluation.seed
        )
    facts = provenance(codec_device(bundle.codec))
    facts |= {"command": command, "config": config, "left_out": left_out}
    return Report(rows, facts)


def _left_out(
    evaluation: Evaluation, bundle: Any, pipeline: Pipeline, notice: Notice
) -> list[dict[str, Any]]:
    """Plan every method once, so that a missing table ends the run now and not in an hour."""
    left_out = []
    for sources in evaluation.sources:
        for method in evaluation.methods:
            graph = pipeline.compile(method.shape(sources))
            factors = method.infer.factors(graph)
            try:
                method.infer.plan(graph, bundle.tables(graph, factors))
            except PlanError as error:
                left_out.append({"sources": sources, "row": method.name, "reason": str(error)})
                notice(f"'{method.name}' on {sources} sources is left out: {error}")
    return left_out


def _tasks(
    evaluation: Evaluation, sources: int, bundle: Any, pipeline: Pipeline, notice: Notice
) -> tuple[Task, ...]:
    refiner = None
    if evaluation.refine is not None:
        refiner = Refined(bundle, evaluation.refine)
    methods = []
    for method in evaluation.methods:
        call = partial(
            pipeline.separate,
            program=method.shape(sources),
            bundle=bundle,
            infer=method.infer,
            search=evaluation.search,
            estimate=evaluation.estimate,
            seed=evaluation.seed,
            batch_size=evaluation.batch_size,
            keep_candidates=True,
            on_unseen="prior",
        )
        methods.append(Separated(method.name, call, refiner, notice))
    return (MixtureFloor(), BlackFloor(), TokenCeiling(bundle.codec, refiner), *methods)


def _fill(
    run: RunDirectory,
    task: Task,
    mixtures: MixtureSet,
    evaluation: Evaluation,
    progress: Progress | None,
) -> None:
    """Make the records that a task lacks, batch by batch."""
    label = f"n={mixtures.sources} {task.name}"
    missing = run.missing(mixtures.sources, task.name, evaluation.num)
    done = evaluation.num - len(missing)

    def report(count: float) -> None:
        if progress is not None:
            progress(label, count, evaluation.num)

    report(done)
    for start in range(0, len(missing), evaluation.batch_size):
        batch = Batch.of(mixtures, np.array(missing[start : start + evaluation.batch_size]))
        run.append(_records(task, batch, _within(report, done, len(batch.index))))
        done += len(batch.index)
        report(done)


def _within(report: Callable[[float], None], before: int, size: int) -> Fraction:
    return lambda part: report(before + part * size)


def _records(task: Task, batch: Batch, fraction: Fraction) -> list[Record]:
    reset_peak()
    outcome = task(batch, fraction)
    peak = peak_mb()
    return [
        Record(
            sources=batch.images.shape[1],
            method=task.name,
            index=int(batch.index[row]),
            images=tuple(batch.images[row].tolist()),
            stages={stage: scores[row] for stage, scores in outcome.stages.items()},
            peak_mb=peak,
            ruled_out=outcome.ruled_out[row] if outcome.ruled_out is not None else None,
        )
        for row in range(len(batch.index))
    ]
