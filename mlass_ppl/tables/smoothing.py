"""Declared smoothing of counts, and shrinkage of moments."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import TableError


@dataclass(frozen=True)
class Additive:
    """Add `alpha` to every count: p(m | a) = (c + alpha) / (n_a + alpha K); unseen parents get the
    uniform row. Stored as the seen cells plus one constant for each row, never densified.

    Without smoothing (None) the support is exact: what was never counted has probability zero.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not self.alpha > 0 or self.alpha == float("inf"):
            raise TableError(
                f"alpha must be positive and finite, got {self.alpha}. For no smoothing pass None."
            )


@dataclass(frozen=True)
class BackOff:
    """Back off to the tables of single parents: p(m | a, b) = (c + strength q) / (n_ab + strength)
    with q(m) = (p(m | a) + p(m | b)) / 2, or the mean over as many parents as there are; of one
    parent q is p(m). Parents that were never seen together get the row q.

    That is interpolation (Jelinek and Mercer, 1980) with weights by evidence (Witten and Bell,
    1991): rows are trusted as they were seen. A parent that was never seen at all backs off to
    p(m), and a child that was never seen with any of the parents keeps probability zero. Stored as
    the seen cells plus one table for each parent, never densified.

    strength: pseudo-counts in every row.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        if not self.strength > 0 or self.strength == float("inf"):
            raise TableError(
                f"strength must be positive and finite, got {self.strength}. For no smoothing "
                "pass None."
            )


@dataclass(frozen=True)
class Shrink:
    """How the moments of few samples are pulled towards what the single parents say.

    strength: pseudo-samples of the back-off in every configuration of parents. min_std: smallest
    standard deviation, in the feature's own units.
    """

    strength: float = 4.0
    min_std: float = 0.02

    def __post_init__(self) -> None:
        for name in ("strength", "min_std"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise TableError(f"{name} of Shrink must be positive and finite, got {value!r}.")


Smoothing = Additive | BackOff
