"""Options that every search has: how many candidates, and how priors are tempered."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import OptionError


@dataclass(frozen=True)
class Tempered:
    """candidates: separations of each mixture. temperature: of each source's prior (below 1 trusts
    it more). top_k: keep only the k most probable tokens of each source's prior, exactly k in every
    row."""

    candidates: int = 64
    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.candidates, int) or self.candidates < 1:
            raise OptionError(
                f"candidates must be a whole number, at least 1, got {self.candidates!r}."
            )
        if not 0 < self.temperature < float("inf"):
            raise OptionError(f"temperature must be positive, got {self.temperature}.")
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise OptionError(
                f"top_k must be None or a whole number, at least 1, got {self.top_k!r}."
            )

    def temper(self, log_priors: Tensor) -> Tensor:
        if self.temperature == 1 and self.top_k is None:
            return log_priors
        scores = log_priors / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            best = scores.topk(self.top_k, -1)
            scores = scores.new_full(scores.shape, float("-inf")).scatter(
                -1, best.indices, best.values
            )
        return scores.log_softmax(-1)
