"""What a search does: it turns posteriors into candidates, position by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from ..infer.base import Posterior
from ..infer.random import Random


class Step(NamedTuple):
    """How the candidates go on from one position.

    tokens: {site: int64 [M, C]}. parents: the candidate that each one continues, int64 [M, C], or
    None where each continues itself. weights: log importance weights of the candidates [M, C],
    given back to the search at the next position.
    """

    tokens: Mapping[str, Tensor]
    parents: Tensor | None
    weights: Tensor


class Search(Protocol):
    """Frozen configuration of how candidate separations grow."""

    @property
    def candidates(self) -> int:
        """Number C of candidates for each mixture."""
        ...

    def temper(self, log_priors: Tensor) -> Tensor:
        """Change a prior's log probabilities [..., K] before inference; rows stay normalised."""
        ...

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        """One position. weights: those of the last step [M, C], zeros at the first."""
        ...
