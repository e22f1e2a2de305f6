"""Lists of different lengths laid end to end, reduced one by one."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

_WIDE = 16
"""Columns from which the CPU's scatter adds whole rows at a time."""


class Segments:
    """S lists of E items in a row, and one more list that is empty: a place for what has none.

    lengths: int64 [S]. offsets: int64 [S + 2]; list s is at offsets[s] to offsets[s + 1].
    """

    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths
        self.offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0), lengths.sum()[None]])
        self._number: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        number = self._number.nbytes if self._number is not None else 0
        return self.lengths.nbytes + self.offsets.nbytes + number

    @property
    def number(self) -> Tensor:
        """Which list each item is in, int64 [E]."""
        if self._number is None:
            every = torch.arange(len(self.lengths), device=self.lengths.device)
            self._number = torch.repeat_interleave(every, self.lengths)
        return self._number

    def log_sum(self, values: Tensor) -> Tensor:
        """Logsumexp of each list, [E, W] to [S + 1, W]; -inf where there is nothing."""
        top = self.max(values)
        top = torch.where(top == float("-inf"), 0.0, top)
        mass = self.sum((values - top.index_select(0, self.number)).exp_())
        return mass.log_().add_(top)

    def max(self, values: Tensor) -> Tensor:
        return self._reduce(values, "amax", "max", float("-inf"))

    def sum(self, values: Tensor) -> Tensor:
        return self._reduce(values, "sum", "sum", 0.0)

    def matrix(self, weights: Tensor, place: Tensor, size: int) -> Tensor:
        """Sparse matrix [S + 1, size] of the weights [E] in columns `place` [E]: its product with
        values [size, W] sums each list's without spreading them over the items first."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(
                self.offsets, place, weights, (len(self) + 1, size), check_invariants=False
            )

    def _reduce(
        self, values: Tensor, scatter: Literal["amax", "sum"], segment: str, start: float
    ) -> Tensor:
        if values.device.type == "cpu" and values.shape[1] >= _WIDE:
            out = values.new_full((len(self) + 1, values.shape[1]), start)
            return out.scatter_reduce_(0, self.number[:, None].expand_as(values), values, scatter)
        # In one thread for each list: unlike a scatter on a GPU, the same sum every time.
        return torch.segment_reduce(
            values.contiguous(), segment, offsets=self.offsets, axis=0, unsafe=True, initial=start
        )
