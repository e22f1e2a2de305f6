"""Counts of (parents, child) tuples: sparse, exact, mergeable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod

import torch
from torch import Tensor

from ..errors import TableError


@dataclass(frozen=True)
class Coverage:
    """How much of a table was seen.

    rows: share of parent configurations seen at least once; child: share of the child's tokens
    seen at least once; cells: share of all cells (both None where the child is a feature); total:
    number of tuples counted.
    """

    rows: float
    child: float | None
    cells: float | None
    total: int

    def __str__(self) -> str:
        if self.child is None or self.cells is None:
            return (
                f"{self.total:,} features; {100 * (1 - self.rows):.1f} % of parent configurations "
                "never seen"
            )
        return (
            f"{self.total:,} tuples; {100 * (1 - self.rows):.1f} % of parent configurations and "
            f"{100 * (1 - self.child):.1f} % of child tokens never seen; "
            f"{100 * self.cells:.3g} % of cells filled"
        )


@dataclass(frozen=True, eq=False)
class Counts:
    """int64 counts in coordinate form.

    shape: (K_parent1, ..., K_parentr, K_child). keys: flat row-major indices into `shape`, sorted
    and unique, int64 [E]. values: their counts, int64 [E], positive. Adding two counts of the same
    shape merges them exactly; duplicates inside one batch accumulate (the references'
    `sums[a, b, m] += 1` drops them).
    """

    shape: tuple[int, ...]
    keys: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        _check_shape(self.shape)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Counts)
            and self.shape == other.shape
            and torch.equal(self.keys, other.keys)
            and torch.equal(self.values, other.values)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(cls, shape: Sequence[int]) -> Counts:
        """Counts of nothing. Raises TableError on sizes that are no (parents..., child)."""
        none = torch.empty(0, dtype=torch.int64)
        return cls(tuple(int(size) for size in shape), none, none)

    @classmethod
    def from_tokens(cls, parents: Sequence[Tensor], child: Tensor, shape: Sequence[int]) -> Counts:
        """Count the tuples `(parents[0][i], ..., parents[-1][i], child[i])` over all positions i.

        parents, child: integer tensors of one common shape. Raises TableError when a token lies
        outside its alphabet or is no integer, the number of parents does not fit `shape` or the
        tensors differ in shape.
        """
        _check_shape(shape)  # first: keys of too large a shape would wrap around
        columns = [*parents, child]
        if len(columns) != len(shape):
            raise TableError(f"expected {len(shape) - 1} parents for {shape}, got {len(parents)}.")
        if any(column.shape != child.shape for column in columns):
            raise TableError(
                f"parents and child differ in shape: {[list(column.shape) for column in columns]}."
            )
        keys, values = torch.unique(flat_keys(columns, shape), return_counts=True)
        return cls(tuple(shape), keys, values)

    @classmethod
    def from_dense(cls, array: Tensor) -> Counts:
        """Counts from an array of whole numbers [K_parent1, ..., K_child]. Raises TableError on
        negative entries and on fractions."""
        if (array < 0).any() or (array != array.long()).any():
            raise TableError("counts must be whole numbers and not negative.")
        flat = array.reshape(-1).to(torch.int64)
        keys = flat.nonzero()[:, 0]
        return cls(tuple(array.shape), keys, flat[keys])

    @classmethod
    def merge(cls, parts: Sequence[Counts]) -> Counts:
        """Sum of one or more counts of one shape. Raises TableError when shapes differ."""
        if not parts:
            raise TableError("expected one or more counts to merge, got none.")
        shape = parts[0].shape
        for part in parts:
            if part.shape != shape:
                raise TableError(f"cannot merge counts of shapes {shape} and {part.shape}.")
        keys, place = torch.unique(torch.cat([part.keys for part in parts]), return_inverse=True)
        values = torch.zeros(len(keys), dtype=torch.int64)
        values.index_add_(0, place, torch.cat([part.values for part in parts]))
        return cls(shape, keys, values)

    def __add__(self, other: Counts) -> Counts:
        return Counts.merge([self, other])

    @property
    def alphabet(self) -> int:
        """Size of the child's alphabet."""
        return self.shape[-1]

    @property
    def total(self) -> int:
        return int(self.values.sum())

    def index(self) -> Tensor:
        """Coordinates of the entries, int64 [len(shape), E]."""
        return torch.stack(torch.unravel_index(self.keys, self.shape))

    def dense(self) -> Tensor:
        """int64 array of `shape`."""
        out = torch.zeros(prod(self.shape), dtype=torch.int64)
        out[self.keys] = self.values
        return out.reshape(self.shape)

    def symmetrised(self) -> Counts:
        """Counts of exchangeable parents: the sum over every order of the parents' axes, as if each
        tuple had been seen in each order. Raises TableError when the parents' alphabets differ."""
        *parents, size = self.shape
        child, rows = self.keys % size, self.keys // size
        return Counts.merge(
            [
                Counts(self.shape, order * size + child, self.values)  # merging sorts the keys
                for order in orders(rows, parents)
            ]
        )

    def coverage(self) -> Coverage:
        rows = torch.unique(self.keys // self.alphabet).numel()
        child = torch.unique(self.keys % self.alphabet).numel()
        return Coverage(
            rows=rows / prod(self.shape[:-1]),
            child=child / self.alphabet,
            cells=len(self.keys) / prod(self.shape),
            total=self.total,
        )


def flat_keys(columns: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Row-major indices into `shape` of token columns, int64 [N]. Raises TableError on tokens that
    are no integers or outside their alphabet."""
    key = torch.zeros(columns[0].numel(), dtype=torch.int64)
    for column, size in zip(columns, shape, strict=True):
        if column.is_floating_point():
            raise TableError(f"tokens must be integers, got {column.dtype}.")
        column = column.reshape(-1).to("cpu", torch.int64)
        if column.numel() and not 0 <= int(column.min()) <= int(column.max()) < size:
            raise TableError(
                f"tokens must lie in [0, {size}), got [{int(column.min())}, "
                f"{int(column.max())}]. Is this the codec that the table is counted for?"
            )
        key = key * size + column
    return key


def orders(rows: Tensor, parents: Sequence[int]) -> list[Tensor]:
    """Flat indices of parent configurations, in every order of the parents' axes.

    Raises TableError when the alphabets differ."""
    if len(set(parents)) > 1:
        raise TableError(
            f"parents with alphabets {tuple(parents)} are not exchangeable: they must be the same."
        )
    columns = torch.unravel_index(rows, tuple(parents))
    return [flat_keys(order, parents) for order in permutations(columns)]


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) < 2 or any(size < 1 for size in shape):
        raise TableError(f"expected (parents..., child) sizes of at least 1, got {tuple(shape)}.")
    if prod(shape) > torch.iinfo(torch.int64).max:
        raise TableError(
            f"a table of shape {tuple(shape)} has {prod(shape):.1e} cells, more than can be "
            "numbered (9.2e18). Declare partial mixtures, as in chain(n)."
        )
