"""What a refiner learns from: separations of mixtures whose true sources are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DataError


class ExampleBatch(NamedTuple):
    """Float tensors in [0, 1]; see `Examples`. observed: [B, O, 1, S, S]."""

    estimates: Tensor
    coded: Tensor
    truths: Tensor
    observed: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Examples:
    """Estimates of N mixtures of n sources, with the truth. Signals are in [0, 1], or uint8.

    estimates: [N, k, n, 1, S, S], k candidates of each separation, the chosen one first, each
    source in the place of the true one that it stands for. coded: [N, n, 1, S, S], the true sources
    encoded and decoded. truths: [N, n, 1, S, S]. weights: of each source in the mixture, [n], or in
    each observed signal, [O, n]; what is observed are the truths in these shares.

    Raises DataError where these shapes do not fit.
    """

    estimates: Tensor
    coded: Tensor
    truths: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        shape, weights = self.truths.shape, self.weights
        k = self.estimates.shape[1] if self.estimates.ndim == 6 else 0
        fits = len(shape) == 5 and k > 0 and self.coded.shape == shape
        fits = fits and self.estimates.shape == (shape[0], k, *shape[1:])
        if not fits or weights.ndim not in (1, 2) or weights.shape[-1] != shape[1]:
            got = (self.estimates, self.coded, self.truths, weights)
            raise DataError(
                "expected estimates [N, k, n, 1, S, S], coded and true signals [N, n, 1, S, S] and "
                f"weights [n] or [O, n], got {', '.join(str(list(x.shape)) for x in got)}."
            )

    def __len__(self) -> int:
        return len(self.truths)

    def __getitem__(self, rows: list[int] | slice) -> ExampleBatch:
        estimates, coded, truths = (
            x[rows] / 255 if x.dtype == torch.uint8 else x[rows].float()
            for x in (self.estimates, self.coded, self.truths)
        )
        weights = self.weights if self.weights.ndim == 2 else self.weights[None]
        observed = torch.einsum("on,bnchw->bochw", weights, truths)
        return ExampleBatch(estimates, coded, truths, observed, weights)

    def tensors(self) -> Sequence[Tensor]:
        return self.estimates, self.coded, self.truths, self.weights

    def part(self, rows: slice) -> Examples:
        """Some of the mixtures."""
        return Examples(self.estimates[rows], self.coded[rows], self.truths[rows], self.weights)

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """Mixtures of the same sources in one."""
        estimates, coded, truths = (
            torch.cat([one.tensors()[place] for one in parts]) for place in range(3)
        )
        return cls(estimates, coded, truths, parts[0].weights)
