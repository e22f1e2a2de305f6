"""All measurements as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .contenders import BASE, CONTENDERS

Rows = Sequence[Mapping[str, Any]]

HEADLINE = {"n": 3, "k": 256, "candidates": 256, "tables": "mnist", "task": "sample"}
"""The case whose ratios stand for all."""

_TASKS = {
    "sample": "Posterior and a joint sample of the sources",
    "marginals": "Posterior and the marginals of every source",
}
_OTHERS = [name for name in CONTENDERS if name != BASE]


def to_json(rows: Rows, run: Mapping[str, Any]) -> str:
    """`{"ratios": {contender: time / time of bp}, "rows": [...], "run": {...}}`; the ratios are
    those of `HEADLINE` on the CPU, as far as it was run."""
    content = {"ratios": ratios(rows), "rows": list(rows), "run": dict(run)}
    return json.dumps(content, indent=2) + "\n"


def ratios(rows: Rows) -> dict[str, float]:
    return {
        row["contender"]: row["ratio"]
        for row in rows
        if row["part"] == "token"
        and row["device"] == "cpu"
        and row["contender"] != BASE
        and row["ratio"] is not None
        and all(row[key] == value for key, value in HEADLINE.items())
    }


def markdown(rows: Rows) -> str:
    """A table for each part that has rows."""
    parts = []
    for device in dict.fromkeys(row["device"] for row in rows if row["part"] == "token"):
        own = [row for row in rows if row["part"] == "token" and row["device"] == device]
        for task, title in _TASKS.items():
            asked = [row for row in own if row["task"] == task]
            parts += [f"**{title} ({device})**", _cases(asked)] if asked else []
        first = [row for row in own if row["task"] == "sample"]
        parts += [f"**Extra memory of the first of these, MB ({device})**", _memory(first)]
        parts.append(_reasons(own))
    for part, title in _PARTS.items():
        own = [row for row in rows if row["part"] == part]
        if own:
            parts += [f"**{title}**", _plain(own)]
    return "\n\n".join(part for part in parts if part) + "\n"


_PARTS = {
    "memory": "Peak memory of a process of its own",
    "separation": "Whole separations",
    "shares": "Where a mixture's seconds go",
    "scaling": "Growth",
    "fit": "Lines through it",
    "limit": "Share of what the machine can do",
    "skipped": "Not run",
}


def _by_case(rows: Rows) -> dict[tuple[Any, ...], dict[str, Mapping[str, Any]]]:
    out: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        case = (row["tables"], row["n"], row["k"], row["candidates"])
        out.setdefault(case, {})[row["contender"]] = row
    return out


def _cases(rows: Rows) -> str:
    head = ["tables", "n", "K", "C", f"{BASE} ms", *(f"{name} / {BASE}" for name in _OTHERS)]
    lines = []
    for case, found in _by_case(rows).items():
        cells = [_ratio(found.get(name)) for name in _OTHERS]
        lines.append([*map(str, case), _number(found[BASE].get("median_ms")), *cells])
    return _table(head, lines)


def _memory(rows: Rows) -> str:
    names = [BASE, *_OTHERS]
    lines = [
        [*map(str, case), *(_number(found.get(name, {}).get("peak_mb")) for name in names)]
        for case, found in _by_case(rows).items()
    ]
    return _table(["tables", "n", "K", "C", *names], lines)


def _reasons(rows: Rows) -> str:
    """Who was left out or asked for fewer candidates, each reason told once."""
    out: dict[str, list[str]] = {}
    for row in rows:
        case = f"n={row['n']} K={row['k']} C={row['candidates']}"
        if row["left_out"]:
            out.setdefault(f"- `{row['contender']}` left out: {row['left_out']}:", []).append(case)
        elif row["asked"] < row["candidates"]:
            reason = f"- `{row['contender']}` asked for {row['asked']} candidates, time scaled up:"
            out.setdefault(reason, []).append(case)
    return "\n".join(f"{key} {', '.join(dict.fromkeys(cases))}" for key, cases in out.items())


def _plain(rows: Rows) -> str:
    head = list(dict.fromkeys(key for row in rows for key in row if key != "part"))
    return _table(head, [[_number(row.get(key)) for key in head] for row in rows])


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    return "\n".join(map(_line, [head, ["---:"] * len(head), *lines]))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _ratio(row: Mapping[str, Any] | None) -> str:
    if row is None or row["ratio"] is None:
        return ""
    scaled = "*" if row["asked"] < row["candidates"] else ""
    return _number(row["ratio"]) + scaled


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if abs(value) >= 1e7:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
