"""The seen cells of a table in one order of its axes, cut into bags."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_MOST = 1 << 26
"""Bags at most for empty ones to be among them."""

_PART = 1 << 21
"""Cells that are sorted at once."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Cells sorted by their tokens on the axes `order`; a bag are those that agree in all but the
    last one.

    shape: alphabet of each axis, in that order. place: of each cell, its token on the last axis,
    [E]. value: [E]. ends: where each bag begins, and where the last one ends, [B + 1], of the type
    of `place`. keys: flat index of each bag over all axes but the last, int64 [B], ascending; None
    where there is a bag, maybe an empty one, for every index.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    place: Tensor
    value: Tensor
    ends: Tensor
    keys: Tensor | None

    @classmethod
    def of(
        cls, cells: Tensor, value: Tensor, shape: Sequence[int], order: Sequence[int],
        dtype: torch.dtype,
    ) -> Layout:  # fmt: skip
        """cells: flat indices over (parents..., child), int64 [E], ascending. value: [E]. shape:
        alphabet by axis, 0 the child's and then the parents'. Sorted in parts, so that little more
        memory is taken than the layout has."""
        sizes = tuple(shape[axis] for axis in order)
        every = prod(sizes[:-1])
        parts = 1 + len(cells) // _PART if every <= _MOST else 1
        small = torch.int32 if len(cells) < 1 << 31 else torch.int64
        place = torch.empty(len(cells), dtype=small, device=cells.device)
        sorted_value = torch.empty_like(value, dtype=dtype)
        counts = torch.zeros(every if every <= _MOST else 0, dtype=torch.int64, device=cells.device)
        keys, filled = None, 0
        for flat, own in _sorted(cells, value, shape, order, parts):
            end = filled + len(flat)
            place[filled:end], sorted_value[filled:end] = flat % sizes[-1], own
            bag, filled = flat // sizes[-1], end
            if every <= _MOST:
                counts += torch.bincount(bag, minlength=every)
            else:
                keys, counts = torch.unique_consecutive(bag, return_counts=True)
        if keys is None and every > 2 * int(counts.count_nonzero()):
            keys = counts.nonzero()[:, 0]
            counts = counts[keys]
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(small)
        return cls(tuple(order), sizes, place, sorted_value, ends, keys)

    def bags(self, begin: Tensor) -> Tensor:
        """The first bag whose flat index is at least `begin`, int64 like it."""
        return begin if self.keys is None else torch.searchsorted(self.keys, begin)

    def tokens(self, bags: slice | Tensor, axis: int) -> Tensor:
        """Token of some bags on one axis of the table."""
        if self.keys is not None:
            keys = self.keys[bags]
        elif isinstance(bags, Tensor):
            keys = bags
        else:
            keys = torch.arange(bags.start, bags.stop, device=self.place.device)
        place = self.order.index(axis)
        return keys // prod(self.shape[place + 1 : -1]) % self.shape[place]

    @cached_property
    def bounds(self) -> list[int]:
        """Where the bags of each token on the first axis begin, and where the last ones end."""
        step = prod(self.shape[1:-1])
        begin = torch.arange(self.shape[0] + 1, device=self.place.device) * step
        found: list[int] = self.bags(begin).tolist()
        return found

    @cached_property
    def reach(self) -> list[int]:
        """As `bounds`, of the cells."""
        found: list[int] = self.ends[self.bounds].tolist()
        return found

    def sums(self, bags: slice, cells: slice, weights: Tensor) -> Tensor:
        """Of some bags, whose cells are `cells`, the sum over these of value * weights[token on the
        last axis]: weights [K_last, N] -> [bags, N]."""
        ends = self.ends[bags.start : bags.stop + 1] - cells.start
        return weighted(self.place[cells], self.value[cells], ends, weights)


def _sorted(
    cells: Tensor, value: Tensor, shape: Sequence[int], order: Sequence[int], parts: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat indices over the axes `order`, ascending, with their values, in some parts."""
    natural = (*range(1, len(shape)), 0)
    if tuple(order) == natural:
        yield from zip(cells.tensor_split(parts), value.tensor_split(parts), strict=True)
        return
    stride = {axis: prod(shape[other] for other in natural[place + 1 :])
              for place, axis in enumerate(natural)}  # fmt: skip
    for tokens in torch.arange(shape[order[0]]).tensor_split(parts):
        some, own = cells, value
        if parts > 1:
            first = (cells // stride[order[0]]).remainder_(shape[order[0]])
            inside = (first >= tokens[0]) & (first <= tokens[-1]) if len(tokens) else first < 0
            del first
            some, own = cells[inside], value[inside]
        flat = torch.zeros_like(some)
        for axis in order:
            flat = flat * shape[axis] + some // stride[axis] % shape[axis]
        flat, moved = flat.sort()
        yield flat, own[moved]


def weighted(place: Tensor, value: Tensor | None, ends: Tensor, weights: Tensor) -> Tensor:
    """Row b: the sum over i from ends[b] to ends[b + 1] of value[i] * weights[place[i]], [B, N]; of
    the weights alone where there is no value.

    An embedding bag, whose kernel for 32 bits runs at the speed of a matrix product; on a CPU the
    one for 64 bits is slower than a sparse matrix. Neither lets a column tell how many others there
    are, which sums over an axis of a tensor do.
    """
    if value is None:  # a bag without values is of another kernel, in which columns differ
        value = torch.ones_like(weights[:, 0])
    if weights.dtype == torch.float32 or weights.is_cuda:
        return embedding_bag(place, weights, ends[:-1], mode="sum", per_sample_weights=value)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        shape = (len(ends) - 1, len(weights))
        matrix = torch.sparse_csr_tensor(ends, place, value, shape, check_invariants=False)
        return matrix @ weights
