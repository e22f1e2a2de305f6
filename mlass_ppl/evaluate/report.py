"""A finished evaluation as JSON, as Markdown and as a table in the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .published import NOTE, published
from .rows import Row

if TYPE_CHECKING:
    from rich.console import RenderableType

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
"""Left out, from the first on, where a terminal has no room for them."""


@dataclass(frozen=True)
class Report:
    """`rows` of all numbers of sources; `run` says what made them (commit, seeds, device, torch
    version, split hash, configuration, command, and what was left out and why)."""

    rows: tuple[Row, ...]
    run: dict[str, Any]

    def to_json(self) -> str:
        """`{"rows": [...], "run": {...}}`: the stable format for scripts."""
        content = {"rows": [row.to_json() for row in self.rows], "run": self.run}
        return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        """The tables in Markdown, one per number of sources, beside the published rows."""
        parts = []
        for sources in self._sources():
            lines = [f"**{_title(sources)}**", "", _line(_HEADER), _line(["---"] * len(_HEADER))]
            lines += [_line(cells) for cells in self._cells(sources)]
            parts.append("\n".join(lines))
        parts.append("\n".join(f"- {line}" for line in self._footer()))
        return "\n\n".join(parts) + "\n"

    def tables(self, width: int = 160) -> Iterator[RenderableType]:
        """The tables for a terminal of `width` characters, as rich renderables, and what made
        them. Where they do not fit, memory, median, interval, time and n are left out."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        for sources in self._sources():
            lines = list(self._cells(sources))
            table = Table(title=_title(sources), box=box.SIMPLE_HEAD)
            kept = _fitting(lines, width)
            for i in kept:
                table.add_column(
                    _HEADER[i],
                    justify="left" if i < 2 else "right",
                    no_wrap=i > 0,
                    overflow="fold",
                )
            for cells in lines:
                style = "dim" if cells[0].endswith(NOTE) else None
                table.add_row(*(escape(cells[i]) for i in kept), style=style)
            yield table
        for line in self._footer():
            yield Text(line, style="dim")

    def _sources(self) -> list[int]:
        return sorted({row.sources for row in self.rows})

    def _cells(self, sources: int) -> Iterator[list[str]]:
        for row in self.rows:
            if row.sources == sources:
                yield _row_cells(row)
        for line in published(sources):
            number = "" if line.n is None else f"{line.n:,}"
            score = f"{line.mean:.2f} ± {line.std:.2f}"
            yield [f"{line.row}, {NOTE}", "refined", score, "", "", "", "", number, "", ""]

    def _footer(self) -> list[str]:
        run = self.run
        config = run["config"]
        lines = [
            f"Bundle {config['bundle']} ({config['bundle_sha256'][:12]}), split {config['split']} "
            f"({config['split_sha256'][:12]}), pairing seed {config['pairing_seed']}, seed "
            f"{config['seed']}, {config['search']}, {config['estimate']}, "
            + (f"{config['refine']}." if config["refine"] else "not refined."),
            f"mlass_ppl {run['version']}, commit {run['commit'] or 'unknown'}, torch "
            f"{run['torch']} on {run['device']}, threads: {run['threads']}.",
            "PSNR: data range 1, mean over sources in dB, best permutation per mixture, mean ± "
            "standard deviation over mixtures. Over the floor: paired difference to the mixture "
            "copied to every output, with its 95 % bootstrap interval.",
        ]
        for item in run["left_out"]:
            lines.append(f"{item['sources']} sources, {item['row']}: left out. {item['reason']}")
        for row in self.rows:
            if row.ruled_out and row.stage == "raw" and not row.row.startswith("oracle:"):
                lines.append(
                    f"{row.sources} sources, {row.row}: the tables rule out what was observed at "
                    f"{row.ruled_out:.2%} of the candidates' positions; the priors decided there."
                )
        return lines


def save(report: Report, *, json_file: Path | None, markdown_file: Path | None) -> None:
    """Write the report; parents are made. A file is replaced only once it is whole."""
    for path, text in ((json_file, report.to_json), (markdown_file, report.markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{path.name}.part")
            draft.write_text(text(), encoding="utf-8")
            draft.replace(path)


def _fitting(lines: list[list[str]], width: int) -> list[int]:
    """Columns that fit into `width`; the first one may break published rows at their words."""
    kept = list(range(len(_HEADER)))
    needed = [max(len(line[i]) for line in [list(_HEADER), *lines]) + 2 for i in kept]
    needed[0] = max(len(line[0]) for line in lines if not line[0].endswith(NOTE)) + 2
    for name in _DISPENSABLE:
        if sum(needed[i] for i in kept) + 2 > width:
            kept.remove(_HEADER.index(name))
    return kept


def _title(sources: int) -> str:
    return f"Mixtures of {sources} digits"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _row_cells(row: Row) -> list[str]:
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
        f"{row.seconds:.3f}",
        "" if row.peak_mb is None else f"{row.peak_mb:,.0f}",
    ]
