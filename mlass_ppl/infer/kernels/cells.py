"""Linear contraction of a whole sparse table: matrix products over its seen cells alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from ...tables.table import Table

_ROWS = 32
"""Rows at once: their messages stay in the cache while the cells stream by."""


class SeenCells:
    """p(child | parents) as a sparse matrix [seen parent configurations, K_child].

    Costs R E multiplications for E cells, where the dense product costs R times all cells: on
    tables of real codecs, of which one to two cells in a hundred are filled, it wins by far.
    """

    def __init__(self, table: Table, dtype: torch.dtype, device: torch.device) -> None:
        size = table.alphabet
        rows, place = torch.unique(table.keys // size, return_inverse=True)
        values = table.probability.to(dtype)
        child = table.keys % size
        self._parents = [axis.to(device) for axis in torch.unravel_index(rows, table.shape[:-1])]
        self._down = _csr(place, child, values, (len(rows), size), device)
        self._up = _csr(child, place, values, (size, len(rows)), device)
        ones = torch.ones(len(rows), dtype=dtype)
        every = torch.arange(len(rows))
        self._gather = [
            _csr(axis.cpu(), every, ones, (k, len(rows)), device)
            for axis, k in zip(self._parents, table.shape[:-1], strict=True)
        ]

    def message(self, to: int, incoming: Mapping[int, Tensor]) -> Tensor:
        """As `Kernel.message`, with no axis given."""
        parts = []
        columns = {axis: message.T for axis, message in incoming.items()}
        for begin in range(0, len(next(iter(incoming.values()))), _ROWS):
            block = {axis: c[:, begin : begin + _ROWS].contiguous() for axis, c in columns.items()}
            weights = [
                block[axis][self._parents[axis - 1]] for axis in block if axis not in (0, to)
            ]
            if to:
                weights.append(self._down @ block[0])
            joint = weights[0]
            for weight in weights[1:]:
                joint = joint.mul_(weight)
            parts.append((self._gather[to - 1] if to else self._up) @ joint)
        return torch.cat(parts, 1).T


def pays(table: Table) -> bool:
    """Whether few enough cells are filled for `SeenCells` to beat the dense product (measured)."""
    return table.background is None and prod(table.shape) > 1 << 16 and table.density < 0.1


def _csr(
    rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int], device: torch.device
) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        matrix = torch.sparse_coo_tensor(
            torch.stack([rows, columns]), values, shape, check_invariants=False
        )
        return matrix.coalesce().to_sparse_csr().to(device)
