"""Keys and values of many pasts at once, each past held once however many rows share it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

LEAST = 8
"""Fewest slots that are computed at once: matrix products of a few rows run in kernels of their own
that round differently, and no row may tell how many others there are."""

_CHUNK = 2048
"""Slots for each thread and forward pass on a CPU. It bounds the memory of activations; fewer are
slower, as every pass costs some milliseconds of its own."""

_FIRST = 64
"""Positions that are allocated at first; then twice as many each time."""

_BLOCK = 256
"""Pasts that are copied at once, which bounds the memory of a copy."""


class Pasts(Protocol):
    """A past, of keys and values at `length` positions, in each of a number of slots."""

    @property
    def length(self) -> int: ...

    def arrange(self, source: Tensor, rows: int) -> Tensor:
        """Make room for one more token in each of U pasts, which continue the slots `source`, int64
        [U], ascending (at length 0 it says nothing). Returns the slots 0 .. U - 1 that they have
        now, int64 [U], each once. rows: the most pasts to expect; memory is asked for as many.
        """
        ...

    def parts(self, slots: int) -> Iterator[tuple[slice, Any]]:
        """Slots 0 .. `slots` - 1 in parts, each with the `transformers.Cache` to run it with. When
        all parts have been run, the pasts are one token longer."""
        ...


def make_pasts(config: Any, limit: int | None, device: torch.device) -> Pasts:
    """Pasts of no position yet, for a model of this `transformers` configuration on `device`.
    limit: the most positions that the model knows, None where there is no limit."""
    cache = DynamicCache(config=config)
    if cache.layers and all(type(layer) is DynamicLayer for layer in cache.layers):
        return _Slots(len(cache.layers), limit, device)
    return _Whole(cache)


class _Slots:
    """Pasts of plain attention, written and copied in place.

    A past that goes on in one way stays where it is; where it branches, its other children are
    copied into slots that nothing goes on from.
    """

    def __init__(self, layers: int, limit: int | None, device: torch.device) -> None:
        self._held = [(_Buffer(limit), _Buffer(limit)) for _ in range(layers)]
        self._chunk = _CHUNK * torch.get_num_threads() if device.type == "cpu" else None
        self.length = 0

    def arrange(self, source: Tensor, rows: int) -> Tensor:
        buffers = [buffer for pair in self._held for buffer in pair]
        for buffer in buffers:
            buffer.rows = max(buffer.rows, rows, len(source))
        if not self.length:
            return torch.arange(len(source), device=source.device)
        first = torch.ones_like(source, dtype=torch.bool)
        first[1:] = source[1:] != source[:-1]
        stays = first & (source < len(source))
        free = torch.ones_like(stays)
        free[source[stays]] = False
        place = source.clone()
        # What is copied is never written to: of a slot below U the first child stays, and those
        # from U on are nobody's place.
        place[~stays] = free.nonzero()[:, 0]
        for buffer in buffers:
            buffer.copy(source[~stays], place[~stays], self.length)
        return place

    def parts(self, slots: int) -> Iterator[tuple[slice, Any]]:
        number = -(-slots // self._chunk) if self._chunk else 1
        edges = [slots * part // number for part in range(number + 1)]
        for lo, hi in pairwise(edges):
            layers = [_Layer(*pair, slice(lo, hi), self.length) for pair in self._held]
            yield slice(lo, hi), Cache(layers=layers)
        self.length += 1


class _Buffer:
    """One layer's keys, or its values, [rows, positions, heads, dim]: a step writes a past, and a
    branch copies it, in one piece. rows: how many it should have at the next write or copy."""

    def __init__(self, limit: int | None) -> None:
        self.rows = 0
        self._limit = limit
        self._held: Tensor | None = None

    def write(self, new: Tensor, rows: slice, place: int) -> Tensor:
        """Append `new` [n, heads, m, dim] to the `place` positions of the pasts in `rows`; returns
        a view of all of them, [n, heads, place + m, dim]."""
        end = place + new.shape[2]
        held = self._room(new, place, end)
        held[rows, place:end] = new.transpose(1, 2)
        return held[rows, :end].transpose(1, 2)

    def copy(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first `length` positions of slots `source` to slots `target`, other ones."""
        assert self._held is not None
        held = self._room(self._held.transpose(1, 2), length, length)[:, :length]
        for old, new in zip(source.split(_BLOCK), target.split(_BLOCK), strict=True):
            held[new] = held[old]

    def _room(self, like: Tensor, filled: int, end: int) -> Tensor:
        """The buffer, made larger where it lacks rows, or positions up to `end`. like: a tensor
        [_, heads, _, dim] of the kind that it holds."""
        old = self._held
        if old is not None and old.shape[0] >= self.rows and old.shape[1] >= end:
            return old
        length = _FIRST if old is None else old.shape[1] * (1 + (old.shape[1] < end))
        length = max(end, length if self._limit is None else min(length, self._limit))
        # On a CPU, memory that was never written is none: neither rows nor positions cost any yet.
        self._held = like.new_empty(self.rows, length, like.shape[1], like.shape[3])
        if old is not None:
            self._held[: len(old), :filled] = old[:, :filled]
        return self._held


class _Layer(DynamicLayer):
    """One layer of some slots, as the model sees it."""

    def __init__(self, keys: _Buffer, values: _Buffer, rows: slice, length: int) -> None:
        super().__init__()
        self._buffers, self._rows, self._length = (keys, values), rows, length

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._buffers
        out = (
            keys.write(key_states, self._rows, self._length),
            values.write(value_states, self._rows, self._length),
        )
        self._length += key_states.shape[2]
        return out

    def get_seq_length(self) -> int:
        return self._length


class _Whole:
    """Pasts of any other kind (sliding windows, recurrent states) in the model's own cache."""

    def __init__(self, cache: Any) -> None:
        self._cache, self._slots = cache, 0
        self.length = 0

    def arrange(self, source: Tensor, rows: int) -> Tensor:
        place = torch.arange(len(source), device=source.device)
        if self.length and (len(source) != self._slots or not torch.equal(source, place)):
            self._cache.reorder_cache(source)
        self._slots = len(source)
        return place

    def parts(self, slots: int) -> Iterator[tuple[slice, Any]]:
        yield slice(0, slots), self._cache
        self.length += 1
