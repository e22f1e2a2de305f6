"""Linear contraction of a sparse table: sums over its seen cells alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from ...tables.table import Table
from .layout import Layout, weighted

_BLOCK_BYTES = 1 << 22
"""What is worked on at once stays in a processor's cache (measured: 2 to 8 MB are best)."""

_ROWS = 256
"""Rows at once: their messages stay in the cache while the cells stream by."""

_FEW = 16
"""Fewer rows at once than these take as long."""

_MANY = 1 << 12
"""Values of the given tokens above which hardly two rows agree in them, so that each goes alone."""

_DENSE = 0.4
"""Share of the cells above which the dense product may be faster, by `benchmarks.crossover`: from
0.5 for 128 tokens on and from 0.6 for 256, where nothing is given."""


def pays(table: Table) -> bool:
    """Whether few enough cells are filled for `SeenCells` to beat the dense product (measured)."""
    return table.background is None and table.size > 1 << 12 and table.density < _DENSE


class SeenCells:
    """A table with exact support as a list of its positive cells, contracted in linear space.

    Costs R E multiplications for E cells, whatever the number of axes, and no memory but for the
    cells: on tables of real codecs, of which one to three cells in a hundred are filled, it beats
    the dense product by far. As a `Kernel`, exact up to rounding while products stay above the
    smallest float.
    """

    def __init__(self, table: Table, dtype: torch.dtype, device: torch.device) -> None:
        self._set(table.keys, table.probability, table.shape, dtype, device)

    @classmethod
    def of(
        cls, keys: Tensor, values: Tensor, shape: tuple[int, ...], dtype: torch.dtype
    ) -> SeenCells:
        """Any factor. keys: flat indices over `shape`, (K_parent1, ..., K_child), int64 [E],
        ascending; values [E]."""
        kernel = cls.__new__(cls)
        kernel._set(keys, values, shape, dtype, keys.device)
        return kernel

    def _set(
        self, keys: Tensor, values: Tensor, shape: tuple[int, ...], dtype: torch.dtype,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.shape = (shape[-1], *shape[:-1])
        # As they are held already, on a CPU; the layouts are of the type asked for.
        self._keys, self._values, self._dtype = keys.to(device), values.to(device), dtype
        self._layouts: list[Layout] = []

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        layout = self._layout(to, incoming, given)
        if not given:
            return self._all(layout, incoming)
        prefix = torch.zeros_like(next(iter(given.values())))
        for axis, size in zip(layout.order[: len(given)], layout.shape, strict=False):
            prefix = prefix * size + given[axis]
        span = prod(layout.shape[len(given) : -1])
        # A choice by the table alone: one by the rows would let them know of each other.
        if not incoming or prod(layout.shape[: len(given)]) > _MANY:
            return self._rows(layout, prefix * span, span, incoming)
        unique, group, sizes = prefix.unique(return_inverse=True, return_counts=True)
        return self._groups(layout, unique * span, span, group, sizes, incoming)

    def _layout(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Layout:
        """Cells with the given axes first, then `to`, then all others."""
        count = len(given)
        for layout in self._layouts:
            if layout.order[count] == to and set(layout.order[:count]) == set(given):
                return layout
        order = (*given, to, *incoming)
        layout = Layout.of(self._keys, self._values, self.shape, order, self._dtype)
        self._layouts.append(layout)
        return layout

    def _all(self, layout: Layout, incoming: Mapping[int, Tensor]) -> Tensor:
        """Nothing is given: all cells, for some rows at a time."""
        rows, item = len(incoming[layout.order[-1]]), self._dtype.itemsize
        bounds = layout.bounds
        widest = max(1, *(end - begin for begin, end in pairwise(bounds)))
        wide = min(max(_FEW, _BLOCK_BYTES // (widest * item)), _ROWS, rows)
        room = max(widest, _BLOCK_BYTES // (wide * item))  # bags at once
        out = incoming[layout.order[-1]].new_empty(rows, layout.shape[0])
        for begin in range(0, rows, wide):
            part = slice(begin, begin + wide)
            columns = {axis: _columns(incoming[axis][part]) for axis in layout.order[1:]}
            low = 0
            while low < layout.shape[0]:
                high = low + 1
                while high < layout.shape[0] and bounds[high + 1] - bounds[low] <= room:
                    high += 1
                out[part, low:high] = self._slab(layout, low, high, columns).T
                low = high
        return out

    def _slab(self, layout: Layout, low: int, high: int, columns: Mapping[int, Tensor]) -> Tensor:
        """Messages [high - low, N] to some tokens of the first axis."""
        bags = slice(layout.bounds[low], layout.bounds[high])
        cells = slice(layout.reach[low], layout.reach[high])
        sums = layout.sums(bags, cells, columns[layout.order[-1]])
        rest = layout.order[1:-1]
        if not rest and layout.keys is None:
            return sums
        edges = torch.tensor(layout.bounds[low : high + 1], device=sums.device) - bags.start
        return self._summed(layout, bags, sums, edges, columns, rest)

    def _summed(
        self, layout: Layout, bags: slice, sums: Tensor, edges: Tensor,
        columns: Mapping[int, Tensor], rest: tuple[int, ...],
    ) -> Tensor:  # fmt: skip
        """Sums of bags [B, N], weighted on the axes `rest`, over edges[i] to edges[i + 1]."""
        for axis in rest:
            if layout.keys is None:  # a grid over the axes of `rest`
                place = layout.order.index(axis)
                inner = prod(layout.shape[place + 1 : -1])
                grid = sums.view(-1, layout.shape[place], inner, sums.shape[1])
                grid.mul_(columns[axis][:, None])
            else:
                sums.mul_(columns[axis][layout.tokens(bags, axis)])
        every = torch.arange(len(sums), device=sums.device)
        return weighted(every, None, edges, sums)

    def _groups(
        self, layout: Layout, begin: Tensor, span: int, group: Tensor, sizes: Tensor,
        incoming: Mapping[int, Tensor],
    ) -> Tensor:  # fmt: skip
        """Rows that share their given tokens together."""
        known = len(layout.order) - len(incoming) - 1
        to, rest, size = layout.order[known], layout.order[known + 1 : -1], layout.shape[known]
        step = torch.arange(size + 1, device=begin.device) * (span // size)
        edges = layout.bags(begin[:, None] + step)
        outer = edges[:, [0, -1]]
        ranges = torch.cat([outer, layout.ends[outer].long()], 1).tolist()
        order = group.argsort(stable=True)
        sorted_ = {axis: message[order] for axis, message in incoming.items()}
        out = layout.value.new_zeros(len(group), size)
        end = 0
        for number, count in enumerate(sizes.tolist()):
            low, high, first, last = ranges[number]
            rows = slice(end, end + count)
            end += count
            if low == high:
                continue
            columns = {axis: _columns(message[rows]) for axis, message in sorted_.items()}
            bags = slice(low, high)
            sums = layout.sums(bags, slice(first, last), columns[layout.order[-1]])
            if rest:
                out[rows] = self._summed(layout, bags, sums, edges[number] - low, columns, rest).T
            elif layout.keys is None:
                out[rows] = sums.T
            else:
                out[rows, layout.tokens(bags, to)] = sums.T
        return torch.empty_like(out).index_copy_(0, order, out)

    def _rows(
        self, layout: Layout, begin: Tensor, span: int, incoming: Mapping[int, Tensor]
    ) -> Tensor:
        """Every row by itself: its cells are listed."""
        known = len(layout.order) - len(incoming) - 1
        size = layout.shape[known]
        row, bag = _ranges(layout.bags(begin), layout.bags(begin + span))
        first, last = layout.ends[bag].long(), layout.ends[bag + 1].long()
        bag_of, cell = _ranges(first, last)
        value, place = layout.value[cell], layout.place[cell].long()
        out = value.new_zeros(len(begin), size)
        if known + 1 == len(layout.order):  # the last axis is asked for
            out[row[bag_of], place] = value
            return out
        value = value * incoming[layout.order[-1]][row[bag_of], place]
        sums = torch.segment_reduce(value, "sum", lengths=last - first, unsafe=True)
        for axis in layout.order[known + 1 : -1]:
            sums = sums * incoming[axis][row, layout.tokens(bag, axis)]
        target = row * size + layout.tokens(bag, layout.order[known])
        if known + 2 == len(layout.order):
            out.view(-1)[target] = sums
            return out
        counts = torch.bincount(target, minlength=out.numel())
        return torch.segment_reduce(sums, "sum", lengths=counts, unsafe=True).view_as(out)


def _columns(rows: Tensor) -> Tensor:
    """[R, K] as [K, R], with strides that say so even of one row: others take a slow path."""
    return rows.T.contiguous().flatten().view(rows.shape[1], -1)


def _ranges(begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """All whole numbers from begin[i] to before end[i], one range after another: which i each one
    is of, and the numbers, int64."""
    counts = end - begin
    which = torch.repeat_interleave(torch.arange(len(counts), device=begin.device), counts)
    offset = begin - (counts.cumsum(0) - counts)
    return which, torch.arange(len(which), device=begin.device) + offset[which]
