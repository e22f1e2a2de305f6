"""What a search does: it turns posteriors into candidates, position by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from ..infer.base import Posterior
from ..infer.random import Random


class Search(Protocol):
    """Frozen configuration of how candidate separations grow."""

    @property
    def candidates(self) -> int:
        """Number C of candidates for each mixture."""
        ...

    def temper(self, log_priors: Tensor) -> Tensor:
        """Change a prior's log probabilities [..., K] before inference; rows stay normalised."""
        ...

    def step(
        self, posterior: Posterior, random: Random
    ) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """Tokens {site: int64 [M, C]} of this position, and the candidate that each one continues,
        int64 [M, C], or None where each continues itself."""
        ...
