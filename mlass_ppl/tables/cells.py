"""Moments of a feature within each token's cell: mean and covariance, exact and mergeable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TableError
from .counts import Counts, Coverage
from .moments import LARGEST, UNIT, Moments

_SAMPLES = 1 << 16
"""Samples whose products are held at once."""

_ROOM = 1 << 21
"""Samples summed at once: their products, 2^40 each at most, cannot overflow."""


@dataclass(frozen=True, eq=False)
class CellMoments:
    """Number, sum and sum of products of a feature in R^D for each token of one signal.

    number: samples, int64 [K]. total: sums in units of 2^-16, int64 [K, D]. cross: sums of the
    products x_i x_j, i <= j, row by row of the upper triangle, in units of 2^-32, int64
    [K, D (D + 1) / 2]. Whole numbers make merging exact: any order and grouping of the same samples
    gives the same bits.
    """

    number: Tensor
    total: Tensor
    cross: Tensor

    @property
    def shape(self) -> tuple[int]:
        """(K,)"""
        return (len(self.number),)

    @property
    def width(self) -> int:
        return self.total.shape[1]

    @property
    def keys(self) -> Tensor:
        """Tokens that were seen, int64 [E]."""
        return self.number.nonzero()[:, 0]

    @property
    def samples(self) -> int:
        """Number of features summed."""
        return int(self.number.sum())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._sums())

    def coverage(self) -> Coverage:
        return Coverage(len(self.keys) / len(self.number), None, None, self.samples)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CellMoments) and all(
            torch.equal(mine, theirs)
            for mine, theirs in zip(self._sums(), other._sums(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.number, self.total, self.cross

    @classmethod
    def empty(cls, alphabet: int, width: int) -> CellMoments:
        """Moments of nothing."""
        if alphabet < 1 or width < 1:
            raise TableError(f"moments need tokens and a width, got {alphabet} and {width}.")
        none = torch.zeros(alphabet, dtype=torch.int64)
        products = width * (width + 1) // 2
        return cls(none, none.new_zeros(alphabet, width), none.new_zeros(alphabet, products))

    @classmethod
    def from_features(cls, tokens: Tensor, features: Tensor, alphabet: int) -> CellMoments:
        """Moments of features[i] given tokens[i] over all positions i.

        tokens: integers [...] in [0, alphabet). features: float [..., D], rounded to multiples of
        2^-16 in [-16, 16]. Raises TableError when a token lies outside its alphabet, a feature is
        not finite or too large, or shapes differ.
        """
        floats, whole = features.is_floating_point(), not tokens.is_floating_point()
        if not (floats and whole and features.ndim and tokens.shape == features.shape[:-1]):
            raise TableError(
                f"features must be floats [..., D] and tokens integers [...], got "
                f"{features.dtype} {list(features.shape)} and {tokens.dtype} "
                f"{list(tokens.shape)}."
            )
        out = cls.empty(alphabet, features.shape[-1])
        flat = features.detach().reshape(-1, out.width).cpu()
        keys = tokens.reshape(-1).cpu().long()
        if keys.numel() and not 0 <= int(keys.min()) <= int(keys.max()) < alphabet:
            raise TableError(f"tokens must lie in [0, {alphabet}).")
        least, most = torch.aminmax(flat) if flat.numel() else (torch.zeros(()),) * 2
        if not (least >= -LARGEST and most <= LARGEST):  # NaN is neither
            raise TableError(
                f"features must be finite and lie in [-{LARGEST:g}, {LARGEST:g}], got "
                f"[{float(least):.4g}, {float(most):.4g}]. Scale them in the codec."
            )
        if len(keys) > _ROOM:
            parts = zip(keys.split(_ROOM), flat.split(_ROOM), strict=True)
            return cls.merge([cls.from_features(key, part, alphabet) for key, part in parts])
        first, second = torch.triu_indices(out.width, out.width)
        out.number.index_add_(0, keys, torch.ones_like(keys))
        for key, values in zip(keys.split(_SAMPLES), flat.split(_SAMPLES), strict=True):
            fixed = (values / UNIT).round_().to(torch.int64)
            out.total.index_add_(0, key, fixed)
            out.cross.index_add_(0, key, fixed[:, first] * fixed[:, second])
        return out

    @classmethod
    def merge(cls, parts: Sequence[CellMoments]) -> CellMoments:
        """Sum of one or more moments, exact in any order. Raises TableError when shapes differ, or
        a sum of products over all cells overflows int64."""
        if not parts:
            raise TableError("expected one or more moments to merge, got none.")
        if len({(part.shape, part.width) for part in parts}) > 1:
            shapes = sorted({(*part.shape, part.width) for part in parts})
            raise TableError(f"cannot merge moments of different shapes: {shapes}.")
        products = sum(part.cross.double().abs().sum(0).max() for part in parts)
        if products >= 2.0**62:
            raise TableError(
                f"sums of products of features overflow ({float(products) * UNIT**2:.2e} in all). "
                "Count fewer signals, or scale the features down in the codec."
            )
        sums = zip(*(part._sums() for part in parts), strict=True)
        return cls(*(torch.stack(list(each)).sum(0) for each in sums))

    def __add__(self, other: CellMoments) -> CellMoments:
        return CellMoments.merge([self, other])

    def __repr__(self) -> str:
        return (
            f"CellMoments(alphabet={self.shape[0]}, width={self.width}, samples={self.samples:,})"
        )

    def pooled(self) -> CellMoments:
        """All samples in one cell: the moments of a signal whose token is not asked for."""
        return CellMoments(*(sums.sum(0, keepdim=True) for sums in self._sums()))

    def gaussians(self, strength: float) -> tuple[Tensor, Tensor]:
        """Mean [K, D] and covariance [K, D, D] of each cell, float64, pulled by `strength`
        pseudo-samples to those of all samples; a cell that was never seen takes those themselves.

        Raises TableError when nothing was counted.
        """
        samples = float(self.samples)
        if not samples:
            raise TableError("no feature was counted, so there are no moments. Count some.")
        number, total, cross = (sums.double() for sums in self._sums())
        overall = total.sum(0) / samples
        divisor = number.clamp_min(1)[:, None]
        # Rounding of a product of means is 2^-53 of a square, far below any cell's variance.
        mean, products = total / divisor, cross / divisor
        everything = self._square(cross.sum(0) / samples) - overall[:, None] * overall
        covariance = self._square(products) - mean[:, :, None] * mean[:, None]
        share = (strength / (number + strength))[:, None] if strength else (number == 0)[:, None]
        share = share.to(mean)
        apart = (mean - overall) * (number > 0)[:, None]
        between = (share * (1 - share))[..., None] * apart[:, :, None] * apart[:, None]
        pulled = mean + share * (overall - mean)
        spread = covariance + share[..., None] * (everything - covariance) + between
        return pulled * UNIT, spread * UNIT**2

    def _square(self, triangle: Tensor) -> Tensor:
        """Symmetric matrices [..., D, D] of upper triangles."""
        first, second = torch.triu_indices(self.width, self.width)
        out = triangle.new_zeros(*triangle.shape[:-1], self.width, self.width)
        out[..., first, second] = triangle
        out[..., second, first] = triangle
        return out


AnyCounts = Counts | Moments | CellMoments
