"""Ready-made programs: the graphs of LASS, of MLASS, of independent extractors, and a tree."""

from __future__ import annotations

from typing import Any

from .declare import Program, mix, source
from .errors import GraphError
from .evidence import Evidence, Token


def _check(n: int) -> None:
    if not isinstance(n, int) or n < 2:
        raise GraphError(f"a mixture has two or more sources, got n={n!r}.")


def _sources(n: int, prior: str | None) -> list[Any]:
    return [source(f"source_{i}", prior=prior) for i in range(1, n + 1)]


def joint(n: int, *, prior: str | None = None, evidence: Evidence = Token()) -> Program:
    """One factor p(mixture | source_1, ..., source_n), as in LASS (Postolache et al., 2023).

    Here and below: prior is the key of all sources' prior, evidence what is observed of the
    mixture. Raises GraphError unless n is at least 2.
    """
    _check(n)

    def program() -> Any:
        return mix("mixture", *_sources(n, prior), evidence=evidence)

    program.__name__ = f"joint({n})"
    return program


def chain(n: int, *, prior: str | None = None, evidence: Evidence = Token()) -> Program:
    """Partial mixtures mix_2 = source_1 + source_2, mix_3 = mix_2 + source_3, ..., as in MLASS
    (Scarcelli, 2024); the last one is the observed site `mixture`."""
    _check(n)

    def program() -> Any:
        partial = source("source_1", prior=prior)
        for i in range(2, n):
            partial = mix(f"mix_{i}", partial, source(f"source_{i}", prior=prior))
        return mix("mixture", partial, source(f"source_{n}", prior=prior), evidence=evidence)

    program.__name__ = f"chain({n})"
    return program


def balanced(n: int, *, prior: str | None = None, evidence: Evidence = Token()) -> Program:
    """A binary tree of partial mixtures, as deep as log2 n: of four sources, mix_1_2 and mix_3_4
    make the observed `mixture`. Partial mixtures are named after their first and last source."""
    _check(n)

    def program() -> Any:
        def branch(first: int, last: int) -> Any:
            if first == last:
                return source(f"source_{first}", prior=prior)
            middle = (first + last) // 2
            left, right = branch(first, middle), branch(middle + 1, last)
            if last - first + 1 == n:
                return mix("mixture", left, right, evidence=evidence)
            return mix(f"mix_{first}_{last}", left, right)

        return branch(1, n)

    program.__name__ = f"balanced({n})"
    return program


def star(n: int, *, prior: str | None = None, evidence: Evidence = Token()) -> Program:
    """Independent extractors: one observed site mixture_i for each source, with the table
    p(mixture_i | source_i) averaged over the others; all observe the same signal (MLASS-PE)."""
    _check(n)

    def program() -> Any:
        sources = _sources(n, prior)
        return tuple(
            mix(
                f"mixture_{i}",
                sources[i - 1],
                hidden=sources[: i - 1] + sources[i:],
                evidence=evidence,
            )
            for i in range(1, n + 1)
        )

    program.__name__ = f"star({n})"
    return program
