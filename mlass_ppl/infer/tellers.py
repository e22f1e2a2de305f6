"""What one observed site says of tokens of some of the sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..tables.linear import LinearGaussianTable
from .exponential import exponential

_CHUNK_BYTES = 1 << 25

Tokens = Mapping[str, Tensor]
"""Tuples of tokens of each mixture: {source: int64 [M, T]}, or [1, T] where all mixtures have the
same ones; of no sources, the one empty tuple."""

Gaussian = tuple[Tensor, Tensor]
"""Means and variances."""


class Teller(Protocol):
    """An observed site whose parents are sources."""

    def fit(self, tuples: Tokens) -> Tensor:
        """How well the feature is met by each tuple, the other parents following their average
        priors: nats [M, T], approximate, to rank by."""
        ...

    def pairs(self, first: Tokens, second: Tokens) -> Tensor:
        """log p(feature | parents) of the A x B unions of tuples of two groups that hold all of
        the sources, nats [M, A, B]."""
        ...


@dataclass(frozen=True)
class Adding:
    """A site whose parents' means and variances add up: only what is asked for is computed.

    feature: [M, D]. cells: centres and spreads of each parent's part of the feature, along the
    table's axes, [K, D] each, in the type of the densities. average: mean and variance [M, D] of
    each part under the parent's average prior.
    """

    table: LinearGaussianTable
    feature: Tensor
    cells: Mapping[str, Gaussian]
    average: Mapping[str, Gaussian]

    def fit(self, tuples: Tokens) -> Tensor:
        centre, spread = self._sums(tuples)
        for name, (mean, variance) in self.average.items():
            if name not in tuples:
                centre = centre + mean[:, None]
                spread = spread + variance[:, None]
        spread = spread + self.table.noise
        y = self.table.along(self.feature.to(centre.device)).to(centre)[:, None]
        terms = (y - centre).square_().div_(spread).add_(spread.log())
        return terms.sum(2).mul_(-0.5 * self.table.power)

    def pairs(self, first: Tokens, second: Tokens) -> Tensor:
        (mine, my_spread), (other, its_spread) = self._sums(first), self._sums(second)
        return self.table.log_density(
            self.feature, (mine.mT, my_spread.mT), (other.mT, its_spread.mT)
        )

    def _sums(self, tuples: Tokens) -> Gaussian:
        """Centres and spreads [M or 1, T, D] of the sums over a tuple's tokens."""
        some = next(iter(self.cells.values()))[0]
        shape = next((tokens.shape for tokens in tuples.values()), (1, 1))
        centre, spread = some.new_zeros(2, *shape, some.shape[1])
        for name, tokens in tuples.items():
            if name in self.cells:
                own, its = self.cells[name]
                centre += own.index_select(0, tokens.flatten()).reshape(centre.shape)
                spread += its.index_select(0, tokens.flatten()).reshape(centre.shape)
        return centre, spread


@dataclass(frozen=True)
class Listing:
    """A site whose density of every configuration is at hand.

    log: nats [M, K_parent1, ..., K_parentr]. average: the average prior of each parent, [M, K].
    """

    parents: tuple[str, ...]
    log: Tensor
    average: Mapping[str, Tensor]
    _messages: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def fit(self, tuples: Tokens) -> Tensor:
        own = tuple(name for name in self.parents if name in tuples)
        if own not in self._messages:
            self._messages[own] = self._message(own)
        message = self._messages[own]
        if not own:
            return message[:, None]
        row = torch.arange(len(message), device=message.device)[:, None]
        return message[(row, *(tuples[name] for name in own))]

    def pairs(self, first: Tokens, second: Tokens) -> Tensor:
        place = self._places(first)[:, :, None] + self._places(second)[:, None]
        flat = self.log.flatten(1)
        if len(place) != len(flat):
            return flat[:, place[0]]
        return flat.gather(1, place.flatten(1)).reshape(place.shape)

    def _message(self, own: tuple[str, ...]) -> Tensor:
        """log of what the site says of some of its parents, the others averaged out, up to a
        constant, [M, K_own1, ...]; some mixtures at a time, to save memory."""
        parts = []
        step = max(1, _CHUNK_BYTES // (self.log[:1].numel() * self.log.element_size() + 1))
        for begin in range(0, max(1, len(self.log)), step):
            log = self.log[begin : begin + step]
            top = log.flatten(1).amax(1).clamp_min(torch.finfo(log.dtype).min)
            message = exponential(log - top.reshape(-1, *[1] * len(self.parents)))
            for place in reversed(range(len(self.parents))):
                if (name := self.parents[place]) not in own:
                    weight = self.average[name][begin : begin + step].to(message)
                    moved = message.movedim(place + 1, -1)
                    shape = [len(weight), *[1] * (moved.ndim - 3), -1, 1]
                    message = (moved @ weight.reshape(shape)).squeeze(-1)
            parts.append(message)
        message = torch.cat(parts)
        return message.clamp_min_(torch.finfo(message.dtype).tiny).log_()

    def _places(self, tuples: Tokens) -> Tensor:
        """What the tokens of a group add to the place in the flat array, int64 [M or 1, T]."""
        shape = next((tokens.shape for tokens in tuples.values()), (1, 1))
        out = torch.zeros(shape, dtype=torch.int64, device=self.log.device)
        for stride, name in zip(self.log[:1].contiguous().stride()[1:], self.parents, strict=True):
            if name in tuples:
                out += stride * tuples[name]
        return out


def averages(cells: Gaussian, priors: Tensor) -> Gaussian:
    """Mean and variance [M, D] of a parent's part of the feature under priors [M, K]: those of the
    mixture of its cells. In float64, so that no rounding depends on the other mixtures."""
    centre, spread = cells[0].double(), cells[1].double()
    mean = priors.double() @ centre
    square = priors.double() @ (spread + centre.square())
    return mean.to(cells[0]), (square - mean.square()).clamp_min_(0).to(cells[0])
