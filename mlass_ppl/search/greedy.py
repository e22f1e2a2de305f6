"""Greedy search: the most probable tokens of each position, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..infer.base import Posterior
from ..infer.random import Random
from ._temper import Tempered
from .base import Step


@dataclass(frozen=True, repr=False)
class Greedy(Tempered):
    """One candidate: the mode of each position's posterior, given the modes before it.

    Nothing is drawn, so that the seed changes nothing. On graphs with latent mixtures it is the
    mode of sources and mixtures together (`Posterior.mode`). temperature, top_k, top_p: of each
    source's prior, see `Tempered`; at a low temperature the priors decide, at a high one the
    tables. Log weights are those of `Sample`.
    """

    @property
    def candidates(self) -> int:
        return 1

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        return Step(posterior.mode(), None, weights + posterior.log_evidence.to(weights))

    def blind(self, log_prior: Tensor, random: Random) -> Tensor:
        """The prior's most probable token."""
        return log_prior.argmax(-1)
