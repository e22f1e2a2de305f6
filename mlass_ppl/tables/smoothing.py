"""Declared smoothing of counts."""

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
