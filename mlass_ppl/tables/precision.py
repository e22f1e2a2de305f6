"""Log densities of many Gaussians at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import Any

import torch
from torch import Tensor

from ..errors import TableError

_ROWS = 4


@dataclass(frozen=True, eq=False)
class Precisions:
    """C Gaussians in R^D with covariances of their own, whose log densities are one matrix product.

    middle: what features are centred by, [D]. weights: of (x_i x_j, x) of centred features, where
    i <= j, float64 [C, D (D + 1) / 2 + D]. offset: float64 [C].
    """

    middle: Tensor
    weights: Tensor
    offset: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Precisions:
        """Of means [C, D] and covariances [C, D, D], float64. Raises TableError when one of them is
        singular."""
        width, middle = mean.shape[1], mean.mean(0)
        root, failed = torch.linalg.cholesky_ex(covariance)
        if failed.any():
            raise TableError(
                "a covariance of this table is singular: raise Shrink(min_std=...), the deviation "
                "of its noise."
            )
        mean, precision = mean - middle, torch.cholesky_inverse(root)
        first, second = torch.triu_indices(width, width)
        half = torch.where(first == second, -0.5, -1.0).double()
        pulled = torch.einsum("cij,cj->ci", precision, mean)
        weights = torch.cat([precision[:, first, second] * half, pulled], 1)
        determinant = root.diagonal(dim1=1, dim2=2).log().sum(1)
        offset = -0.5 * (mean * pulled).sum(1) - determinant - 0.5 * width * log(2 * pi)
        return cls(middle, weights, offset)

    def log_density(self, features: Tensor) -> Tensor:
        """Nats [M, C] of features [M, D], float64, on their device."""
        middle, weights, offset = self._on(features.device)
        x = features.to(middle) - middle
        first, second = torch.triu_indices(len(middle), len(middle), device=x.device)
        terms = torch.cat([x[:, first] * x[:, second], x], 1)
        if len(x) > 1:  # products of an odd number of rows take up to three times as long
            terms = torch.nn.functional.pad(terms, (0, 0, 0, -len(x) % _ROWS))
        return torch.addmm(offset, terms, weights.T)[: len(x)]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        cache: dict[Any, tuple[Tensor, Tensor, Tensor]] = self.__dict__.setdefault("_cache", {})
        if device not in cache:
            own = self.middle, self.weights, self.offset
            cache[device] = own[0].to(device), own[1].to(device), own[2].to(device)
        return cache[device]
