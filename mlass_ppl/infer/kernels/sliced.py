"""Linear contraction of a table too large for one array: its slices at given children."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from ...tables.table import Table
from .cells import SeenCells

_SLICES_BYTES = 1 << 27
"""Working memory of the slices of some rows."""


class SlicedKernel:
    """A table with exact support whose child has a large alphabet, as that of an observed mixture.

    The slice p(child = token | .) of a given token is dense and small; it is filled from the cells
    that were seen. Messages without a given child run over all seen cells. As exact as
    `DenseKernel`, and of memory for the seen cells alone.
    """

    def __init__(self, table: Table, dtype: torch.dtype, device: torch.device) -> None:
        alphabet = table.alphabet
        child = table.keys % alphabet
        order = child.argsort(stable=True)
        self.shape = (alphabet, *table.shape[:-1])
        self._place = (table.keys // alphabet)[order].to(device)
        self._value = table.probability[order].to(device, dtype)
        self._end = torch.bincount(child, minlength=alphabet).cumsum(0).tolist()
        self._cells = SeenCells(table, dtype, device)

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        if 0 not in given:
            known = {axis: self._one_hot(axis, tokens) for axis, tokens in given.items()}
            return self._cells.message(to, {**incoming, **known})
        tokens = given[0]
        out = self._value.new_empty(len(tokens), self.shape[to])
        unique, group = torch.unique(tokens, return_inverse=True)
        size = prod(self.shape[1:]) * self._value.element_size()
        step = max(1, int(_SLICES_BYTES // size))
        for begin in range(0, len(unique), step):
            slices = self._slices(unique[begin : begin + step].tolist())
            rows = ((group >= begin) & (group < begin + step)).nonzero()[:, 0]
            out[rows] = self._reduced(
                to,
                slices,
                group[rows] - begin,
                {axis: message[rows] for axis, message in incoming.items()},
                {axis: other[rows] for axis, other in given.items() if axis},
            )
        return out

    def _slices(self, tokens: list[int]) -> Tensor:
        """Dense slices [U, K_parent1, ...] of child tokens."""
        out = self._value.new_zeros(len(tokens), prod(self.shape[1:]))
        for row, token in enumerate(tokens):
            cells = slice(self._end[token - 1] if token else 0, self._end[token])
            out[row, self._place[cells]] = self._value[cells]
        return out.reshape(-1, *self.shape[1:])

    def _reduced(
        self,
        to: int,
        slices: Tensor,
        group: Tensor,
        incoming: Mapping[int, Tensor],
        given: Mapping[int, Tensor],
    ) -> Tensor:
        """Messages [R, K_to] of rows that each have the slice group[r]."""
        axes = [axis for axis in range(1, len(self.shape)) if axis not in given]
        if given:
            front = slices.permute(0, *sorted(given), *axes)
            return _summed(
                front[(group, *(given[axis] for axis in sorted(given)))], axes, to, incoming
            )
        out = slices.new_empty(len(group), self.shape[to])
        order, sizes = group.argsort(stable=True), torch.bincount(group, minlength=len(slices))
        for number, rows in enumerate(order.split(sizes.tolist())):
            some = {axis: message[rows] for axis, message in incoming.items()}
            out[rows] = _summed(slices[number][None], axes, to, some)
        return out

    def _one_hot(self, axis: int, tokens: Tensor) -> Tensor:
        out = self._value.new_zeros(len(tokens), self.shape[axis])
        return out.scatter_(1, tokens[:, None], 1.0)


def _summed(block: Tensor, axes: list[int], to: int, incoming: Mapping[int, Tensor]) -> Tensor:
    """Sum [1 or R, K_axes...] over all axes but `to`, each with its message [R, K]."""
    left = list(axes)
    for axis in axes:
        if axis == to:
            continue
        moved = block.movedim(left.index(axis) + 1, -1)
        if len(moved) == 1 and moved.ndim == 3:  # one product serves all rows
            block = incoming[axis] @ moved[0].T
        else:
            weight = incoming[axis].reshape(-1, *[1] * (moved.ndim - 3), moved.shape[-1], 1)
            block = (moved @ weight).squeeze(-1)
        left.remove(axis)
    return block
