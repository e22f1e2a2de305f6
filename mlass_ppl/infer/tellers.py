"""What one observed site says of tokens of some of the sources, in one mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..tables.linear import LinearGaussianTable

Tokens = Mapping[str, Tensor]
"""Tuples of tokens: {source: int64 [T]}; of no sources, the one empty tuple."""

Gaussian = tuple[Tensor, Tensor]
"""Means and variances."""


class Teller(Protocol):
    """An observed site whose parents are sources."""

    def fit(self, tuples: Tokens) -> Tensor:
        """How well the feature is met by each tuple, the other parents following their average
        priors: nats [T], approximate, to rank by."""
        ...

    def pairs(self, first: Tokens, second: Tokens) -> Tensor:
        """log p(feature | parents) of the A x B unions of tuples of two groups that hold all of
        the sources, nats [A, B]."""
        ...


@dataclass(frozen=True)
class Adding:
    """A site whose parents' means and variances add up: only what is asked for is computed.

    feature: [D]. cells: centres and spreads of each parent's part of the feature, along the table's
    axes, [K, D] each, in the type of the densities. average: mean and variance [D] of each part
    under the parent's average prior.
    """

    table: LinearGaussianTable
    feature: Tensor
    cells: Mapping[str, Gaussian]
    average: Mapping[str, Gaussian]

    def fit(self, tuples: Tokens) -> Tensor:
        centre, spread = self._sums(tuples)
        for name, (mean, variance) in self.average.items():
            if name not in tuples:
                centre += mean
                spread += variance
        y = (self.feature.to(self.table.axes) @ self.table.axes).to(centre)
        spread += self.table.noise
        terms = (y - centre).square_().div_(spread).add_(spread.log())
        return terms.sum(1).mul_(-0.5 * self.table.power)

    def pairs(self, first: Tokens, second: Tokens) -> Tensor:
        (mine, my_spread), (other, its_spread) = self._sums(first), self._sums(second)
        return self.table.log_density(
            self.feature,
            (mine.T.contiguous(), my_spread.T.contiguous()),
            (other.T.contiguous(), its_spread.T.contiguous()),
        )

    def _sums(self, tuples: Tokens) -> Gaussian:
        """Centres and spreads [T, D] of the sums over a tuple's tokens."""
        count = next((len(tokens) for tokens in tuples.values()), 1)
        some = next(iter(self.cells.values()))[0]
        centre, spread = some.new_zeros(count, some.shape[1]), some.new_zeros(count, some.shape[1])
        for name, tokens in tuples.items():
            if name in self.cells:
                centre += self.cells[name][0].index_select(0, tokens)
                spread += self.cells[name][1].index_select(0, tokens)
        return centre, spread


@dataclass(frozen=True)
class Listing:
    """A site whose density of every configuration is at hand.

    log: nats [K_parent1, ..., K_parentr]. average: the average prior of each parent, [K].
    """

    parents: tuple[str, ...]
    log: Tensor
    average: Mapping[str, Tensor]
    _messages: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def fit(self, tuples: Tokens) -> Tensor:
        own = tuple(name for name in self.parents if name in tuples)
        if own not in self._messages:
            top = self.log.amax().clamp_min(torch.finfo(self.log.dtype).min)
            message = (self.log - top).exp()
            for place in reversed(range(len(self.parents))):
                if (name := self.parents[place]) not in own:
                    weight = self.average[name].to(message)
                    message = torch.tensordot(message, weight, ([place], [0]))
            tiny = torch.finfo(message.dtype).tiny
            self._messages[own] = message.clamp_min(tiny).log()
        message = self._messages[own]
        if not own:
            return message.reshape(1)
        return message[tuple(tuples[name] for name in own)]

    def pairs(self, first: Tokens, second: Tokens) -> Tensor:
        place = self._places(first)[:, None] + self._places(second)
        return self.log.flatten()[place]

    def _places(self, tuples: Tokens) -> Tensor:
        """What the tokens of a group add to the place in the flat array, int64 [T]."""
        count = next((len(tokens) for tokens in tuples.values()), 1)
        out = torch.zeros(count, dtype=torch.int64, device=self.log.device)
        for stride, name in zip(self.log.contiguous().stride(), self.parents, strict=True):
            if name in tuples:
                out += stride * tuples[name]
        return out


def averages(cells: Gaussian, priors: Tensor) -> Gaussian:
    """Mean and variance [M, D] of a parent's part of the feature under priors [M, K]: those of the
    mixture of its cells."""
    centre, spread = cells
    mean = priors.to(centre) @ centre
    square = priors.to(centre) @ (spread + centre.square())
    return mean, (square - mean.square()).clamp_min_(0)
