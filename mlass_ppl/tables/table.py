"""A table p(child | parents): counts plus declared smoothing, normalised over the child."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from ..errors import TableError
from .background import Background
from .counts import Counts
from .smoothing import Additive, BackOff

_DENSE_BYTES = 1 << 34
_ENTRIES = 1 << 27
_LEAST = 1e-150
"""Below it, products of a background would underflow in float64."""


@dataclass(frozen=True, eq=False)
class Table:
    """p(child | parents) as seen cells plus, under smoothing, a background in every cell.

    shape: (K_parent1, ..., K_parentr, K_child). keys: sorted flat indices of the cells, int64 [E].
    probability: what a cell has above the background, float64 [E]. background: None when the
    support is exact; rows that were never seen are then zero. There is no hidden epsilon.
    """

    shape: tuple[int, ...]
    keys: Tensor
    probability: Tensor
    background: Background | None = None

    @classmethod
    def from_counts(cls, counts: Counts, smoothing: Additive | BackOff | None = None) -> Table:
        """Counts divided by those of their row, smoothed as declared."""
        if smoothing is not None:
            background, probability = Background.of(counts, smoothing)
            return cls(counts.shape, counts.keys, probability, background)
        seen, place = torch.unique(counts.keys // counts.alphabet, return_inverse=True)
        total = torch.zeros(len(seen), dtype=torch.float64)
        total.index_add_(0, place, counts.values.double())
        return cls(counts.shape, counts.keys, counts.values / total[place])

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
        return cls._positive(dense)

    @classmethod
    def _positive(cls, dense: Tensor) -> Table:
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
        """Share of the cells above the background."""
        return len(self.keys) / self.size

    def seen(self) -> Tensor:
        """Which child tokens have any probability, bool [K_child]."""
        if self.background is not None:
            return self.background.seen()
        out = torch.zeros(self.alphabet, dtype=torch.bool)
        out[self.keys % self.alphabet] = True
        return out

    def dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Probabilities [K_parent1, ..., K_child]. Raises TableError above 16 GiB."""
        needed = self.size * torch.finfo(dtype).bits // 8
        if needed > _DENSE_BYTES:
            raise TableError(
                f"a table of shape {self.shape} takes {needed / 1e9:.3g} GB when dense. Engines "
                "contract it as it is stored; for single cells use entries()."
            )
        out = torch.zeros(self.shape, dtype=dtype)
        if self.background is not None:
            self.background.fill(out)
        out.view(-1)[self.keys] += self.probability.to(dtype)
        return out

    def entries(self) -> tuple[Tensor, Tensor]:
        """Every cell of positive probability: coordinates int64 [len(shape), E'], p float64 [E'].

        Under smoothing all but a few cells are positive: E' is about `size`, and TableError is
        raised where that is more than 1.3e8.
        """
        if self.background is None:
            keep = self.probability > 0
            keys, values = self.keys[keep], self.probability[keep]
        else:
            self._allow("listing its entries")
            values = self.dense().reshape(-1)
            keys = values.nonzero()[:, 0]
            values = values[keys]
        return torch.stack(torch.unravel_index(keys, self.shape)), values

    def raised(self, power: float) -> Table:
        """Every probability to the power of `power` > 0, not normalised (likelihood tempering).

        Zeros stay zero. Raises TableError where `BackOff` smoothed a table of more than 1.3e8
        cells: the power of its sums has no sparse form.
        """
        if not 0 < power < float("inf"):
            raise TableError(f"power must be positive and finite, got {power!r}.")
        background = self.background
        if power == 1:
            return self
        if background is None:
            return replace(self, probability=self.probability**power)
        if not background.common:
            self._allow(f"raising it to the power {power}")
            return self._positive(self.dense().pow_(power))
        # a product of share and q, so that its power is one of their powers
        below = background.at(self.keys, self.shape)
        tables = (background.tables[0] ** power,)
        share = background.share**power
        if min(tables[0].max(), share.min() if len(share) else 1) < _LEAST:
            raise TableError(f"power {power} takes what smoothing adds below {_LEAST}. Lower it.")
        above = ((self.probability + below) ** power - below**power).clamp_min(0)  # rounding
        return Table(self.shape, self.keys, above, Background(background.rows, share, tables))

    def _allow(self, what: str) -> None:
        if self.size > _ENTRIES:
            raise TableError(
                f"{what} would make a smoothed table of shape {self.shape} dense: {self.size:.1e} "
                f"cells, more than {_ENTRIES:.1e}. Use exact support (smoothing=None), or a "
                "smaller alphabet."
            )
