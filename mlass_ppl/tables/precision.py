"""Log densities of many Gaussians at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from ..errors import TableError


@dataclass(frozen=True, eq=False)
class Precisions:
    """C Gaussians in R^D with covariances of their own, whose log densities are one matrix product.

    middle: what features are centred by, [D]. weights: of (x_i x_j, x) of centred features, where
    i <= j, float64 [D (D + 1) / 2 + D, C]. offset: float64 [C].
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
        weights = torch.cat([precision[:, first, second] * half, pulled], 1).T.contiguous()
        determinant = root.diagonal(dim1=1, dim2=2).log().sum(1)
        offset = -0.5 * (mean * pulled).sum(1) - determinant - 0.5 * width * log(2 * pi)
        return cls(middle, weights, offset)

    def log_density(self, features: Tensor) -> Tensor:
        """Nats [M, C] of features [M, D], float64."""
        x = features.to(self.middle) - self.middle
        first, second = torch.triu_indices(len(self.middle), len(self.middle))
        return torch.addmm(self.offset, torch.cat([x[:, first] * x[:, second], x], 1), self.weights)
