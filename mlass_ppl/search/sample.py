"""Ancestral sampling: every candidate draws its own tokens from its own posterior."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..infer.base import Posterior
from ..infer.random import Random
from ._temper import Tempered
from .base import Step


@dataclass(frozen=True)
class Sample(Tempered):
    """LASS's ancestral sampling.

    candidates: separations drawn for each mixture, among which the one nearest to the mixture is
    chosen. temperature: of each source's prior (below 1 trusts it more). top_k: keep only the k
    most probable tokens of each source's prior, exactly k in every row.
    """

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        return Step(posterior.sample(random), None, weights + posterior.log_evidence.to(weights))
