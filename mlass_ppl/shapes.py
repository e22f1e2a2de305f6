"""Ready-made programs: the graphs of LASS, of MLASS and of independent extractors."""

from __future__ import annotations

from typing import Any

from .declare import Program, mix, source
from .errors import GraphError


def _check(n: int) -> None:
    if not isinstance(n, int) or n < 2:
        raise GraphError(f"a mixture has two or more sources, got n={n!r}.")


def _sources(n: int, prior: str | None) -> list[Any]:
    return [source(f"source_{i}", prior=prior) for i in range(1, n + 1)]


def joint(n: int, *, prior: str | None = None) -> Program:
    """One factor p(mixture | source_1, ..., source_n), as in LASS (Postolache et al., 2023)."""
    _check(n)

    def program() -> Any:
        return mix("mixture", *_sources(n, prior))

    program.__name__ = f"joint({n})"
    return program


def chain(n: int, *, prior: str | None = None) -> Program:
    """Partial mixtures mix_2 = source_1 + source_2, mix_3 = mix_2 + source_3, ..., as in MLASS
    (Scarcelli, 2024); the last one is the observed site `mixture`."""
    _check(n)

    def program() -> Any:
        partial = source("source_1", prior=prior)
        for i in range(2, n + 1):
            part = source(f"source_{i}", prior=prior)
            partial = mix("mixture" if i == n else f"mix_{i}", partial, part)
        return partial

    program.__name__ = f"chain({n})"
    return program


def star(n: int, *, prior: str | None = None) -> Program:
    """Independent extractors: one observed site mixture_i for each source, with the table
    p(mixture_i | source_i) averaged over the others; all observe the same signal (MLASS-PE)."""
    _check(n)

    def program() -> Any:
        sources = _sources(n, prior)
        return tuple(
            mix(f"mixture_{i}", sources[i - 1], hidden=sources[: i - 1] + sources[i:])
            for i in range(1, n + 1)
        )

    program.__name__ = f"star({n})"
    return program
