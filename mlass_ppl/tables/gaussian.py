"""A table p(x | parents) of a continuous feature: one diagonal Gaussian per configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi, prod
from typing import Any

import torch
from torch import Tensor

from ..errors import TableError
from .feature import FeatureTable
from .moments import Moments
from .shrinkage import shrunk
from .smoothing import Shrink
from .table import Table

_CHUNK_BYTES = 1 << 25
_TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False)
class GaussianTable(FeatureTable):
    """p(x | parents) = prod_d N(x_d; mean_d, std_d^2), to the power of `power`.

    mean, std: in the feature's units, float64 [K_parent1, ..., K_parentr, D]. possible: where it is
    False the parents are impossible and the density is zero, bool [K_parent1, ..., K_parentr].
    """

    mean: Tensor
    std: Tensor
    possible: Tensor
    power: float = 1.0

    @classmethod
    def from_moments(
        cls, moments: Moments, shrink: Shrink = Shrink(), *, memory_limit: float = 4e9
    ) -> GaussianTable:
        """Means and deviations of the samples, shrunk where there are few.

        Every configuration is pulled by `shrink.strength` pseudo-samples to what its parents say
        one by one, mean(a) + mean(b) - mean and var(a) + var(b) - var: exact where the feature is
        linear in independent sources. A single parent is pulled to the overall mean and variance.
        Never-seen configurations take that back-off itself. Raises TableError when nothing was
        counted, or the table would take more than `memory_limit` bytes.
        """
        needed = 4.0 * 8 * prod(moments.shape) * moments.width
        if needed > memory_limit:
            raise TableError(
                f"a Gaussian table for parents {moments.shape} and {moments.width} numbers takes "
                f"{needed / 1e9:.3g} GB; the limit is {memory_limit / 1e9:.3g} GB. Declare partial "
                "mixtures, as in chain(n)."
            )
        mean, std = shrunk(moments, shrink)
        return cls(mean, std, torch.ones(moments.shape, dtype=torch.bool))

    @classmethod
    def from_arrays(
        cls,
        mean: Tensor | Sequence[object],
        std: Tensor | Sequence[object],
        possible: Tensor | Sequence[object] | None = None,
    ) -> GaussianTable:
        """Table from means and standard deviations [K_parent1, ..., K_parentr, D].

        possible: bool [K_parent1, ..., K_parentr], default all. Raises TableError where a possible
        configuration has a mean that is not finite or a deviation that is not positive.
        """
        try:
            means = torch.as_tensor(mean, dtype=torch.float64)
            stds = torch.as_tensor(std, dtype=torch.float64)
            mask = torch.ones(means.shape[:-1], dtype=torch.bool)
            if possible is not None:
                mask = torch.as_tensor(possible, dtype=torch.bool)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TableError(
                f"expected arrays of means and deviations [K_parents..., D] ({error})."
            ) from error
        if means.ndim < 2 or not means.numel() or means.shape != stds.shape:
            raise TableError(
                "expected means and deviations [K_parents..., D] of one shape, got "
                f"{list(means.shape)} and {list(stds.shape)}."
            )
        if mask.shape != means.shape[:-1] or not mask.any():
            raise TableError(
                f"possible must be {list(means.shape[:-1])} and somewhere true, got "
                f"{list(mask.shape)} with {int(mask.sum())} true."
            )
        finite = torch.isfinite(means) & torch.isfinite(stds) & (stds > 0)
        if not finite.all(-1)[mask].all():
            raise TableError(
                "means must be finite and deviations positive and finite wherever the parents are "
                "possible; leave out impossible ones by possible=[K_parents...]."
            )
        means = means.masked_fill(~mask[..., None], 0.0)
        return cls(means, stds.masked_fill(~mask[..., None], 1.0), mask)

    @property
    def parents(self) -> tuple[int, ...]:
        return tuple(self.possible.shape)

    @property
    def width(self) -> int:
        return self.mean.shape[-1]

    @property
    def nbytes(self) -> int:
        return 2 * (self.mean.nbytes + self.std.nbytes)

    def __repr__(self) -> str:
        power = "" if self.power == 1 else f", power={self.power:g}"
        size = f"{self.nbytes / 1e6:.3g} MB"
        return f"GaussianTable(parents={self.parents}, width={self.width}{power}, {size})"

    def possible_cells(self) -> Tensor:
        return self.possible.flatten().nonzero()[:, 0]

    def raised(self, power: float) -> GaussianTable:
        return replace(self, power=self._raised(power))

    def log_likelihood(self, features: Tensor) -> Tensor:
        """power * log p(x | parents), nats, of features [M, D]: [M, K_parent1, ..., K_parentr].

        -inf where the parents are impossible. Computed in float64 by two matrix products, x^2 and x
        against one column per configuration, centred; where rounding could reach 1e-7 nats (very
        narrow Gaussians), by (x - mean) / std. Returned in the features' type. Raises TableError on
        features of another width or that are not finite.
        """
        self._check(features)
        device, kept = features.device, self._kept
        x = features.to(torch.float64) - kept["centre"].to(device)
        largest = (x * x).amax(0) if len(x) else x.new_zeros(self.width)
        terms = self.power * (largest @ kept["narrowest"].to(device) + kept["far"])
        direct = not terms * 8 * torch.finfo(x.dtype).eps < _TOLERANCE  # NaN: a variance underflows
        out = features.new_empty(len(x), prod(self.parents))
        step = max(1, _CHUNK_BYTES // (8 * out.shape[1] * (self.width if direct else 1)))
        for begin in range(0, len(x), step):
            part = x[begin : begin + step]
            out[begin : begin + step] = self._direct(part) if direct else self._product(part)
        return out.reshape(-1, *self.parents)

    def _product(self, x: Tensor) -> Tensor:
        """Log densities [M, C] of centred features, the square expanded."""
        weights, offset = self._operators(x.device)
        return torch.addmm(offset, torch.cat([x * x, x], 1), weights)

    def _direct(self, x: Tensor) -> Tensor:
        std = self.std.reshape(-1, self.width).to(x.device)
        squares = ((x[:, None] - self._centred().to(x.device)) / std).square_().sum(-1)
        return squares.mul_(-0.5 * self.power).add_(self._kept["constant"].to(x.device))

    def _centred(self) -> Tensor:
        mask = ~self.possible.reshape(-1, 1)
        mean = self.mean.reshape(-1, self.width) - self._kept["centre"]
        return mean.masked_fill_(mask, 0.0)

    @cached_property
    def _kept(self) -> dict[str, Tensor]:
        """The middle of all means [D], the constant of each log density [C], and what bounds
        rounding: 1 / the least variance [D] and the largest distance of a mean from the middle."""
        mask, std = self.possible.reshape(-1), self.std.reshape(-1, self.width)
        means = self.mean.reshape(-1, self.width)[mask]
        centre = (means.amin(0) + means.amax(0)) / 2
        constant = -self.power * (std.log().sum(-1) + 0.5 * self.width * log(2 * pi))
        return {
            "centre": centre,
            "constant": constant.masked_fill(~mask, float("-inf")),
            "narrowest": std.amin(0) ** -2,
            "far": ((means - centre) / std[mask]).square().sum(-1).amax(),
        }

    def _operators(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weights [2 D, C] of (x^2, x) and offsets [C], whose sum is the log density."""
        cache: dict[Any, tuple[Tensor, Tensor]] = self.__dict__.setdefault("_cache", {})
        if device not in cache:
            mean = self._centred()
            half = -0.5 * self.power * self.std.reshape(-1, self.width) ** -2
            weights = torch.cat([half, -2 * mean * half], 1).T.contiguous()
            offset = (mean * mean * half).sum(-1) + self._kept["constant"]
            cache[device] = weights.to(device), offset.to(device)
        return cache[device]


AnyTable = Table | FeatureTable
