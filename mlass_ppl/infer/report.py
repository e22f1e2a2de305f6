"""What a plan will do, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cost import Cost


@dataclass(frozen=True)
class Row:
    """One step of a plan.

    step: what it is called ("1", "up 1"). over: the sites that it sums out. scope: all sites that
    it works on. size: states that it visits; dense: those there would be if all were possible.
    operations: multiplications for each token and candidate. holds: bytes of its table or list.
    needs: bytes more for each candidate. kernel: how it is done.
    """

    step: str
    over: tuple[str, ...]
    scope: tuple[str, ...]
    size: float
    dense: float
    operations: float
    holds: float
    needs: float
    kernel: str


def report(title: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The title, a line for each step, the totals and the notes.

    Exact() on joint(2): variable elimination, exact
      step  sums out  leaves    states  if all  operations    holds     needs  how
         1  source_1  source_2   3,102  65,536       3,102  78.5 kB   1.02 kB  p(mixture | ...)
         2  source_2  -            255     256         255  4.09 kB   4 bytes  step 1
            total                3,357  65,792       3,357  82.6 kB  1.02 kB
    """
    cells: list[tuple[str, ...]] = [
        ("step", "sums out", "leaves", "states", "if all", "operations", "holds", "needs", "how")
    ]
    cells += [_cells(row) for row in rows]
    if len(rows) > 1:
        totals = [(row.size, row.dense, row.operations) for row in rows]
        sums = (number(sum(column)) for column in zip(*totals, strict=True))
        memory = (sum(row.holds for row in rows), sum(row.needs for row in rows))
        cells.append(("", "total", "", *sums, *map(size, memory), ""))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    left = {1, 2, 8}
    lines = [title]
    for line in cells:
        padded = [
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  " + "  ".join(padded).rstrip())
    return "\n".join([*lines, *(f"  {note}" for note in notes)])


def memory(cost: Cost, mixtures: int = 64, candidates: int = 64) -> str:
    """A line: what a plan holds and what each mixture and candidate takes."""
    one = cost.bytes() - cost.held
    return (
        f"memory: {size(cost.held)} held, {size(one)} for one candidate of one mixture; "
        f"{mixtures} x {candidates} take {size(cost.bytes(mixtures, candidates))} together"
    )


def number(value: float) -> str:
    """1,234 or 1.2e7."""
    if value < 1e6:
        return f"{value:,.0f}"
    return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def size(value: float) -> str:
    """Bytes, in the largest unit that leaves at least one."""
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _cells(row: Row) -> tuple[str, ...]:
    leaves = [name for name in row.scope if name not in row.over]
    return (
        row.step,
        ", ".join(row.over) or "-",
        ", ".join(leaves) or "-",
        number(row.size),
        number(row.dense),
        number(row.operations),
        size(row.holds),
        size(row.needs),
        row.kernel,
    )
