"""Contraction over a table's positive cells, in logarithms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...tables.table import Table

_CHUNK_BYTES = 1 << 27
NEVER = float("-inf")


class SparseKernel:
    """A table as a list of positive cells, reduced by logsumexp or (`largest`) by maximum.

    Costs R E operations for E cells whatever the number of axes, and never underflows. It serves
    tables too large to be dense, rows that the dense kernel lost, and modes.
    """

    def __init__(
        self,
        table: Table,
        dtype: torch.dtype,
        device: torch.device,
        largest: bool = False,
    ) -> None:
        index, probability = table.entries()
        # child first, sorted by child, so that a given child is one contiguous range
        index = torch.cat([index[-1:], index[:-1]])
        order = index[0].argsort(stable=True)
        self.index = index[:, order].to(device)
        self.log = probability[order].log().to(device, dtype)
        self.shape = (table.shape[-1], *table.shape[:-1])
        self.largest = largest
        self._ends = torch.bincount(index[0], minlength=self.shape[0]).cumsum(0).tolist()

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        rows = len(next(iter((incoming or given).values())))
        out = self.log.new_full((rows, self.shape[to]), NEVER)
        if not given:
            self._reduce(out, torch.arange(rows, device=out.device), slice(None), to, incoming)
            return out
        axes = sorted(given)
        tokens = torch.stack([given[axis] for axis in axes])
        unique, group = torch.unique(tokens, dim=1, return_inverse=True)
        for number, column in enumerate(unique.T.tolist()):
            cells = self._cells(dict(zip(axes, column, strict=True)))
            self._reduce(out, (group == number).nonzero()[:, 0], cells, to, incoming)
        return out

    def _cells(self, fixed: dict[int, int]) -> slice | Tensor:
        """The cells that agree with the given tokens."""
        begin, end = 0, len(self.log)
        if 0 in fixed:
            child = fixed.pop(0)
            begin, end = (self._ends[child - 1] if child else 0), self._ends[child]
        if not fixed:
            return slice(begin, end)
        keep = torch.ones(end - begin, dtype=torch.bool, device=self.log.device)
        for axis, token in fixed.items():
            keep &= self.index[axis, begin:end] == token
        return keep.nonzero()[:, 0] + begin

    def _reduce(
        self,
        out: Tensor,
        rows: Tensor,
        cells: slice | Tensor,
        to: int,
        incoming: Mapping[int, Tensor],
    ) -> None:
        target, log = self.index[to, cells], self.log[cells]
        if not len(log) or not len(rows):
            return
        step = max(1, _CHUNK_BYTES // (len(log) * log.element_size() * 3))
        for part in rows.split(step):
            total = log.expand(len(part), -1)
            for axis, message in incoming.items():
                total = total + message[part][:, self.index[axis, cells]]
            place = target.expand(len(part), -1)
            top = total.new_full((len(part), self.shape[to]), NEVER)
            top.scatter_reduce_(1, place, total, "amax")
            if not self.largest:
                shift = top.clamp_min(torch.finfo(top.dtype).min)
                mass = torch.zeros_like(top)
                mass.scatter_add_(1, place, (total - shift.gather(1, place)).exp())
                top = mass.log() + shift
            out[part] = top
