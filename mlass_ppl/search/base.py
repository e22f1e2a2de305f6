"""What a search does: it turns posteriors into candidates, position by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..infer.base import Posterior
from ..infer.random import Random, draw, uniforms


class Step(NamedTuple):
    """How the candidates go on from one position.

    tokens: {source: int64 [M, C]}, -1 where a candidate is left to its priors. parents: the
    candidate that each one continues, int64 [M, C], or None where each continues itself. weights:
    log weights of the candidates [M, C], given back to the search at the next position.
    """

    tokens: Mapping[str, Tensor]
    parents: Tensor | None
    weights: Tensor


class Search(Protocol):
    """Frozen configuration of how candidate separations grow.

    A search of one's own that subclasses it has `start`, `temper` and `blind` already.
    """

    @property
    def candidates(self) -> int:
        """Number C of candidates for each mixture."""
        ...

    def start(self, mixtures: int) -> Tensor:
        """Log weights before the first position, float64 [M, C]."""
        return torch.zeros(mixtures, self.candidates, dtype=torch.float64)

    def temper(self, log_priors: Tensor, position: int, length: int) -> Tensor:
        """Change a prior's log probabilities [..., K] before inference; rows stay normalised.

        position: of the token that they are of, 0 .. length - 1.
        """
        return log_priors

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        """One position. weights: those of the last step, at the first one those of `start`, [M, C].
        random: the stream of each mixture; a mixture that draws nothing moves none."""
        ...

    def blind(self, log_prior: Tensor, random: Random) -> Tensor:
        """Tokens int64 [M, C] of one source from its tempered prior [M, C, K], nats, where the
        tables say nothing: draws."""
        m, c = log_prior.shape[:2]
        uniform = uniforms(random, m, c, 1).flatten().to(log_prior.device)
        return draw(log_prior.exp().flatten(0, 1), uniform).reshape(m, c)
