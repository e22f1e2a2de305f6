"""Which line of the table a score belongs to, and in which order the lines stand."""

from __future__ import annotations

from collections.abc import Sequence

from .records import AnyScore, Record

Found = list[tuple[Record, AnyScore]]


def grouped(records: list[Record], order: Sequence[str] | None) -> dict[tuple[str, str], Found]:
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
        kinds = {"floor": 0, "baseline": 2, "oracle": 3, "ceiling": 4}
        first = row.removeprefix("oracle:candidate").lstrip(":")
        kind = kinds.get(row.partition(":")[0], 1)
        return kind, seen.index(first) if first in seen else -1, stage

    return {key: groups[key] for key in sorted(groups, key=place)}
