"""Ready-made programs: the graphs of LASS, of MLASS, of independent extractors, trees, and the
library's own default."""

from __future__ import annotations

from typing import Any

from .declare import Program, mix, source
from .errors import GraphError
from .evidence import Evidence, Feature, Token


def _check(n: int) -> None:
    if not isinstance(n, int) or n < 2:
        raise GraphError(f"a mixture has two or more sources, got n={n!r}.")


def _sources(n: int, prior: str | None) -> list[Any]:
    return [source(f"source_{i}", prior=prior) for i in range(1, n + 1)]


def joint(
    n: int, *, prior: str | None = None, evidence: Evidence = Token(), codec: str | None = None
) -> Program:
    """One factor p(mixture | source_1, ..., source_n), as in LASS (Postolache et al., 2023).

    Here and below: prior is the key of all sources' prior, evidence what is observed of the
    mixture, and codec the key of the codec that its tokens are of (default: the sources'). Raises
    GraphError unless n is at least 2.
    """
    _check(n)

    def program() -> Any:
        return mix("mixture", *_sources(n, prior), evidence=evidence, codec=codec)

    program.__name__ = f"joint({n})"
    return program


def chain(
    n: int,
    *,
    prior: str | None = None,
    evidence: Evidence = Token(),
    codec: str | None = None,
    inner: str | None = None,
) -> Program:
    """Partial mixtures mix_2 = source_1 + source_2, mix_3 = mix_2 + source_3, ..., as in MLASS
    (Scarcelli, 2024); the last one is the observed site `mixture`.

    Here and in `balanced`: inner is the key of the codec of the partial mixtures (default: the
    sources'). Larger alphabets than the sources' say more of a mixture; that of `codec` costs
    memory alone, that of `inner` multiplies the work as well.
    """
    _check(n)

    def program() -> Any:
        partial = source("source_1", prior=prior)
        for i in range(2, n):
            added = source(f"source_{i}", prior=prior)
            partial = mix(f"mix_{i}", partial, added, codec=inner)
        last = source(f"source_{n}", prior=prior)
        return mix("mixture", partial, last, evidence=evidence, codec=codec)

    program.__name__ = f"chain({n})"
    return program


def balanced(
    n: int,
    *,
    prior: str | None = None,
    evidence: Evidence = Token(),
    codec: str | None = None,
    inner: str | None = None,
) -> Program:
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
                return mix("mixture", left, right, evidence=evidence, codec=codec)
            return mix(f"mix_{first}_{last}", left, right, codec=inner)

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


def additive(n: int, *, prior: str | None = None) -> Program:
    """One observed feature, linear in n sources: `joint(n)` with `Feature(linear=True)`.

    The most that can be said of a mixture's patch given its sources' tokens, from moments of the
    sources alone; `Auto()` answers it for any n. The default of `mlass separate`.
    """
    program = joint(n, prior=prior, evidence=Feature(linear=True))
    program.__name__ = f"additive({n})"
    return program


def fine(n: int, *, prior: str | None = None) -> Program:
    """The published model done right: a chain of tokens alone, in the mixtures' own alphabets, of
    a bundle's codecs `fine` (observed) and `middle` (partial mixtures)."""
    program = chain(n, prior=prior, codec="fine", inner="middle")
    program.__name__ = f"fine({n})"
    return program
