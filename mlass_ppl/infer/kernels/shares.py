"""Linear contraction of what share of each row a table's background has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from ...tables.background import Background
from ...tables.table import Table
from ..algebra import log_sum
from .cells import SeenCells
from .dense import DenseKernel

_DENSE_ROWS = 1 << 24
"""Held dense up to here (134 MB); above, only rows that were seen, as what they lack to 1."""


class Shares:
    """share(row) of every configuration of parents, to be contracted with messages in logarithms.

    Scaled by its largest entry, no message can lose the answer: every share is positive, so that
    each sum is at least the smallest share. Sums run in float64, in which a share of 1e-8 beside
    ones keeps eight digits. Axes are those of the factor's scope: 1..r are the parents.
    """

    def __init__(
        self, background: Background, parents: Sequence[int], device: torch.device
    ) -> None:
        self.parents = tuple(parents)
        rows, share = background.rows, background.share
        self._rows, self._log = rows.to(device), share.log().to(device)
        self._dense: DenseKernel | None = None
        self._lacking: SeenCells | None = None
        self._vector: Tensor | None = None
        # An array over the parents is contracted as a table is, with the last parent as its child.
        if len(parents) == 1:
            self._vector = background.shares(parents[0]).log().to(device)
        elif prod(parents) <= _DENSE_ROWS:
            shares = background.shares(prod(parents))
            table = Table(self.parents, torch.arange(len(shares)), shares)
            self._dense = DenseKernel(table, torch.float64, device)
        else:
            table = Table(self.parents, rows, 1 - share)
            self._lacking = SeenCells(table, torch.float64, device)

    def log_at(self, tokens: Sequence[Tensor]) -> Tensor:
        """log share float64 [N] where every parent has a token, int64 [N] each."""
        key = torch.zeros_like(tokens[0])
        for token, size in zip(tokens, self.parents, strict=True):
            key = key * size + token
        if not len(self._rows):
            return torch.zeros(key.shape, dtype=torch.float64, device=key.device)
        place = torch.searchsorted(self._rows, key).clamp_max(len(self._rows) - 1)
        return torch.where(self._rows[place] == key, self._log[place], 0.0)

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        """As `Kernel.message`, over the parents' axes alone and in logarithms: [R, K_to]."""
        if self._vector is not None:
            return self._vector[None]
        if not incoming and self._dense is None:
            every = torch.arange(self.parents[to - 1], device=self._log.device)
            tokens = [
                every if axis == to else given[axis][:, None]
                for axis in range(1, len(self.parents) + 1)
            ]
            return self.log_at(list(torch.broadcast_tensors(*tokens)))
        scale: Tensor | float = 0.0
        weights = {}
        for axis, log in incoming.items():
            top = log.amax(-1, keepdim=True).double()
            top = top.masked_fill(top == float("-inf"), 0.0)
            weights[axis] = (log.double() - top).exp()
            scale = scale + top
        return self._contract(to, weights, given).log() + scale

    def total(self, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]) -> Tensor:
        """Over all parents at once: [R]."""
        if not incoming:
            return self.log_at([given[axis] for axis in range(1, len(self.parents) + 1)])
        axis, log = next(iter(incoming.items()))
        others = {other: message for other, message in incoming.items() if other != axis}
        return log_sum(self.message(axis, others, given) + log)

    def _contract(self, to: int, weights: dict[int, Tensor], given: Mapping[int, Tensor]) -> Tensor:
        arity = len(self.parents)
        linear = {axis % arity: weight for axis, weight in weights.items()}
        known = {axis % arity: tokens for axis, tokens in given.items()}
        if self._dense is not None:
            return self._dense.message(to % arity, linear, known)
        assert self._lacking is not None
        everywhere = torch.stack([weight.sum(1) for weight in weights.values()]).prod(0)
        # Rounding could take it below zero only where the smallest share is below 1e-15.
        return (everywhere[:, None] - self._lacking.message(to % arity, linear, known)).clamp_min(0)
