"""Log densities of sums whose means and variances add up, one axis at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import torch
from torch import Tensor

_BLOCK = 1 << 17
"""Pairs at once: four arrays of them stay in a processor's cache."""

_LARGE_BLOCK = 1 << 26
"""Where there is no such cache, and each call costs more than its numbers."""

Sums = tuple[Tensor, Tensor]
"""Centres and variances [M or 1, D, N] of N sums along each axis, alike in all mixtures or not."""


def pairs(y: Tensor, first: Sums, second: Sums, least: Tensor, most: Tensor) -> Tensor:
    """Sum over the axes of (y - a - b)^2 / v + log(v / least), where v is the variance of the first
    sum and that of the second one, [M, A, B].

    y: features [M, D], float64. first, second: of A and of B sums, in the type of the answer. least
    and most: no smaller and no larger variance is met along an axis, float64 [D].

    Bit for bit the same for a mixture whatever is beside it: nothing is scaled by what is.
    """
    # In units of the least variance of each axis, so that products of variances stay above 1.
    unit = least.to(first[0])[:, None]
    rest = (y.to(first[0])[:, :, None] - first[0]) / unit.sqrt()
    parts = rest, second[0] / unit.sqrt(), first[1] / unit, second[1] / unit
    rest, other, spread, more = (
        part.expand(len(y), -1, -1).transpose(0, 1).contiguous() for part in parts
    )
    count, rows, columns = len(y), rest.shape[2], other.shape[2]
    out = rest.new_zeros(count, rows, columns)
    rest, spread, other, more = (
        rest[..., None],
        spread[..., None],
        other[:, :, None],
        more[:, :, None],
    )
    together = _factors(least, most, out.dtype)
    block = _BLOCK if out.device.type == "cpu" else _LARGE_BLOCK
    many, step = max(1, block // max(1, rows * columns)), max(1, block // max(1, columns))
    buffers = out.new_empty(3, min(many, count) * min(step, rows) * columns)
    for begin in range(0, count, many):
        here = slice(begin, begin + many)
        for row in range(0, rows, step):
            some = slice(row, row + step)
            part = out[here, some]
            square, variance, volume = buffers[:, : part.numel()].view(3, *part.shape)
            for axis in range(len(least)):
                torch.add(spread[axis, here, some], more[axis, here], out=variance)
                torch.sub(rest[axis, here, some], other[axis, here], out=square)
                part.addcdiv_(square.square_(), variance)
                if axis % together:
                    volume.mul_(variance)
                else:
                    volume.copy_(variance)
                if axis % together == together - 1 or axis == len(least) - 1:
                    part.add_(volume.log_())
    return out


def combined(
    y: Tensor, centres: Sequence[Tensor], spreads: Sequence[Tensor], noise: float
) -> Tensor:
    """Log densities of features y [M, D] in all configurations of some parents, nats [M, C],
    row-major. centres, spreads: of each parent's tokens along the axes, [K_i, D]."""
    rank, out = len(centres), None
    for axis in range(y.shape[1]):
        rest = y[:, axis].reshape(-1, *[1] * rank)
        variance = y.new_full((), noise)
        for place, (centre, spread) in enumerate(zip(centres, spreads, strict=True)):
            shape = [-1 if place == other else 1 for other in range(rank)]
            rest = rest - centre[:, axis].to(y).reshape(shape)
            variance = variance + spread[:, axis].to(y).reshape(shape)
        term = rest.square_() / variance + variance.log()
        out = term if out is None else out.add_(term)
    assert out is not None  # a feature has a width
    return out.add_(y.shape[1] * log(2 * pi)).mul_(-0.5).flatten(1)


def _factors(least: Tensor, most: Tensor, dtype: torch.dtype) -> int:
    """How many variances of at least 1 can be multiplied before a logarithm is due: logarithms are
    what takes longest."""
    room = 0.9 * log(torch.finfo(dtype).max)
    largest = log(float((most / least).max()))
    return max(1, min(len(least), int(room / max(largest, 1.0))))
