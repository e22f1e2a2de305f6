"""From records to the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import OptionError
from .records import Record, Score
from .statistics import Paired, Summary, compare, summarise

FLOOR = "floor:mixture"
"""The row that every other is compared to: the mixture copied to every output."""

METRIC = "psnr_db"


@dataclass(frozen=True)
class Row:
    """One line of the table: `summary` of the per-mixture scores of one stage of one row, and
    their `paired` difference to the floor on the same mixtures.

    `seconds` wall time per mixture (refined: sampling and refinement together), `peak_mb` the
    highest peak memory of the process in megabytes (None where unknown), `ruled_out` the share of
    the candidates' positions whose observation the tables rule out, so that the priors alone
    decided there (None where nothing was sampled).
    """

    sources: int
    row: str
    stage: str
    summary: Summary
    paired: Paired
    seconds: float
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


def rows_from_records(
    records: Iterable[Record],
    *,
    order: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
) -> tuple[Row, ...]:
    """Rows of all records: by number of sources, then in the order of the table (floors, methods
    raw and refined, oracle candidates, ceilings); `order` gives that of the methods (default: the
    order in which they first occur).

    The oracle of the first method is `oracle:candidate`, that of any other
    `oracle:candidate:NAME`. Raises OptionError when a mixture has no record of the floor.
    """
    records = list(records)
    rows = []
    for sources in sorted({record.sources for record in records}):
        ours = [record for record in records if record.sources == sources]
        floor = {r.index: r.stages["raw"].mean for r in ours if r.method == FLOOR}
        for (row, stage), found in _grouped(ours, order).items():
            rows.append(_row(sources, row, stage, found, floor, seed, resamples))
    return tuple(rows)


Found = list[tuple[Record, Score]]


def _grouped(records: list[Record], order: Sequence[str] | None) -> dict[tuple[str, str], Found]:
    """Scores by (row, stage), in the order of the table."""
    seen = list(dict.fromkeys(record.method for record in records))
    if order is not None:
        seen.sort(key=lambda name: order.index(name) if name in order else -1)
    with_oracle = {record.method for record in records if "oracle" in record.stages}
    engines = [name for name in seen if name in with_oracle and not name.startswith("floor:")]
    groups: dict[tuple[str, str], Found] = {}
    for record in records:
        for stage, score in record.stages.items():
            key = (record.method, stage)
            if stage == "oracle" and record.method.startswith("floor:"):
                continue
            if stage == "oracle":
                suffix = "" if record.method in engines[:1] else f":{record.method}"
                key = (f"oracle:candidate{suffix}", "raw")
            groups.setdefault(key, []).append((record, score))

    def place(key: tuple[str, str]) -> tuple[int, int, str]:
        row, stage = key
        kind = {"floor": 0, "oracle": 2, "ceiling": 3}.get(row.partition(":")[0], 1)
        first = row.removeprefix("oracle:candidate").lstrip(":")
        return kind, seen.index(first) if first in seen else -1, stage

    return {key: groups[key] for key in sorted(groups, key=place)}


def _row(
    sources: int,
    row: str,
    stage: str,
    found: Found,
    floor: dict[int, float],
    seed: int,
    resamples: int,
) -> Row:
    found = sorted(found, key=lambda pair: pair[0].index)
    lacking = [record.index for record, _ in found if record.index not in floor]
    if lacking:
        raise OptionError(
            f"{len(lacking):,} mixtures of {sources} sources have a record of '{row}' but none of "
            f"'{FLOOR}' (the first is {lacking[0]}), so nothing can be compared. Run the "
            "evaluation again in the same run directory: it fills what is missing."
        )
    scores = np.array([score.mean for _, score in found])
    base = np.array([floor[record.index] for record, _ in found])
    peaks = [record.peak_mb for record, _ in found if record.peak_mb is not None]
    blind = [record.ruled_out for record, _ in found if record.ruled_out is not None]
    seconds = [
        score.seconds + (record.stages["raw"].seconds if stage == "refined" else 0.0)
        for record, score in found
    ]
    return Row(
        sources=sources,
        row=row,
        stage=stage,
        summary=summarise(scores, seed=seed, resamples=resamples),
        paired=compare(scores, base, seed=seed, resamples=resamples),
        seconds=float(np.mean(seconds)),
        peak_mb=max(peaks) if peaks else None,
        ruled_out=float(np.mean(blind)) if blind else None,
    )
