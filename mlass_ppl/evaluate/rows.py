"""From records to the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import OptionError
from ._grouped import Found, grouped
from .records import AnyScore, Record
from .statistics import Paired, Summary, compare, summarise

FLOOR = "floor:mixture"
"""The row that every other is compared to: the mixture copied to every output."""

SILENCE = "floor:silence"
"""What stems are compared to as well: silence at every output."""

METRIC = "psnr_db"


@dataclass(frozen=True)
class Scheme:
    """Which numbers rows are made of: each metric as the mean over the sources and, where `stems`
    are named, one by one as well; `seconds` is then how long a mixture lasts."""

    metrics: tuple[str, ...] = (METRIC,)
    stems: tuple[str, ...] = ()
    seconds: float | None = None

    def columns(self, sources: int) -> Iterator[tuple[str, int | None]]:
        """(metric, place of the stem, None for the mean) in the order of the rows."""
        for metric in self.metrics:
            yield metric, None
            yield from ((metric, place) for place in range(sources if self.stems else 0))


@dataclass(frozen=True)
class Row:
    """One line of the table: `summary` of the per-mixture scores of one stage of one row, and
    their `paired` difference to the floor on the same mixtures.

    `seconds` wall time per mixture (refined: sampling and refinement together; None where a
    baseline does not tell), `peak_mb` the highest peak memory of the process in megabytes (None
    where unknown), `ruled_out` the share of the candidates' positions whose observation the tables
    rule out, so that the priors alone decided there (None where nothing was sampled).
    """

    sources: int
    row: str
    stage: str
    summary: Summary
    paired: Paired
    seconds: float | None
    peak_mb: float | None
    ruled_out: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as scripts read it: these keys stay."""
        return {
            "sources": self.sources,
            "row": self.row,
            "stage": self.stage,
            "metric": METRIC,
            "mean": self.summary.mean,
            "std": self.summary.std,
            "median": self.summary.median,
            "ci95": list(self.summary.ci95),
            "n": self.summary.n,
            "below_floor": self.paired.below,
            "seconds_per_mixture": self.seconds,
            "peak_mb": self.peak_mb,
            "paired": {"mean": self.paired.mean, "ci95": list(self.paired.ci95)},
            "ruled_out": self.ruled_out,
        }


@dataclass(frozen=True, kw_only=True)
class StemRow(Row):
    """A row of one `metric` of one `stem` (None: the mean over stems, of mixtures in which all have
    a score): `silence` is the paired difference to silence, `excluded` how many mixtures have no
    score, `real_time_factor` seconds of work for a second of sound."""

    metric: str
    stem: str | None
    silence: Paired | None
    excluded: int
    real_time_factor: float | None

    def to_json(self) -> dict[str, Any]:
        silence = self.silence
        return super().to_json() | {
            "metric": self.metric,
            "stem": self.stem,
            "excluded": self.excluded,
            "real_time_factor": self.real_time_factor,
            "paired_silence": silence and {"mean": silence.mean, "ci95": list(silence.ci95)},
        }


def rows_from_records(
    records: Iterable[Record],
    *,
    order: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    scheme: Scheme | None = None,
) -> tuple[Row, ...]:
    """Rows of all records: by number of sources, then in the order of the table (floors, methods
    raw and refined, baselines, oracles, ceilings); `order` gives that of the methods (default: the
    order in which they first occur). scheme: which numbers (default: PSNR).

    The oracle of the first method is `oracle:candidate`, that of any other
    `oracle:candidate:NAME`. Intervals resample mixtures, of stems whole songs. A mixture that
    failed is left out, from all rows where it could not even be read. Raises OptionError when a
    mixture has no record of the floor.
    """
    records, scheme = list(records), scheme or Scheme()
    rows: list[Row] = []
    for sources in sorted({record.sources for record in records}):
        ours = [record for record in records if record.sources == sources]
        floors = {name: _raw(ours, name) for name in (FLOOR, SILENCE)}
        unread = {record.index for record in ours if record.method == FLOOR and record.failed}
        for (row, stage), scored in grouped(ours, order).items():
            found = [pair for pair in scored if pair[0].index not in unread]
            if found:
                lines = _Lines(sources, row, stage, found, floors, seed, resamples)
                rows += lines.rows(scheme)
    return tuple(rows)


