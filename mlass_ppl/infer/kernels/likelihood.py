"""Contraction of a likelihood over parents that differs from mixture to mixture."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import torch
from torch import Tensor

from ..algebra import Algebra, Linear
from ..exponential import exponential

_CHUNK_BYTES = 1 << 27


class LikelihoodKernel:
    """p(feature | parents) of M mixtures, for the rows of each.

    log: nats [M, K_parent1, ...]. mixture: the mixture of each row, int64 [R]. Axes are those of
    the factor's scope: 1..r the parents; the child has no token and no axis. In linear space each
    mixture's likelihoods are divided by the largest; `scale` [R] is the logarithm of that.
    """

    def __init__(self, log: Tensor, mixture: Tensor, algebra: Algebra) -> None:
        self.shape = (0, *log.shape[1:])
        self.algebra, self.mixture = algebra, mixture
        top = log.new_zeros(len(log))
        if isinstance(algebra, Linear):
            top = log.flatten(1).amax(1).clamp_min(torch.finfo(log.dtype).min)
            log = exponential(log - top.reshape(-1, *[1] * (log.ndim - 1)))
        self.array, self.scale = log, top[mixture]

    def rows(self, index: Tensor) -> LikelihoodKernel:
        """The kernel of some rows."""
        out = copy(self)
        out.mixture, out.scale = self.mixture[index], self.scale[index]
        return out

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        if given:
            return self._gathered(to, incoming, given)
        if not incoming:
            return self.array[self.mixture]
        if not len(self.mixture):
            return self.array.new_empty(0, self.shape[to])
        if isinstance(self.algebra, Linear) and self._regular():
            return self._product(to, incoming)
        size = self.array[:1].numel() * self.array.element_size()
        every = torch.arange(len(self.mixture), device=self.mixture.device)
        parts = [
            self.rows(rows)._gathered(to, {axis: part[rows] for axis, part in incoming.items()}, {})
            for rows in every.split(max(1, _CHUNK_BYTES // size))
        ]
        return torch.cat(parts)

    def _regular(self) -> bool:
        """Whether all mixtures have the same number of rows, one after another."""
        count, left = divmod(len(self.mixture), len(self.array))
        every = torch.arange(len(self.array), device=self.mixture.device)
        return not left and torch.equal(self.mixture, every.repeat_interleave(count))

    def _product(self, to: int, incoming: Mapping[int, Tensor]) -> Tensor:
        """Rows of a mixture share its likelihoods: one matrix product for each sums out an axis, in
        one call."""
        axes, count = list(range(1, self.array.ndim)), len(self.array)
        # The last or the first axis, beside which the others lie in order.
        axis = axes[0] if to == axes[-1] else axes[-1]
        matrix = self.array.flatten(2) if axis == 1 else self.array.flatten(1, -2).mT
        shape = [size for place, size in enumerate(self.array.shape) if place not in (0, axis)]
        axes.remove(axis)
        messages = {axis: part.unflatten(0, (count, -1)) for axis, part in incoming.items()}
        size = len(self.mixture) // count * matrix.shape[2] * matrix.element_size()
        parts = []
        step = max(1, _CHUNK_BYTES // size)
        for begin in range(0, count, step):
            here = slice(begin, begin + step)
            block = messages[axis][here] @ matrix[here]
            rest = {axis: part[here].flatten(0, 1) for axis, part in messages.items()}
            parts.append(self._reduce(block.reshape(-1, *shape), axes, to, rest))
        return torch.cat(parts)

    def _gathered(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        """Each row has its own slice, over the parents that are not known."""
        axes = [axis for axis in range(1, self.array.ndim) if axis not in given]
        front = self.array.permute(0, *sorted(given), *axes)
        index = (self.mixture, *(given[axis] for axis in sorted(given)))
        return self._reduce(front[index], axes, to, incoming)

    def _reduce(
        self, block: Tensor, axes: list[int], to: int, incoming: Mapping[int, Tensor]
    ) -> Tensor:
        """Reduce [R, K_axes...] over all axes but `to`."""
        left = list(axes)
        for axis in axes:
            if axis == to:
                continue
            moved = block.movedim(left.index(axis) + 1, -1)
            weight = incoming[axis].reshape(-1, *[1] * (moved.ndim - 2), moved.shape[-1])
            block = self.algebra.reduce(self.algebra.times([moved, weight]))
            left.remove(axis)
        return block
