"""Random tables, priors and evidence from one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ..graph import Factor, MixingGraph
from ..tables.counts import Counts
from ..tables.gaussian import GaussianTable
from ..tables.linear import LinearGaussianTable
from ..tables.table import Table

if TYPE_CHECKING:
    from ..infer.base import AnyTable
    from ..tables.smoothing import Additive, BackOff

_T = TypeVar("_T")


class Draws:
    """A stream of random numbers and what problems are made of."""

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._widths: dict[str, int] = {}

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._random, dtype=torch.float64)

    def integer(self, size: int) -> int:
        return int(torch.randint(size, (), generator=self._random))

    def shuffled(self, items: Sequence[_T]) -> list[_T]:
        return [items[i] for i in torch.randperm(len(items), generator=self._random).tolist()]

    def log_weights(self, shape: tuple[int, ...], depth: float, zeros: float) -> Tensor:
        """Logarithms that differ by up to `depth` nats, a share of them -inf."""
        log = -depth * self.uniform(*shape)
        return log.masked_fill(self.uniform(*shape) < zeros, float("-inf"))

    def table(
        self,
        factor: Factor,
        sizes: Mapping[str, int],
        density: float,
        smoothing: Additive | BackOff | None,
    ) -> AnyTable:
        parents = [sizes[name] for name in factor.parents]
        if factor.linear:
            return self._linear(factor.child, parents)
        if factor.feature:
            return self._gaussian(factor.child, parents, density)
        shape = [*parents, sizes[factor.child]]
        counts = (1000 ** self.uniform(*shape)).long() * (self.uniform(*shape) < density)
        counts.view(-1)[0] += not counts.any()
        return Table.from_counts(Counts.from_dense(counts), smoothing)

    def _gaussian(self, child: str, parents: list[int], density: float) -> GaussianTable:
        width = self._widths.setdefault(child, 1 + self.integer(3))
        mean = 6 * self.uniform(*parents, width) - 3
        std = 0.1 + 2 * self.uniform(*parents, width)
        possible = self.uniform(*parents) < density
        possible.view(-1)[0] |= not possible.any()
        return GaussianTable.from_arrays(mean, std, possible=possible)

    def _linear(self, child: str, parents: list[int]) -> LinearGaussianTable:
        """Cells of any shape, some of no width at all; full or diagonal."""
        width = self._widths.setdefault(child, 1 + self.integer(3))
        means = tuple(6 * self.uniform(size, width) - 3 for size in parents)
        roots = [self.uniform(size, width, width) - 0.5 for size in parents]
        covariances = tuple(
            root @ root.mT * self.uniform(len(root), 1, 1).round() for root in roots
        )
        axes = torch.linalg.qr(self.uniform(width, width) - 0.5)[0]
        noise = 0.01 + float(self.uniform())
        return LinearGaussianTable(means, covariances, noise, axes, self.integer(2) == 1)

    def evidence(
        self,
        graph: MixingGraph,
        tables: Mapping[str, AnyTable],
        log_priors: Mapping[str, Tensor],
        depth: float,
        zeros: float,
    ) -> dict[str, Tensor]:
        """Evidence of each mixture: most of it simulated from its first candidate's priors, as far
        as the tables have rows, some of it by chance."""
        seen = {name: self._seen(name, graph, tables) for name in graph.known}
        rows = []
        for mixture in range(len(next(iter(log_priors.values())))):
            first = {name: log[mixture, 0] for name, log in log_priors.items()}
            tokens, features = self._simulate(graph, tables, first)
            row = dict(features)
            for name in graph.known:
                keep = seen[name][tokens[name]] and self.integer(4)
                chance = seen[name].nonzero()[self.integer(int(seen[name].sum()))][0]
                row[name] = torch.tensor(tokens[name]) if keep else chance
            for name in graph.soft:
                table = tables[name]
                assert isinstance(table, Table)
                row[name] = self.log_weights((table.alphabet,), depth, zeros)
                if self.integer(4):
                    row[name][tokens[name]] = 0.0
            rows.append(row)
        return {name: torch.stack([row[name] for row in rows]) for name in graph.observed}

    def _simulate(
        self,
        graph: MixingGraph,
        tables: Mapping[str, AnyTable],
        log_priors: Mapping[str, Tensor],
    ) -> tuple[dict[str, int], dict[str, Tensor]]:
        tokens = {name: self._pick(log.exp()) for name, log in log_priors.items()}
        features = {}
        for factor in graph.factors:
            table = tables[factor.name]
            config = tuple(tokens[name] for name in factor.parents)
            if isinstance(table, GaussianTable | LinearGaussianTable):
                noise = 2 * self.uniform(table.width) - 1
                far = 0.0 if self.integer(5) else 30.0
                if isinstance(table, GaussianTable):
                    near = table.mean[config] + table.std[config] * noise
                else:
                    mean, covariance = table.gaussian(*config)
                    near = mean + torch.linalg.cholesky(covariance) @ noise
                features[factor.child] = near + far
            else:
                assert isinstance(table, Table)
                tokens[factor.child] = self._pick(table.dense()[config])
        return tokens, features

    def _pick(self, weights: Tensor) -> int:
        """A token of positive weight, or any where there is none."""
        usable = weights if weights.sum() > 0 else torch.ones_like(weights)
        return int(torch.multinomial(usable, 1, generator=self._random))

    @staticmethod
    def _seen(name: str, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> Tensor:
        """Tokens that all tables of a site know: its own, and an engine's others ("m|source")."""
        seen = [
            table.seen()
            for key, table in tables.items()
            if isinstance(table, Table) and key.partition("|")[0] == name
        ]
        return torch.stack(seen).all(0)
