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

from ..errors import DataError, PlanError, SignalError
from ._memory import peak_mb, reset_peak
from .config import Evaluation
from .directory import Notice, RunDirectory
from .images import ImageStimuli
from .provenance import codec_device, provenance
from .records import Record
from .report import Report
from .rows import FLOOR, rows_from_records
from .stimuli import Mixtures, Progress, Stimuli
from .tasks import Fraction, MixtureFloor, Refined, Separated, Task, TokenCeiling


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
    stimuli: Tensor | Stimuli,
    directory: str | Path,
    *,
    command: str | None = None,
    progress: Progress | None = None,
    notice: Notice = print,
    pipeline: Pipeline | None = None,
) -> Report:
    """Evaluate `bundle` on mixtures of `stimuli` and return the tables: images float32
    [N, C, H, W], or what `mlass_ppl.evaluate.audio` makes of a data set of sound.

    `directory` keeps the configuration and one record per mixture and row; records that are there
    are not made again. A method that cannot be planned for some number of sources (PlanError, such
    as the memory limit of Exact) is left out there, and so is a mixture that fails alone
    (SignalError, such as a damaged file), which the next run tries again: `notice` gets a line and
    the report says why.
    Raises OptionError when `stimuli` hold fewer than `num` or when another configuration made the
    directory, DataError when not one mixture could be scored, and whatever the bundle, the engines
    and the codec raise, before any long work where it can be known.
    """
    if isinstance(stimuli, Tensor):
        stimuli = ImageStimuli(stimuli)
    stimuli.check(evaluation, bundle)
    if evaluation.refine is not None:
        evaluation.refine.check(bundle)
    pipeline = pipeline or Pipeline.default()
    left_out = _left_out(evaluation, bundle, stimuli, pipeline, notice)
    skipped = {(item["sources"], item["row"]) for item in left_out}
    config = evaluation.describe(bundle, stimuli)
    with RunDirectory(directory, config, notice) as run:
        every = {
            sources: stimuli.mixtures(evaluation, sources, bundle, run.path, progress)
            for sources in evaluation.sources
        }
        for sources, mixtures in every.items():
            tasks = _tasks(evaluation, sources, bundle, stimuli, mixtures, pipeline, notice)
            for task in tasks:
                if (sources, task.name) not in skipped:
                    _fill(run, task, sources, mixtures, evaluation, progress, notice)
        failed = _failed(run.records)
        known = [record for mixtures in every.values() for record in mixtures.known()]
        rows = rows_from_records(
            [*run.records, *known],
            order=[method.name for method in evaluation.methods],
            seed=evaluation.seed,
            scheme=stimuli.scheme(bundle),
        )
    facts = provenance(codec_device(bundle.codec))
    facts |= {"command": command, "config": config, "left_out": left_out}
    if failed:
        facts["failed"] = failed
    return Report(rows, facts, stimuli.layout)


def _left_out(
    evaluation: Evaluation, bundle: Any, stimuli: Stimuli, pipeline: Pipeline, notice: Notice
) -> list[dict[str, Any]]:
    """Plan every method once, so that a missing table ends the run now and not in an hour."""
    left_out = []
    for sources in evaluation.sources:
        for method in evaluation.methods:
            graph = pipeline.compile(method.shape(stimuli.parts(sources)))
            factors = method.infer.factors(graph)
            try:
                method.infer.plan(graph, bundle.tables(graph, factors))
            except PlanError as error:
                left_out.append({"sources": sources, "row": method.name, "reason": str(error)})
                notice(f"'{method.name}' on {sources} sources is left out: {error}")
    return left_out


def _tasks(
    evaluation: Evaluation,
    sources: int,
    bundle: Any,
    stimuli: Stimuli,
    mixtures: Mixtures,
    pipeline: Pipeline,
    notice: Notice,
) -> tuple[Task, ...]:
    stages = {} if evaluation.refine is None else stimuli.stages(bundle, evaluation.refine)
    refiners = [Refined(bundle, refine, stage) for stage, refine in stages.items()]
    methods = []
    for method in evaluation.methods:
        call = partial(
            pipeline.separate,
            program=method.shape(stimuli.parts(sources)),
            bundle=bundle,
            infer=method.infer,
            search=evaluation.search,
            estimate=evaluation.estimate,
            seed=evaluation.seed,
            batch_size=evaluation.batch_size,
            keep_candidates=True,
            on_unseen="prior",
        )
        methods.append(Separated(method.name, call, refiners, notice))
    return (MixtureFloor(), *stimuli.references(), TokenCeiling(mixtures, refiners), *methods)


def _fill(
    run: RunDirectory,
    task: Task,
    sources: int,
    mixtures: Mixtures,
    evaluation: Evaluation,
    progress: Progress | None,
    notice: Notice,
) -> None:
    """Make the records that a task lacks, batch by batch."""
    label = f"n={sources} {task.name}"
    missing = run.missing(sources, task.name, evaluation.num)
    done = evaluation.num - len(missing)

    def report(count: float) -> None:
        if progress is not None:
            progress(label, count, evaluation.num)

    report(done)
    for start in range(0, len(missing), evaluation.batch_size):
        index = np.array(missing[start : start + evaluation.batch_size])
        records = _records(task, sources, mixtures, index, _within(report, done, len(index)))
        for record in records:
            if record.failed:
                notice(f"{label}: mixture {record.index} is left out: {record.failed}")
        run.append(records)
        done += len(index)
        report(done)


def _within(report: Callable[[float], None], before: int, size: int) -> Fraction:
    return lambda part: report(before + part * size)


def _records(
    task: Task, sources: int, mixtures: Mixtures, index: np.ndarray, fraction: Fraction
) -> list[Record]:
    """Records of the mixtures `index`; where one of them fails, the others are made one by one."""
    reset_peak()
    try:
        batch = mixtures.batch(index)
        outcome = task(batch, fraction)
    except SignalError as error:
        if len(index) > 1:
            each = (_records(task, sources, mixtures, one, fraction) for one in index[:, None])
            return [record for records in each for record in records]
        return [Record(sources, task.name, int(index[0]), (), {}, failed=str(error))]
    peak = peak_mb()
    return [
        Record(
            sources=sources,
            method=task.name,
            index=int(index[row]),
            **{"images": (), **batch.origin(row)},
            stages={stage: scores[row] for stage, scores in outcome.stages.items()},
            peak_mb=peak,
            ruled_out=outcome.ruled_out[row] if outcome.ruled_out is not None else None,
        )
        for row in range(len(index))
    ]


def _failed(records: tuple[Record, ...]) -> list[dict[str, Any]]:
    """How many mixtures failed in each row, and why the first did. Raises DataError where not one
    of some number of sources could be scored."""
    groups: dict[tuple[int, str], list[Record]] = {}
    for record in records:
        if record.failed:
            groups.setdefault((record.sources, record.method), []).append(record)
    for (sources, name), group in groups.items():
        if name == FLOOR and len(group) == sum(r.key[:2] == (sources, name) for r in records):
            raise DataError(
                f"not one of {len(group):,} mixtures of {sources} sources could be scored. The "
                f"first: {group[0].failed}"
            )
    return [
        {
            "sources": sources,
            "row": name,
            "mixtures": len(group),
            "first": group[0].index,
            "reason": group[0].failed,
        }
        for (sources, name), group in groups.items()
    ]
