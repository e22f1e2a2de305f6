"""A report as one self-contained HTML file: text, tables and pictures, nothing loaded from afar."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError

if TYPE_CHECKING:
    from ._figure import Drawing


@dataclass(frozen=True)
class ReportTable:
    """A table: `columns` are its headings, `rows` its cells as they shall be read."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise OptionError(
                    f"a table with {len(self.columns)} columns needs as many cells in each row, "
                    f"got {len(row)}: {row}."
                )


@dataclass(frozen=True)
class ReportPicture:
    """A picture: a `Drawing` or the bytes of a PNG file; `text` says what is to be seen."""

    image: Drawing | bytes
    text: str


@dataclass(frozen=True)
class ReportRow:
    """Pictures side by side, where the page is wide enough."""

    pictures: tuple[ReportPicture, ...]


@dataclass(frozen=True)
class ReportSection:
    """A heading, a paragraph, and what follows it."""

    title: str
    text: str = ""
    items: tuple[ReportTable | ReportPicture | ReportRow, ...] = ()


def report_html(
    title: str,
    lead: str,
    sections: Sequence[ReportSection],
    facts: Mapping[str, object] | None = None,
) -> str:
    """The report as a page. `facts` (how and on what it was run) stand at its end."""
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>']
    parts += [_section(section) for section in sections]
    if facts:
        rows = "".join(
            f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(str(value))}</td></tr>'
            for key, value in facts.items()
        )
        parts.append(f'<section><h2>Run</h2><table class="facts">{rows}</table></section>')
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(parts))


def write_report(
    path: str | Path,
    title: str,
    lead: str,
    sections: Sequence[ReportSection],
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write `report_html` to a file and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report_html(title, lead, sections, facts), encoding="utf-8")
    return path


def _section(section: ReportSection) -> str:
    body = [f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        body.append(f"<p>{escape(section.text)}</p>")
    body += [_item(item) for item in section.items]
    return "<section>" + "\n".join(body) + "</section>"


def _item(item: ReportTable | ReportPicture | ReportRow) -> str:
    if isinstance(item, ReportTable):
        return _table(item)
    if isinstance(item, ReportPicture):
        return _picture(item)
    return '<div class="row">' + "".join(map(_picture, item.pictures)) + "</div>"


def _table(table: ReportTable) -> str:
    styles = [_align([row[place] for row in table.rows]) for place in range(len(table.columns))]

    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(
            f"<{tag}{style}>{escape(cell)}</{tag.split()[0]}>"
            for cell, style in zip(row, styles, strict=True)
        )

    head = cells('th scope="col"', table.columns)
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _align(column: list[str]) -> str:
    """Numbers stand on the right, under a heading on the right."""
    filled = [cell for cell in column if cell]
    numbers = filled and all(re.match(r"^[+\-−±]?\d", cell) for cell in filled)
    return ' class="number"' if numbers else ""


def _picture(picture: ReportPicture) -> str:
    data = picture.image if isinstance(picture.image, bytes) else picture.image.render("png")
    source = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    text = escape(picture.text)
    return (
        f'<figure><div class="wide"><img src="{source}" alt="{text}"></div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
main { max-width: 75rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; margin: 0 0 .5rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
p { max-width: 46rem; } .lead { font-size: 1.1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; color: #666; font-size: .9rem; }
th, td { padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid #ddd; text-align: left; }
thead th { border-bottom: 2px solid #888; } .number { text-align: right; }
.row { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: end; }
.row figure { flex: 1 1 0; min-width: 15rem; }
.facts th { font-weight: 600; white-space: nowrap; vertical-align: top; }
figure { margin: 1rem 0 1.5rem; } img { max-width: 100%; background: #fff; display: block; }
figcaption { color: #666; font-size: .9rem; margin-top: .3rem; max-width: 46rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #161616; } th, td { border-color: #3a3a3a; }
  caption, figcaption { color: #aaa; }
}
"""