Scores = dict[int, AnyScore]


def _raw(records: list[Record], method: str) -> Scores:
    return {r.index: r.stages["raw"] for r in records if r.method == method and not r.failed}


class _Lines:
    """The rows of one stage of one method: what they share, and one for each column."""

    def __init__(
        self,
        sources: int,
        row: str,
        stage: str,
        found: Found,
        floors: dict[str, Scores],
        seed: int,
        resamples: int,
    ) -> None:
        self.found = sorted(found, key=lambda pair: pair[0].index)
        self.floors = floors
        records = [record for record, _ in self.found]
        lacking = [record.index for record in records if record.index not in floors[FLOOR]]
        if lacking:
            raise OptionError(
                f"{len(lacking):,} mixtures of {sources} sources have a record of '{row}' but none "
                f"of '{FLOOR}' (the first is {lacking[0]}), so nothing can be compared. Run the "
                "evaluation again in the same run directory: it fills what is missing."
            )
        peaks = [record.peak_mb for record in records if record.peak_mb is not None]
        blind = [record.ruled_out for record in records if record.ruled_out is not None]
        self.facts: dict[str, Any] = {
            "sources": sources,
            "row": row,
            "stage": stage,
            "seconds": _seconds(self.found, stage),
            "peak_mb": max(peaks) if peaks else None,
            "ruled_out": float(np.mean(blind)) if blind else None,
        }
        self.draws: dict[str, Any] = {"seed": seed, "resamples": resamples}
        songs = [str(record.chunk[0]) for record in records if record.chunk]
        self.songs = np.array(songs) if songs else None

    def rows(self, scheme: Scheme) -> Iterator[Row]:
        for metric, place in scheme.columns(self.facts["sources"]):
            scores = np.array([_value(score, metric, place) for _, score in self.found])
            kept = ~np.isnan(scores)
            paired = self._compared(FLOOR, scores, metric, place)
            if paired is None:
                continue
            draws = self.draws | {"groups": None if self.songs is None else self.songs[kept]}
            facts = self.facts | {"summary": summarise(scores[kept], **draws), "paired": paired}
            if not scheme.stems:
                yield Row(**facts)
                continue
            seconds = self.facts["seconds"]
            yield StemRow(
                **facts,
                metric=metric,
                stem=None if place is None else scheme.stems[place],
                silence=self._compared(SILENCE, scores, metric, place),
                excluded=int((~kept).sum()),
                real_time_factor=seconds and scheme.seconds and seconds / scheme.seconds,
            )

    def _compared(
        self, floor: str, scores: np.ndarray, metric: str, place: int | None
    ) -> Paired | None:
        """To a floor, on the mixtures where both have a score; None where there is none."""
        base = [self.floors[floor].get(record.index) for record, _ in self.found]
        values = np.array([np.nan if b is None else _value(b, metric, place) for b in base])
        both = ~np.isnan(scores) & ~np.isnan(values)
        if not both.any():
            return None
        groups = None if self.songs is None else self.songs[both]
        return compare(scores[both], values[both], **self.draws, groups=groups)


def _value(score: AnyScore, metric: str, place: int | None) -> float:
    """One number of a score: of one source or the mean over all; NaN where one is missing."""
    values = score.metrics.get(metric, (None,))
    some = values if place is None else values[place : place + 1]
    known = [value for value in some if value is not None]
    return sum(known) / len(known) if known and len(known) == len(some) else np.nan


def _seconds(found: Found, stage: str) -> float | None:
    """Wall time per mixture; what follows the raw stage takes that of both."""
    spent = []
    for record, score in found:
        raw = record.stages.get("raw", score)
        before = raw.seconds if stage not in ("raw", "supervised") else 0.0
        if score.seconds is not None and before is not None:
            spent.append(score.seconds + before)
    return float(np.mean(spent)) if spent else None
