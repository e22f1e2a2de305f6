"""Checks of what a picture is asked for, each with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import OptionError

if TYPE_CHECKING:
    from ..infer import Posterior
    from ..separation import Separation


def check_row(posterior: Posterior, row: tuple[int, int]) -> int:
    """The place of a row (mixture, candidate) among all rows. Raises OptionError."""
    m, c = posterior.position.shape
    if not (0 <= row[0] < m and 0 <= row[1] < c):
        raise OptionError(f"no row ({row[0]}, {row[1]}) among {m} mixtures x {c} candidates.")
    return row[0] * c + row[1]


def check_mixture(separation: Separation, mixture: int) -> None:
    """Raises OptionError unless the separation has this mixture."""
    if not 0 <= mixture < len(separation.mixtures):
        raise OptionError(
            f"there is no mixture {mixture}; this separation has {len(separation.mixtures)} "
            "(the first is 0)."
        )


def check_candidates(separation: Separation) -> None:
    """Raises OptionError unless the separation holds its candidates' tokens."""
    if not separation.candidate_tokens:
        raise OptionError("this separation has no candidate_tokens; take one made by separate().")
