"""What a smoothed table has in every cell: a share of simpler tables in each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from .counts import Counts
from .smoothing import Additive, BackOff


@dataclass(frozen=True, eq=False)
class Background:
    """share(row) q(row, m) in every cell (row, m) of a table; a row is a configuration of parents.

    rows: flat indices of the rows that were seen, sorted, int64 [S]. share: theirs, float64 [S] in
    (0, 1]; every other row has share 1. tables: one for each parent, float64 [K_parent, K_child],
    whose mean over the parents is q; or a single [1, K_child], a q that all rows have in common.
    """

    rows: Tensor
    share: Tensor
    tables: tuple[Tensor, ...]

    @classmethod
    def of(cls, counts: Counts, smoothing: Additive | BackOff) -> tuple[Background, Tensor]:
        """The background of counts, and what stands in front of it: float64 [E]."""
        size = counts.alphabet
        rows, place = torch.unique(counts.keys // size, return_inverse=True)
        number = torch.zeros(len(rows), dtype=torch.float64)
        number.index_add_(0, place, counts.values.double())
        if isinstance(smoothing, Additive):
            pseudo = smoothing.alpha * size
            tables: tuple[Tensor, ...] = (torch.full((1, size), 1 / size, dtype=torch.float64),)
        else:
            pseudo, tables = smoothing.strength, _single(counts)
        total = number + pseudo
        return cls(rows, pseudo / total, tables), counts.values / total[place]

    @property
    def common(self) -> bool:
        """Whether all rows have the same q."""
        return len(self.tables) == 1 and len(self.tables[0]) == 1

    def shares(self, number: int) -> Tensor:
        """Shares of all rows, of which there are `number`, float64."""
        out = torch.ones(number, dtype=torch.float64)
        out[self.rows] = self.share
        return out

    def share_of(self, rows: Tensor) -> Tensor:
        """Shares float64 of flat row indices, int64 [N]."""
        if not len(self.rows):
            return torch.ones(rows.shape, dtype=torch.float64)
        place = torch.searchsorted(self.rows, rows).clamp_max(len(self.rows) - 1)
        return torch.where(self.rows[place] == rows, self.share[place], 1.0)

    def at(self, keys: Tensor, shape: Sequence[int]) -> Tensor:
        """Its value in the cells of these flat indices, float64 [E]."""
        *parents, child = torch.unravel_index(keys, tuple(shape))
        share = self.share_of(keys // shape[-1])
        if self.common:
            return share * self.tables[0][0, child]
        rows = zip(self.tables, parents, strict=True)
        values = torch.stack([table[parent, child] for table, parent in rows])
        return share * values.mean(0)

    def fill(self, out: Tensor) -> None:
        """Write it into `out` [K_parent1, ..., K_child], one row of the first axis at a time."""
        *parents, size = out.shape
        shares = self.shares(prod(parents)).reshape(*parents, 1)
        for first, share in enumerate(shares):
            if self.common:
                out[first] = share * self.tables[0][0]
                continue
            mean = self.tables[0][first] / len(parents)
            for axis, table in enumerate(self.tables[1:]):
                place = [1] * (len(parents) - 1)
                place[axis] = len(table)
                mean = mean + table.reshape(*place, size) / len(parents)
            out[first] = share * mean

    def seen(self) -> Tensor:
        """Which child tokens it gives any probability, bool [K_child]."""
        return torch.stack([(table > 0).any(0) for table in self.tables]).any(0)


def _single(counts: Counts) -> tuple[Tensor, ...]:
    """p(m | parent) for each of several parents; p(m) for an only one. Parents that were never
    seen have the row p(m), which is uniform where nothing was counted at all."""
    size, index = counts.alphabet, counts.index()
    values = counts.values.double()
    overall = torch.zeros(1, size, dtype=torch.float64)
    overall[0].index_add_(0, index[-1], values)
    overall = overall / overall.sum() if len(values) else torch.full_like(overall, 1 / size)
    if len(counts.shape) == 2:
        return (overall,)
    tables = []
    for parent, number in zip(index[:-1], counts.shape[:-1], strict=True):
        table = torch.zeros(number * size, dtype=torch.float64)
        table.index_add_(0, parent * size + index[-1], values)
        table = table.reshape(number, size)
        total = table.sum(1, keepdim=True)
        tables.append(torch.where(total > 0, table / total.clamp_min(1), overall))
    return tuple(tables)
