"""Ancestral sampling: every candidate draws its own tokens from its own posterior."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import OptionError
from ..infer.base import Posterior
from ..infer.random import Random
from ._temper import Tempered
from .base import Step


@dataclass(frozen=True, repr=False)
class Sample(Tempered):
    """LASS's ancestral sampling (Postolache et al., 2023).

    candidates: separations drawn for each mixture, among which the one nearest to the mixture is
    chosen. temperature, top_k, top_p: of each source's prior, see `Tempered`. A candidate's log
    weight is its evidence so far, the sum of log p(observed | its past).

    Raises OptionError on a value out of range.
    """

    candidates: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.candidates, int) or self.candidates < 1:
            raise OptionError(
                f"candidates must be a whole number, at least 1, got {self.candidates!r}."
            )
        super().__post_init__()

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        return Step(posterior.sample(random), None, weights + posterior.log_evidence.to(weights))
