"""Moments of a continuous feature for each configuration of parents: sparse, exact, mergeable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..errors import TableError
from .counts import Counts, Coverage, flat_keys, orders

UNIT = 2.0**-16
"""Resolution of a feature: what is summed are whole multiples of it."""

LARGEST = 16.0
"""Largest feature, positive or negative, that can be counted."""

_ROOM = 1 << 62
_SAMPLES = 1 << 20
"""Summed at once: their squares, 2^40 each at most, cannot overflow."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, sum and sum of squares of a feature in R^D, in coordinate form.

    shape: (K_parent1, ..., K_parentr). width: D. keys: flat row-major indices into `shape`, sorted
    and unique, int64 [E]. number: samples, int64 [E]. total: sums in units of 2^-16, int64 [E, D].
    square: sums of squares in units of 2^-32, int64 [E, D]. Whole numbers make merging exact: any
    order and grouping of the same samples gives the same bits.
    """

    shape: tuple[int, ...]
    width: int
    keys: Tensor
    number: Tensor
    total: Tensor
    square: Tensor

    def __post_init__(self) -> None:
        if not self.shape or self.width < 1:
            raise TableError(
                f"moments need one or more parents and a feature of width 1 or more, got shape "
                f"{self.shape} and width {self.width}."
            )
        Counts.empty((*self.shape, 1))  # as many configurations as can be numbered

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Moments)
            and (self.shape, self.width) == (other.shape, other.width)
            and all(
                torch.equal(mine, theirs)
                for mine, theirs in zip(self._sums(), other._sums(), strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def _sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.keys, self.number, self.total, self.square

    @classmethod
    def empty(cls, shape: Sequence[int], width: int) -> Moments:
        """Moments of nothing, of a feature of `width` numbers."""
        none, sums = torch.empty(0, dtype=torch.int64), torch.empty(0, width, dtype=torch.int64)
        return cls(tuple(int(size) for size in shape), int(width), none, none, sums, sums)

    @classmethod
    def from_features(
        cls, parents: Sequence[Tensor], features: Tensor, shape: Sequence[int]
    ) -> Moments:
        """Moments of `features[i]` given `(parents[0][i], ..., parents[-1][i])`, over all places i.

        parents: integer tensors of one common shape [...]. features: float [..., D], rounded to
        multiples of 2^-16 in [-16, 16]. shape: alphabets of the parents. Raises TableError when a
        token lies outside its alphabet, a feature is not finite or too large, or shapes differ.
        """
        empty = cls.empty(shape, features.shape[-1] if features.ndim else 0)
        if len(parents) != len(shape):
            raise TableError(f"expected {len(shape)} parents for {shape}, got {len(parents)}.")
        if not features.is_floating_point() or any(p.shape != features.shape[:-1] for p in parents):
            raise TableError(
                f"features must be floats [..., D] and parents integers [...], got "
                f"{features.dtype} {list(features.shape)} and {[list(p.shape) for p in parents]}."
            )
        flat = features.detach().reshape(-1, empty.width).cpu()
        least, most = torch.aminmax(flat) if flat.numel() else (torch.zeros(()),) * 2
        if not (least >= -LARGEST and most <= LARGEST):  # NaN is neither
            raise TableError(
                f"features must be finite and lie in [-{LARGEST:g}, {LARGEST:g}], got "
                f"[{float(least):.4g}, {float(most):.4g}]. Scale them in the codec."
            )
        keys = flat_keys(parents, shape)
        parts = [empty]
        for key, values in zip(keys.split(_SAMPLES), flat.split(_SAMPLES), strict=True):
            found, place, number = torch.unique(key, return_inverse=True, return_counts=True)
            fixed = (values / UNIT).round_().to(torch.int64)
            total = torch.zeros(len(found), empty.width, dtype=torch.int64)
            square = total.clone().index_add_(0, place, fixed * fixed)
            total.index_add_(0, place, fixed)
            parts.append(cls(empty.shape, empty.width, found, number, total, square))
        return cls.merge(parts) if len(parts) > 2 else parts[-1]

    @classmethod
    def merge(cls, parts: Sequence[Moments]) -> Moments:
        """Sum of one or more moments, exact in any order. Raises TableError when shapes or widths
        differ, or a sum of squares overflows int64."""
        if not parts:
            raise TableError("expected one or more moments to merge, got none.")
        first = parts[0]
        for part in parts:
            if (part.shape, part.width) != (first.shape, first.width):
                raise TableError(
                    f"cannot merge moments of shapes {first.shape} and {part.shape}, widths "
                    f"{first.width} and {part.width}."
                )
        keys, place = torch.unique(torch.cat([part.keys for part in parts]), return_inverse=True)
        if sum(int(part.square.max()) for part in parts if len(part.keys)) >= _ROOM:
            _check_room(parts, place, len(keys))
        number = torch.zeros(len(keys), dtype=torch.int64)
        number.index_add_(0, place, torch.cat([part.number for part in parts]))
        total = torch.zeros(len(keys), first.width, dtype=torch.int64)
        square = total.clone().index_add_(0, place, torch.cat([part.square for part in parts]))
        total.index_add_(0, place, torch.cat([part.total for part in parts]))
        return cls(first.shape, first.width, keys, number, total, square)

    def __add__(self, other: Moments) -> Moments:
        return Moments.merge([self, other])

    @property
    def samples(self) -> int:
        """Number of features summed."""
        return int(self.number.sum())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._sums())

    def symmetrised(self) -> Moments:
        """Moments of exchangeable parents: the sum over every order of their axes. Raises
        TableError when their alphabets differ."""
        _, *sums = self._sums()
        return Moments.merge(
            [
                Moments(self.shape, self.width, order, *sums)
                for order in orders(self.keys, self.shape)
            ]
        )

    def coverage(self) -> Coverage:
        return Coverage(len(self.keys) / prod(self.shape), None, None, self.samples)


def _check_room(parts: Sequence[Moments], place: Tensor, size: int) -> None:
    square = torch.zeros(size, parts[0].width, dtype=torch.float64)
    square.index_add_(0, place, torch.cat([part.square for part in parts]).double())
    if square.max() >= _ROOM:
        raise TableError(
            f"sums of squared features overflow ({float(square.max()) * UNIT**2:.2e} in one "
            "configuration of parents). Count fewer mixtures, or scale the features down in the "
            "codec."
        )
