"""A finished evaluation as JSON, as Markdown and as a table in the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .published import NOTE
from .rows import Row

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Grid:
    """One table: cells as they are shown, the row's name first. `dispensable` columns are left out,
    from the first on, where a terminal has no room; with `wrap` cells break at their spaces."""

    title: str
    header: tuple[str, ...]
    lines: list[list[str]]
    dispensable: tuple[str, ...] = ()
    wrap: bool = False

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _line(self.header), _line(["---"] * len(self.header))]
        return "\n".join(lines + [_line(cells) for cells in self.lines])

    def rendered(self, width: int) -> RenderableType:
        """For a terminal of `width` characters."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=self.title, box=box.SIMPLE_HEAD)
        kept = self._fitting(width)
        for i in kept:
            table.add_column(
                self.header[i],
                justify="left" if i < 2 else "right",
                no_wrap=i > 0 and not self.wrap,
                overflow="fold",
            )
        for cells in self.lines:
            style = "dim" if cells[0].endswith(NOTE) else None
            table.add_row(*(escape(cells[i]) for i in kept), style=style)
        return table

    def _fitting(self, width: int) -> list[int]:
        """Columns that fit into `width`; the first one may break published rows at their words."""
        kept = list(range(len(self.header)))
        needed = [max(len(line[i]) for line in [list(self.header), *self.lines]) + 2 for i in kept]
        needed[0] = max(len(line[0]) for line in self.lines if not line[0].endswith(NOTE)) + 2
        for name in self.dispensable:
            if sum(needed[i] for i in kept) + 2 > width:
                kept.remove(self.header.index(name))
        return kept


class Layout(Protocol):
    """How rows are laid out as tables, and what is said below them."""

    def grids(self, rows: Sequence[Row], run: dict[str, Any]) -> Iterator[Grid]: ...

    def footer(self, rows: Sequence[Row], run: dict[str, Any]) -> list[str]: ...


@dataclass(frozen=True)
class Report:
    """`rows` of all numbers of sources; `run` says what made them (commit, seeds, device, torch
    version, split hash, configuration, command, and what was left out and why); `layout` how they
    are shown."""

    rows: tuple[Row, ...]
    run: dict[str, Any]
    layout: Layout

    def to_json(self) -> str:
        """`{"rows": [...], "run": {...}}`: the stable format for scripts."""
        content = {"rows": [row.to_json() for row in self.rows], "run": self.run}
        return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        """The tables in Markdown, per number of sources, beside the published rows."""
        parts = [grid.markdown() for grid in self.layout.grids(self.rows, self.run)]
        parts.append("\n".join(f"- {line}" for line in self._footer()))
        return "\n\n".join(parts) + "\n"

    def tables(self, width: int = 160) -> Iterator[RenderableType]:
        """The tables for a terminal of `width` characters, as rich renderables, and what made
        them. Where they do not fit, columns such as memory and median are left out."""
        from rich.text import Text

        for grid in self.layout.grids(self.rows, self.run):
            yield grid.rendered(width)
        for line in self._footer():
            yield Text(line, style="dim")

    def _footer(self) -> list[str]:
        lines = list(self.layout.footer(self.rows, self.run))
        for item in self.run["left_out"]:
            lines.append(f"{item['sources']} sources, {item['row']}: left out. {item['reason']}")
        for item in self.run.get("failed", []):
            lines.append(
                f"{item['sources']} sources, {item['row']}: {item['mixtures']:,} mixtures failed "
                f"and are left out. The first, {item['first']}: {item['reason']}"
            )
        blind = {
            (row.sources, row.row): row.ruled_out
            for row in self.rows
            if row.ruled_out and row.stage == "raw" and not row.row.startswith("oracle:")
        }
        for (sources, name), share in blind.items():
            lines.append(
                f"{sources} sources, {name}: the tables rule out what was observed at "
                f"{share:.2%} of the candidates' positions; the priors decided there."
            )
        return lines


def provenance_lines(run: dict[str, Any], refined: str) -> list[str]:
    """What made the tables, for their footer; `refined` says what followed the separation."""
    config = run["config"]
    return [
        f"Bundle {config['bundle']} ({config['bundle_sha256'][:12]}), split {config['split']} "
        f"({config['split_sha256'][:12]}), pairing seed {config['pairing_seed']}, seed "
        f"{config['seed']}, {config['search']}, {config['estimate']}, {refined}",
        f"mlass_ppl {run['version']}, commit {run['commit'] or 'unknown'}, torch "
        f"{run['torch']} on {run['device']}, threads: {run['threads']}.",
    ]


def save(report: Report, *, json_file: Path | None, markdown_file: Path | None) -> None:
    """Write the report; parents are made. A file is replaced only once it is whole."""
    for path, text in ((json_file, report.to_json), (markdown_file, report.markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{path.name}.part")
            draft.write_text(text(), encoding="utf-8")
            draft.replace(path)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
