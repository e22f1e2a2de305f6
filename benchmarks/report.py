"""Rows as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from .compare import TASKS, Row
from .contenders import BASE

_TITLES = {
    "sample": "Evidence and a joint sample of the sources",
    "marginals": "Evidence and the marginals of every source",
}


def markdown(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A table of ratios for each task, and one of memory."""
    others = [name for name in names if name != BASE]
    parts = []
    for task in TASKS:
        ours = [row for row in rows if row.task == task]
        head = ["n", "K", "C", f"{BASE} ms", *(f"{name} / {BASE}" for name in others)]
        parts.append(_table(_TITLES[task], head, ours, others, _ratio, lambda row: _ms(row)))
    ours = [row for row in rows if row.task == TASKS[0]]
    head = ["n", "K", "C", f"{BASE} MB", *(f"{name} MB" for name in others)]
    parts.append(_table("Extra memory of one joint sample", head, ours, others, _mb, _mb))
    return "\n\n".join(parts) + "\n"


def to_json(rows: Sequence[Row], run: dict[str, Any]) -> str:
    """`{"ratios": {task: {case: {contender: time / time of bp}}}, "rows": [...], "run": {...}}`."""
    ratios: dict[str, dict[str, dict[str, float]]] = {task: {} for task in TASKS}
    for row in rows:
        if row.contender != BASE:
            case = f"n={row.n} K={row.k} C={row.candidates}"
            ratios[row.task].setdefault(case, {})[row.contender] = round(row.ratio, 3)
    content = {"ratios": ratios, "rows": [row.to_json() for row in rows], "run": run}
    return json.dumps(content, indent=2) + "\n"


def _table(
    title: str,
    head: list[str],
    rows: list[Row],
    others: list[str],
    cell: Callable[[Row], str],
    base: Callable[[Row], str],
) -> str:
    cases = list(dict.fromkeys((row.n, row.k, row.candidates) for row in rows))
    by = {(row.n, row.k, row.candidates, row.contender): row for row in rows}
    lines = [f"**{title}**", "", _line(head), _line(["---:"] * len(head))]
    for case in cases:
        found = [by.get((*case, name)) for name in others]
        cells = ["" if row is None else cell(row) for row in found]
        lines.append(_line([*map(str, case), base(by[*case, BASE]), *cells]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _ms(row: Row) -> str:
    return f"{row.median_ms:.2f}"


def _ratio(row: Row) -> str:
    return f"{row.ratio:.2f}" if row.ratio < 10 else f"{row.ratio:,.0f}"


def _mb(row: Row) -> str:
    return "" if row.peak_mb is None else f"{row.peak_mb:.1f}"
