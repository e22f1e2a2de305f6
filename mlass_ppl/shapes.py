"""Ready-made programs: the graphs of LASS, of MLASS, of independent extractors, trees, and the
library's own default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .declare import Program, mix, source
from .errors import GraphError
from .evidence import Evidence, Feature, Token


def _names(sources: int | Sequence[str]) -> tuple[list[str], str]:
    """Names of the sources, and how a program's own name tells them."""
    if isinstance(sources, int):
        names = [f"source_{i}" for i in range(1, sources + 1)]
    else:
        listed = isinstance(sources, Sequence) and not isinstance(sources, str)
        names = list(sources) if listed else []
    if len(names) < 2:
        raise GraphError(
            f"a mixture has two or more sources, got n={sources!r}. Give their number, or a "
            "list of names."
        )
    return names, str(sources) if isinstance(sources, int) else ", ".join(map(str, names))


def joint(
    sources: int | Sequence[str],
    *,
    prior: str | None = None,
    evidence: Evidence = Token(),
    codec: str | None = None,
) -> Program:
    """One factor p(mixture | source_1, ..., source_n), as in LASS (Postolache et al., 2023).

    Here and below: sources is how many there are, named source_1 to source_n, or their names, as
    ["bass", "drums"]; prior is the key of all sources' prior (default: each one's name, or the
    bundle's only prior), evidence what is observed of the mixture, and codec the key of the codec
    that its tokens are of (default: the main one). Raises GraphError on fewer than two sources.
    """
    names, told = _names(sources)

    def program() -> Any:
        parts = [source(name, prior=prior) for name in names]
        return mix("mixture", *parts, evidence=evidence, codec=codec)

    program.__name__ = f"joint({told})"
    return program


def chain(
    sources: int | Sequence[str],
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
    names, told = _names(sources)

    def program() -> Any:
        partial = source(names[0], prior=prior)
        for i, name in enumerate(names[1:-1], 2):
            partial = mix(f"mix_{i}", partial, source(name, prior=prior), codec=inner)
        last = source(names[-1], prior=prior)
        return mix("mixture", partial, last, evidence=evidence, codec=codec)

    program.__name__ = f"chain({told})"
    return program


def balanced(
    sources: int | Sequence[str],
    *,
    prior: str | None = None,
    evidence: Evidence = Token(),
    codec: str | None = None,
    inner: str | None = None,
) -> Program:
    """A binary tree of partial mixtures, as deep as log2 n: of four sources, mix_1_2 and mix_3_4
    make the observed `mixture`. Partial mixtures are named after their first and last source."""
    names, told = _names(sources)
    n = len(names)

    def program() -> Any:
        def branch(first: int, last: int) -> Any:
            if first == last:
                return source(names[first - 1], prior=prior)
            middle = (first + last) // 2
            left, right = branch(first, middle), branch(middle + 1, last)
            if last - first + 1 == n:
                return mix("mixture", left, right, evidence=evidence, codec=codec)
            return mix(f"mix_{first}_{last}", left, right, codec=inner)

        return branch(1, n)

    program.__name__ = f"balanced({told})"
    return program


def star(
    sources: int | Sequence[str], *, prior: str | None = None, evidence: Evidence = Token()
) -> Program:
    """Independent extractors: one observed site mixture_i for each source, with the table
    p(mixture_i | source_i) averaged over the others; all observe the same signal (MLASS-PE)."""
    names, told = _names(sources)

    def program() -> Any:
        parts = [source(name, prior=prior) for name in names]
        return tuple(
            mix(f"mixture_{i}", part, hidden=parts[: i - 1] + parts[i:], evidence=evidence)
            for i, part in enumerate(parts, 1)
        )

    program.__name__ = f"star({told})"
    return program


def additive(sources: int | Sequence[str], *, prior: str | None = None) -> Program:
    """One observed feature, linear in n sources: `joint(n)` with `Feature(linear=True)`.

    The most that can be said of a mixture's patch given its sources' tokens, from moments of the
    sources alone; `Auto()` answers it for any n. The default of `mlass separate`.
    """
    program = joint(sources, prior=prior, evidence=Feature(linear=True))
    program.__name__ = f"additive({_names(sources)[1]})"
    return program


def fine(sources: int | Sequence[str], *, prior: str | None = None) -> Program:
    """The published model done right: a chain of tokens alone, in the mixtures' own alphabets, of
    a bundle's codecs `fine` (observed) and `middle` (partial mixtures)."""
    program = chain(sources, prior=prior, codec="fine", inner="middle")
    program.__name__ = f"fine({_names(sources)[1]})"
    return program
