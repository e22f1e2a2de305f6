"""What masks do to a mixture in an evaluation: the oracle, and the Wiener post-filter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...audio import Wiener
from ...refine import Refinement
from ..tasks import Fraction, Outcome
from .references import ideal_ratio_mask

if TYPE_CHECKING:
    from ..stimuli import Batch


@dataclass(frozen=True)
class IdealMask:
    """The ideal ratio masks of the true stems, applied to the mixture."""

    name: str = "oracle:irm"

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome:
        start = time.perf_counter()
        truths, mixtures = batch.truths[..., 0, :], batch.mixtures[..., 0, :]
        estimates = ideal_ratio_mask(truths, mixtures)[:, :, None]
        return Outcome({"raw": batch.scores(estimates, time.perf_counter() - start)})


@dataclass(frozen=True)
class PostFilter(Refinement):
    """`Wiener` as a refinement: each estimate becomes a part of the mixture, with the mixture's own
    phase and band. Of a program with several observed signals the first one is filtered. before: a
    refinement whose signals it filters."""

    wiener: Wiener = Wiener()
    before: Refinement | None = None

    def __call__(
        self,
        bundle: Any,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        weights: Mapping[str, Mapping[str, float]],
        observed: Mapping[str, Tensor],
        progress: Any = None,
    ) -> dict[str, Tensor]:
        """As `Refinement`: signals [M, 1, T]."""
        if self.before is not None:
            signals = self.before(bundle, signals, tokens, weights, observed)
        site, own = next(iter(weights.items()))
        stack = torch.stack([signals[name] for name in own], 1)
        filtered = self.wiener(stack, observed[site].to(stack), [*own.values()])
        if progress is not None:
            progress(len(stack), len(stack))
        return dict(zip(own, filtered.unbind(1), strict=True))
