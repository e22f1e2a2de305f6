"""Means and deviations from moments, pulled towards what the single parents say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TableError
from .moments import UNIT, Moments
from .smoothing import Shrink


@dataclass(frozen=True)
class _Spread:
    """Samples [C, 1] of C groups, their mean and mean squared deviation from it, float64 [C, D];
    both are zero in empty groups."""

    number: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, moments: Moments) -> _Spread:
        """Without cancellation: sums of squares are moved to the nearest whole mean first, exactly,
        so that only its distance to the true mean, half a unit at most, is subtracted in floats."""
        number = moments.number[:, None]
        whole = (moments.total.double() / number).round().to(torch.int64)
        rest = moments.total - number * whole
        square = moments.square - whole * moments.total - whole * rest
        offset = rest.double() / number
        variance = (square.double() / number - offset * offset).clamp_min(0)
        return cls(number.double(), (whole.double() + offset) * UNIT, variance * UNIT**2)

    def pooled(self, place: Tensor, groups: int) -> _Spread:
        """Groups [C] put together into fewer: variance within and between them."""
        number = torch.zeros(groups, 1, dtype=torch.float64).index_add_(0, place, self.number)
        divisor = number.clamp_min(1)

        def average(values: Tensor) -> Tensor:
            out = torch.zeros(groups, values.shape[1], dtype=torch.float64)
            return out.index_add_(0, place, self.number * values) / divisor

        mean = average(self.mean)
        return _Spread(number, mean, average(self.variance + (self.mean - mean[place]).square()))

    def pulled(self, mean: Tensor, variance: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """Mean and variance after `strength` pseudo-samples of the given mean and variance."""
        total = self.number + strength
        share = strength / total
        moved = self.mean + share * (mean - self.mean)
        between = self.number * share / total * (self.mean - mean).square()
        return moved, self.variance + share * (variance - self.variance) + between


def shrunk(moments: Moments, shrink: Shrink) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every configuration, float64 [K_parent1, ..., D].

    Raises TableError when nothing was counted.
    """
    if not len(moments.keys):
        raise TableError("no feature was counted, so there are no moments. Count some mixtures.")
    seen = _Spread.of(moments)
    every = seen.pooled(torch.zeros_like(moments.keys), 1)
    columns = torch.unravel_index(moments.keys, moments.shape)
    single = [
        seen.pooled(column, size).pulled(every.mean, every.variance, shrink.strength)
        for column, size in zip(columns, moments.shape, strict=True)
    ]
    mean, variance = single[0]
    if len(single) > 1:
        mean = _added((part for part, _ in single), every.mean, moments.shape)
        variance = _added((part for _, part in single), every.variance, moments.shape)
        variance = variance.clamp_min_(shrink.min_std**2)
        mean[moments.keys], variance[moments.keys] = seen.pulled(
            mean[moments.keys], variance[moments.keys], shrink.strength
        )
    std = variance.clamp_min(shrink.min_std**2).sqrt()
    return mean.reshape(*moments.shape, -1), std.reshape(*moments.shape, -1)


def _added(parts: Iterable[Tensor], overall: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Each parent's [K_i, D] less the overall [1, D], added up over all configurations [C, D]."""
    out = overall.expand(*shape, -1).clone()
    for axis, part in enumerate(parts):
        place = [1] * len(shape)
        place[axis] = shape[axis]
        out += (part - overall).reshape(*place, -1)
    return out.reshape(-1, out.shape[-1])
