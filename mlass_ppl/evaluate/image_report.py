"""The tables of an evaluation on images: PSNR beside the published rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .published import NOTE, published
from .report import Grid, provenance_lines
from .rows import Row

_HEADER = (
    "row",
    "stage",
    "PSNR dB",
    "95 % CI",
    "median",
    "over the floor",
    "below it",
    "n",
    "s/mixture",
    "peak MB",
)
_DISPENSABLE = ("peak MB", "median", "95 % CI", "s/mixture", "n")


@dataclass(frozen=True)
class ImageLayout:
    """One table per number of sources."""

    def grids(self, rows: Sequence[Row], run: dict[str, Any]) -> Iterator[Grid]:
        for sources in sorted({row.sources for row in rows}):
            lines = [_cells(row) for row in rows if row.sources == sources]
            for line in published(sources):
                number = "" if line.n is None else f"{line.n:,}"
                score = f"{line.mean:.2f} ± {line.std:.2f}"
                name = f"{line.row}, {NOTE}"
                lines.append([name, "refined", score, "", "", "", "", number, "", ""])
            yield Grid(f"Mixtures of {sources} digits", _HEADER, lines, _DISPENSABLE)

    def footer(self, rows: Sequence[Row], run: dict[str, Any]) -> list[str]:
        config = run["config"]
        refined = f"{config['refine']}." if config["refine"] else "not refined."
        return [
            *provenance_lines(run, refined),
            "PSNR: data range 1, mean over sources in dB, best permutation per mixture, mean ± "
            "standard deviation over mixtures. Over the floor: paired difference to the mixture "
            "copied to every output, with its 95 % bootstrap interval.",
        ]


def _cells(row: Row) -> list[str]:
    spread = "" if row.summary.std is None else f" ± {row.summary.std:.2f}"
    low, high = row.summary.ci95
    gain = f"{row.paired.mean:+.2f} [{row.paired.ci95[0]:+.2f}, {row.paired.ci95[1]:+.2f}]"
    return [
        row.row,
        row.stage,
        f"{row.summary.mean:.2f}{spread}",
        f"[{low:.2f}, {high:.2f}]",
        f"{row.summary.median:.2f}",
        gain if row.row != "floor:mixture" else "",
        f"{row.paired.below:.0%}",
        f"{row.summary.n:,}",
        "" if row.seconds is None else f"{row.seconds:.3f}",
        "" if row.peak_mb is None else f"{row.peak_mb:,.0f}",
    ]
