"""Independent extractors: MLASS-PE (Scarcelli, 2024), with p(m | z) normalised over m."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EngineError
from ..graph import Factor, MixingGraph
from ..tables.table import Table
from .algebra import log_sum
from .base import Engine, Plan, Posterior, check_inputs, check_tables, observed_seen
from .random import Random, draw, uniforms


@dataclass(frozen=True)
class Extractor(Engine):
    """p(z^i | m) proportional to p_i(z^i) p(m | z^i), each source on its own: O(n K) a token.

    An approximation: the sources are independent given the mixture, so its samples are products of
    marginals, and its log evidence is the sum over the sources of log p(m | past of source i), a
    pseudo-evidence. It needs the tables p(m | z^i), averaged over all other sources; on star(n)
    they are the graph's own, and there it is exact.
    """

    def factors(self, graph: MixingGraph) -> tuple[Factor, ...]:
        if all(len(f.parents) == 1 and f.child in graph.observed for f in graph.factors):
            return graph.factors
        return tuple(
            Factor(child, (source,), f"{child}|{source}")
            for child in graph.observed
            for source in graph.leaf_weights(child)
        )

    def plan(self, graph: MixingGraph, tables: Mapping[str, Table]) -> ExtractorPlan:
        return ExtractorPlan(self, graph, tables)


class ExtractorPlan(Plan):
    """The logarithms of p(m | z^i), child first."""

    def __init__(self, engine: Extractor, graph: MixingGraph, tables: Mapping[str, Table]) -> None:
        self.engine, self.graph = engine, graph
        self.factors = engine.factors(graph)
        for factor in self.factors:
            if factor.parents[0] not in graph.sources:
                raise EngineError(
                    f"Extractor() reads tables p(mixture | source); '{factor.name}' is given "
                    f"'{factor.parents[0]}', a partial mixture."
                )
        self.sizes = check_tables(graph, self.factors, tables)
        self.tables = {factor.name: tables[factor.name] for factor in self.factors}
        self.seen = observed_seen(graph, self.factors, self.tables)
        self._log = {name: table.dense().T.log() for name, table in self.tables.items()}

    def __str__(self) -> str:
        return f"{self.engine!r} on {self.graph.name}: {len(self.factors)} tables"

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> ExtractorPosterior:
        shape = check_inputs(self.graph, self.sizes, self.seen, log_priors, evidence)
        scores = {name: log_priors[name] for name in self.graph.sources}
        for factor in self.factors:
            source = factor.parents[0]
            like = scores[source]
            rows = self._log[factor.name].to(like)[evidence[factor.child]]
            scores[source] = like + rows[:, None]
        return ExtractorPosterior(shape, scores)


class ExtractorPosterior(Posterior):
    def __init__(self, shape: tuple[int, int], scores: dict[str, Tensor]) -> None:
        self._shape, self._scores = shape, scores
        self._totals = {name: log_sum(score) for name, score in scores.items()}
        self.log_evidence = torch.stack(list(self._totals.values())).sum(0)

    def marginals(self) -> dict[str, Tensor]:
        possible = (self.log_evidence > float("-inf"))[..., None]
        out = {}
        for name, score in self._scores.items():
            total = torch.where(possible[..., 0], self._totals[name], 0.0)
            out[name] = torch.where(possible, (score - total[..., None]).exp(), 0.0)
        return out

    def sample(self, random: Random) -> dict[str, Tensor]:
        uniform = uniforms(random, *self._shape, len(self._scores))
        return {
            name: draw(
                weights.flatten(0, 1), uniform[..., place].flatten().to(weights.device)
            ).reshape(self._shape)
            for place, (name, weights) in enumerate(self.marginals().items())
        }

    def mode(self) -> dict[str, Tensor]:
        possible = self.log_evidence > float("-inf")
        return {
            name: torch.where(possible, score.argmax(-1), -1)
            for name, score in self._scores.items()
        }
