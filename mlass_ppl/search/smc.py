"""Sequential Monte Carlo: candidates that explain the mixture badly give way to better ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OptionError
from ..infer.base import Posterior
from ..infer.random import Random, uniforms
from .base import Step
from .sample import Sample


@dataclass(frozen=True, repr=False)
class SMC(Sample):
    """A fully adapted particle filter (Pitt and Shephard, 1999) over the candidates of a mixture.

    The evidence of a position, log p(observed | past of the candidate), does not depend on the
    tokens that are drawn there, so it weighs a candidate before they are. Where the effective
    number of candidates falls below `threshold` times all of them, parents are drawn by systematic
    resampling, and each child draws its own tokens from its parent's posterior.

    candidates, temperature, top_k, top_p: as of `Sample`. threshold: share in [0, 1]; 0 never
    resamples. A candidate's log weight is its evidence since the mixture was last resampled.

    Raises OptionError on a value out of range.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 1:
            raise OptionError(f"SMC(threshold=...) lies in [0, 1], got {self.threshold!r}.")

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        told = weights + posterior.log_evidence.to(weights)
        # Evidence that no candidate explains prefers none of them.
        weights = torch.where((told > float("-inf")).any(1, keepdim=True), told, weights)
        poor = effective_size(weights) < self.threshold * weights.shape[1]
        if not poor.any():
            return Step(posterior.sample(random), None, weights)
        # Only the streams of mixtures that resample move on: neighbours draw what they would alone.
        rows = poor.nonzero()[:, 0]
        some = [random[row] for row in rows.tolist()] if isinstance(random, Sequence) else random
        own = torch.arange(weights.shape[1], device=weights.device)
        parents = own.expand_as(weights).clone()
        parents[rows] = systematic(weights[rows], some)
        weights = torch.where(poor[:, None], 0.0, weights)
        return Step(posterior.of(parents).sample(random), parents, weights)


def effective_size(weights: Tensor) -> Tensor:
    """1 / sum of squared normalised weights of log weights [M, C]: between 1 and C, [M]."""
    return 1 / weights.softmax(1).square().sum(1)


def systematic(weights: Tensor, random: Random) -> Tensor:
    """Parents int64 [M, C] by systematic resampling from log weights [M, C]: a candidate of share w
    gets floor(w C) or ceil(w C) children, and w C of them on average; one of no weight gets none.

    Each row needs some weight.
    """
    count = weights.shape[1]
    share = weights.double().softmax(1).cumsum(1)
    offset = uniforms(random, len(weights), 1, 1)[:, 0].to(weights.device)
    places = (torch.arange(count, device=weights.device) + offset) / count * share[:, -1:]
    # A product that rounds up to the whole mass would fall behind the last positive share.
    last = torch.nextafter(share[:, -1:], torch.zeros_like(share[:, -1:]))
    return torch.searchsorted(share, torch.minimum(places, last), right=True)
