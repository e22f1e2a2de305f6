"""A table p(child | parents): counts plus declared smoothing, normalised over the child."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..errors import TableError
from .counts import Counts
from .smoothing import Additive


@dataclass(frozen=True)
class Table:
    """p(child | parents) as seen cells plus, under smoothing, one constant for each row.

    shape: (K_parent1, ..., K_parentr, K_child). keys: sorted flat indices of the cells, int64 [E].
    probability: what a cell has above its row's constant, float64 [E]. floor: the constant of each
    parent configuration, float64 [prod K_parent], or None when the support is exact. Rows that
    were never seen are zero without smoothing and uniform with it. There is no hidden epsilon.
    """

    shape: tuple[int, ...]
    keys: Tensor
    probability: Tensor
    floor: Tensor | None = None

    @classmethod
    def from_counts(cls, counts: Counts, smoothing: Additive | None = None) -> Table:
        size = counts.alphabet
        rows = counts.keys // size
        configurations = prod(counts.shape[:-1])
        alpha = 0.0 if smoothing is None else smoothing.alpha
        if smoothing is None:
            seen, place = torch.unique(rows, return_inverse=True)
            total = torch.zeros(len(seen), dtype=torch.float64)
            total.index_add_(0, place, counts.values.double())
            return cls(counts.shape, counts.keys, counts.values / total[place])
        total = torch.zeros(configurations, dtype=torch.float64)
        total.index_add_(0, rows, counts.values.double())
        total += alpha * size
        return cls(counts.shape, counts.keys, counts.values / total[rows], alpha / total)

    @classmethod
    def from_array(cls, array: Tensor | Sequence[object]) -> Table:
        """Table from probabilities [K_parent1, ..., K_child]: rows sum to 1, or to 0 where a
        parent configuration is impossible. Raises TableError otherwise."""
        try:
            dense = torch.as_tensor(array, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TableError(
                f"expected an array [K_parents..., K_child] of probabilities ({error})."
            ) from error
        if dense.ndim < 2 or not dense.numel():
            raise TableError(f"expected [K_parents..., K_child], got shape {list(dense.shape)}.")
        total = dense.sum(-1)
        if not torch.isfinite(dense).all() or (dense < 0).any():
            raise TableError("a table's probabilities must be finite and not negative.")
        if not (((total - 1).abs() < 1e-6) | (total == 0)).all():
            raise TableError(
                "each row p(. | parents) must sum to 1 over the last axis (or to 0 where the "
                f"parents are impossible); sums lie in [{total.min():.4g}, {total.max():.4g}]. "
                "For counts use Table.from_counts(Counts.from_dense(array))."
            )
        flat = dense.reshape(-1)
        keys = flat.nonzero()[:, 0]
        return cls(tuple(dense.shape), keys, flat[keys])

    @property
    def alphabet(self) -> int:
        """Size of the child's alphabet."""
        return self.shape[-1]

    @property
    def size(self) -> int:
        """Number of cells, seen or not."""
        return prod(self.shape)

    @property
    def density(self) -> float:
        """Share of the cells above their row's constant."""
        return len(self.keys) / self.size

    def seen(self) -> Tensor:
        """Which child tokens have any probability, bool [K_child]."""
        if self.floor is not None:
            return torch.ones(self.alphabet, dtype=torch.bool)
        out = torch.zeros(self.alphabet, dtype=torch.bool)
        out[self.keys % self.alphabet] = True
        return out

    def dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Probabilities [K_parent1, ..., K_child]."""
        out = torch.zeros(self.size, dtype=dtype)
        if self.floor is not None:
            out.view(-1, self.alphabet).copy_(
                self.floor.to(dtype)[:, None].expand(-1, self.alphabet)
            )
        out[self.keys] += self.probability.to(dtype)
        return out.reshape(self.shape)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Every cell of positive probability: coordinates int64 [len(shape), E'], p float64 [E'].

        Under smoothing every cell is positive, so E' is `size`.
        """
        if self.floor is None:
            keep = self.probability > 0
            keys, values = self.keys[keep], self.probability[keep]
        else:
            values = self.dense().reshape(-1)
            keys = torch.arange(self.size)
        return torch.stack(torch.unravel_index(keys, self.shape)), values
