"""A table p(x | parents) of a linear feature, put together from each parent's own moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi, prod

import torch
from torch import Tensor

from ..errors import TableError
from .cells import CellMoments
from .diagonal import Sums, combined, pairs
from .feature import FeatureTable
from .precision import Precisions
from .smoothing import Shrink

FULL = 1 << 17
"""Configurations up to which each has a covariance matrix of its own."""

_LARGEST = 1 << 24


@dataclass(frozen=True, eq=False)
class LinearGaussianTable(FeatureTable):
    """p(x | parents) = N(x; sum_i mean_i, noise I + sum_i covariance_i), to the power of `power`.

    A feature that is linear in the signal, of a mixture of independent parents, has the sum of
    their means and of their covariances: K numbers for each parent say what a table over K^r
    configurations would have to count.

    means: of each parent, weighted, float64 [K_i, D]. covariances: float64 [K_i, D, D]. noise: a
    variance in each direction, which keeps narrow cells from being taken at their word. axes:
    orthonormal columns [D, D]. diagonal: the covariances count along the axes alone, so that many
    configurations cost no matrix each; the principal axes of the average cell keep most of them.
    """

    means: tuple[Tensor, ...]
    covariances: tuple[Tensor, ...]
    noise: float
    axes: Tensor
    diagonal: bool
    power: float = 1.0

    @classmethod
    def from_cells(
        cls,
        cells: Sequence[CellMoments],
        weights: Sequence[float],
        shrink: Shrink = Shrink(),
        *,
        hidden: Sequence[tuple[CellMoments, float]] = (),
        diagonal: bool | None = None,
    ) -> LinearGaussianTable:
        """Table of a mixture sum_i weights[i] * (signal of parent i).

        shrink: `strength` pseudo-samples pull each cell to the mean over all cells, and `min_std`
        is the deviation of the noise. hidden: moments and weights of further parts of the signal
        that the table is averaged over. diagonal: by default, where there are more than 2^17
        configurations. Raises TableError on moments of several widths or of nothing.
        """
        if not cells or len(cells) != len(weights):
            raise TableError(
                f"expected a weight for each parent, got {len(weights)} weights for "
                f"{len(cells)} moments."
            )
        every = [*cells, *(part.pooled() for part, _ in hidden)]
        if len({cell.width for cell in every}) > 1:
            raise TableError(
                f"the parts' features have different widths: {[cell.width for cell in every]}."
            )
        average = torch.zeros(every[0].width, every[0].width, dtype=torch.float64)
        means, covariances = [], []
        for cell, weight in zip(every, [*weights, *(w for _, w in hidden)], strict=True):
            mean, spread = cell.gaussians(shrink.strength)
            means.append(weight * mean)
            covariances.append(weight**2 * spread)
            share = cell.number.double() / cell.samples
            average += torch.einsum("k,kij->ij", share, covariances[-1])
        known = len(cells)
        # What is hidden sounds beside every token; one parent carries it for all of them.
        for part in (means, covariances):
            part[0] = sum(part[known:], part[0])
        if diagonal is None:
            diagonal = prod(len(cell.number) for cell in cells) > FULL
        return cls(
            tuple(means[:known]),
            tuple(covariances[:known]),
            shrink.min_std**2,
            torch.linalg.eigh(average)[1],
            diagonal,
        )

    @property
    def parents(self) -> tuple[int, ...]:
        return tuple(len(mean) for mean in self.means)

    @property
    def width(self) -> int:
        return len(self.axes)

    @property
    def nbytes(self) -> int:
        own = sum(part.nbytes for part in (*self.means, *self.covariances))
        if self.diagonal:
            return own
        size = self.parents[0]
        cells = size * (size + 1) // 2 if self._twins else prod(self.parents)
        return own + 8 * cells * (self.width * (self.width + 3) // 2 + 1)

    def __repr__(self) -> str:
        power = "" if self.power == 1 else f", power={self.power:g}"
        kind = "diagonal" if self.diagonal else "full"
        return (
            f"LinearGaussianTable(parents={self.parents}, width={self.width}, {kind}{power}, "
            f"{self.nbytes / 1e6:.3g} MB)"
        )

    def raised(self, power: float) -> LinearGaussianTable:
        return replace(self, power=self._raised(power))

    @cached_property
    def centres(self) -> tuple[Tensor, ...]:
        """The means along the axes, float64 [K_i, D]."""
        return tuple(mean @ self.axes for mean in self.means)

    @cached_property
    def spreads(self) -> tuple[Tensor, ...]:
        """The variances along the axes, float64 [K_i, D], without the noise."""
        axes = self.axes
        return tuple(
            torch.einsum("kij,ia,ja->ka", covariance, axes, axes).clamp_min(0)
            for covariance in self.covariances
        )

    def gaussian(self, *tokens: Tensor | int) -> tuple[Tensor, Tensor]:
        """Mean [..., D] and covariance [..., D, D] of the density in some configurations, float64,
        without the power. tokens: of each parent, int64 of shapes that go together."""
        given = torch.broadcast_tensors(*(torch.as_tensor(token).cpu() for token in tokens))
        mean = _added(self.means, given)
        if self.diagonal:
            along = _added(self.spreads, given) + self.noise
            return mean, (self.axes * along[..., None, :]) @ self.axes.T
        noise = self.noise * torch.eye(self.width, dtype=torch.float64)
        return mean, _added(self.covariances, given) + noise

    def log_likelihood(self, features: Tensor) -> Tensor:
        """As of every `FeatureTable`. Raises TableError also where there are more than 2^24
        configurations: `Truncated()` asks for the promising ones alone."""
        self._check(features)
        if prod(self.parents) > _LARGEST:
            raise TableError(
                f"a density for each of {prod(self.parents):.2e} configurations of parents "
                f"{self.parents} is too much. Use infer=Truncated(), which looks at the promising "
                "ones, or declare partial mixtures, as in chain(n)."
            )
        if self.diagonal:
            flat = combined(self.along(features), self.centres, self.spreads, self.noise)
        else:
            flat = self._each(features)
        if self.power != 1:
            flat = flat.mul_(self.power)
        return flat.reshape(-1, *self.parents).to(features)

    def log_density(self, features: Tensor, first: Sums, second: Sums) -> Tensor:
        """power * log density of features [M, D] for A x B sums along the axes, nats [M, A, B].

        first, second: centres and spreads of two groups that hold all of the parents, already
        summed within the group, float [M or 1, D, A] and [M or 1, D, B]. Diagonal, in the type and
        on the device of the groups.
        """
        (centre, spread), (least, most) = first, self._range
        y = self.along(features.to(centre.device))
        out = pairs(y, (centre, spread + self.noise), second, least, most)
        constant = self.width * log(2 * pi) + float(least.log().sum())
        return out.add_(constant).mul_(-0.5 * self.power)

    def between(self, features: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """As `log_likelihood`, of some tokens int64 [K'] of each of two parents alone: nats
        [M, K'_1, K'_2], float64. Diagonal."""
        first, second = (
            (centre.to(own.device)[own].T[None], spread.to(own.device)[own].T[None])
            for centre, spread, own in zip(self.centres, self.spreads, tokens, strict=True)
        )
        return self.log_density(features, first, second)

    @cached_property
    def log_highest(self) -> float:
        """A bound on `log_likelihood`, whatever the feature: nats, float."""
        constant = self.width * log(2 * pi) + float(self._range[0].log().sum())
        return -0.5 * self.power * constant

    def along(self, features: Tensor) -> Tensor:
        """Features [M, D] along the axes, float64, on their device."""
        return features.double() @ self.axes.to(features.device)

    @cached_property
    def _range(self) -> tuple[Tensor, Tensor]:
        """The least and the largest variance that any configuration has along each axis, [D]."""
        least = torch.stack([spread.amin(0) for spread in self.spreads]).sum(0)
        most = torch.stack([spread.amax(0) for spread in self.spreads]).sum(0)
        return least + self.noise, most + self.noise

    def _each(self, features: Tensor) -> Tensor:
        """Log densities [M, C] under covariances of their own, float64, without the power."""
        log = self._precisions.log_density(features)
        if not self._twins:
            return log
        size = self.parents[0]
        first, second = torch.triu_indices(size, size, device=log.device)
        place = torch.empty(size, size, dtype=torch.int64, device=log.device)
        place[first, second] = place[second, first] = torch.arange(len(first), device=log.device)
        return log.gather(1, place.flatten().expand(len(log), -1))

    @cached_property
    def _twins(self) -> bool:
        """Whether there are two parents, and they sound alike: (a, b) is as likely as (b, a)."""
        return len(self.means) == 2 and all(
            len(one) == len(other) and torch.equal(one, other)
            for one, other in (self.means, self.covariances)
        )

    @cached_property
    def _precisions(self) -> Precisions:
        """Of all configurations of the parents; of twins, only those where the second token is not
        below the first."""
        if self._twins:
            size = self.parents[0]
            mean, covariance = self.gaussian(*torch.triu_indices(size, size))
            return Precisions.of(mean, covariance)
        grid = torch.meshgrid(*map(torch.arange, self.parents), indexing="ij")
        mean, covariance = self.gaussian(*grid)
        return Precisions.of(mean.flatten(0, -2), covariance.flatten(0, -3))


def _added(parts: Sequence[Tensor], tokens: Sequence[Tensor]) -> Tensor:
    """The sum of each parent's rows."""
    first, *rest = (part[token] for part, token in zip(parts, tokens, strict=True))
    return sum(rest, first)
