"""Which cases are timed, and the problem of each."""

from __future__ import annotations

from .compare import TASKS
from .problem import Case, Problem
from .real import real
from .synthetic import made

_REAL = 256
"""Alphabet of the shipped bundle."""

_ROWS = (256, 64)


def cases(quick: bool) -> list[Case]:
    """Real tables first; chains of 2 to 6 sources, 256 and 64 candidates."""
    if quick:
        return [Case(3, _REAL, 256, "mnist"), Case(3, 64, 64)]
    sources = (3, 2, 4, 5, 6)
    out = [Case(n, _REAL, rows, "mnist") for n in sources for rows in _ROWS]
    return out + [Case(n, k, rows) for k in (64, 1024, 2048) for n in sources for rows in _ROWS]


def tasks_of(case: Case) -> tuple[str, ...]:
    """Samples are what a separation asks for; marginals are timed with 64 candidates alone."""
    return TASKS if case.candidates == min(_ROWS) else TASKS[:1]


def problem_of(case: Case) -> Problem:
    if case.tables == "mnist":
        return real(case.n, max(_ROWS)).first(case.candidates)
    return made(case)
