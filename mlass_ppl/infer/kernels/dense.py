"""Dense contraction in linear space, as matrix products."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...tables.table import Table

_CHUNK_BYTES = 1 << 26
"""Working memory of one chunk of rows: large enough for full-speed products."""


class DenseKernel:
    """A table as one array [K_child, K_parent1, ...], contracted axis by axis.

    Exact up to rounding while products stay above the smallest float; callers look for rows that
    lost their mass and send them to the logarithmic kernel. With two parents and R rows a message
    costs R K^3 multiplications, or R K^2 once an axis is given.
    """

    def __init__(self, table: Table, dtype: torch.dtype, device: torch.device) -> None:
        self.array = table.dense(dtype).movedim(-1, 0).contiguous().to(device)
        self.shape = tuple(self.array.shape)

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        if not incoming:
            return self._gather(to, given)
        rows = len(next(iter(incoming.values())))
        if not given:
            return self._contract(self.array, list(range(self.array.ndim)), to, incoming)
        # Rows that share the given tokens share one slice of the table: one product for each.
        axes = sorted(given)
        tokens = torch.stack([given[axis] for axis in axes])
        unique, group = torch.unique(tokens, dim=1, return_inverse=True)
        order = group.argsort(stable=True)
        sizes = torch.bincount(group, minlength=unique.shape[1]).tolist()
        out = next(iter(incoming.values())).new_empty(rows, self.array.shape[to])
        left = [axis for axis in range(self.array.ndim) if axis not in given]
        for column, part in zip(unique.T.tolist(), order.split(sizes), strict=True):
            piece = self.array
            for axis, token in sorted(zip(axes, column, strict=True), reverse=True):
                piece = piece.select(axis, token)
            some = {axis: message[part] for axis, message in incoming.items()}
            out[part] = self._contract(piece, left, to, some)
        return out

    def _gather(self, to: int, given: Mapping[int, Tensor]) -> Tensor:
        others = [axis for axis in range(self.array.ndim) if axis != to]
        return self.array.movedim(to, -1)[tuple(given[axis] for axis in others)]

    def _contract(
        self, array: Tensor, axes: list[int], to: int, incoming: Mapping[int, Tensor]
    ) -> Tensor:
        """Contract `array`, whose dimensions are the table's `axes`, with all but `to`."""
        rows = len(next(iter(incoming.values())))
        first, *rest = [axis for axis in axes if axis != to]
        place = axes.index(first)
        left = axes[:place] + axes[place + 1 :]
        matrix = array.movedim(place, 0)
        shape = matrix.shape[1:]
        matrix = matrix.reshape(matrix.shape[0], -1)
        step = max(1, _CHUNK_BYTES // (matrix.shape[1] * matrix.element_size()))
        parts = []
        for begin in range(0, rows, step):
            block = incoming[first][begin : begin + step] @ matrix
            block = block.reshape(-1, *shape)
            remaining = list(left)
            for axis in rest:
                place = remaining.index(axis)
                weight = incoming[axis][begin : begin + step]
                block = _weigh(block, place + 1, weight)
                remaining.pop(place)
            parts.append(block)
        return torch.cat(parts)


def _weigh(block: Tensor, dim: int, weight: Tensor) -> Tensor:
    """Sum `block` [R, ...] over `dim` with row weights [R, K]."""
    moved = block.movedim(dim, -1)
    return (moved @ weight.reshape(len(weight), *[1] * (moved.ndim - 3), -1, 1)).squeeze(-1)
