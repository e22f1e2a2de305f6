"""Contraction of a likelihood over parents that differs from mixture to mixture."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

from torch import Tensor

from ..algebra import Algebra, Linear

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
        flat, top = algebra.lift(log.flatten(1))
        self.array = flat.reshape(log.shape)
        self.scale = top[mixture]

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
        axes = list(range(1, self.array.ndim))
        out = self.array.new_empty(len(self.mixture), self.shape[to])
        order = self.mixture.argsort(stable=True)
        mixtures, sizes = self.mixture.unique(return_counts=True)
        for number, rows in zip(mixtures.tolist(), order.split(sizes.tolist()), strict=True):
            block = self.array[number]
            step = self._step(block)
            for part in rows.split(step):
                some = {axis: message[part] for axis, message in incoming.items()}
                out[part] = self._reduce(block[None], axes, to, some)
        return out

    def _gathered(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        """Some parents known: each row has its own slice over the others."""
        axes = [axis for axis in range(1, self.array.ndim) if axis not in given]
        front = self.array.permute(0, *sorted(given), *axes)
        index = (self.mixture, *(given[axis] for axis in sorted(given)))
        return self._reduce(front[index], axes, to, incoming)

    def _reduce(
        self, block: Tensor, axes: list[int], to: int, incoming: Mapping[int, Tensor]
    ) -> Tensor:
        """Reduce [1 or R, K_axes...] over all axes but `to`."""
        left = list(axes)
        for axis in axes:
            if axis == to:
                continue
            dim = left.index(axis) + 1
            moved = block.movedim(dim, -1)
            if isinstance(self.algebra, Linear) and len(moved) == 1 and moved.ndim == 3:
                block = incoming[axis] @ moved[0].T
            else:
                weight = incoming[axis].reshape(-1, *[1] * (moved.ndim - 2), moved.shape[-1])
                block = self.algebra.reduce(self.algebra.times([moved, weight]))
            left.remove(axis)
        return block

    def _step(self, block: Tensor) -> int:
        """Rows at once: products of two axes need no memory beyond the answer in linear space."""
        if isinstance(self.algebra, Linear) and block.ndim == 2:
            return len(self.mixture)
        return max(1, _CHUNK_BYTES // (block.numel() * block.element_size()))
