"""Independent extractors: MLASS-PE (Scarcelli, 2024), with p(m | z) normalised over m."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import EngineError
from ..graph import Factor, MixingGraph
from ..tables.feature import FeatureTable
from ..tables.table import Table
from .algebra import log_sum
from .base import AnyTable, Engine, Plan, Posterior
from .cost import Cost, extractor_cost
from .position import Position, log_likelihood
from .random import Random, draw, uniforms
from .ready import ready_tables, seen_tokens
from .report import memory


@dataclass(frozen=True)
class Extractor(Engine):
    """p(z^i | m) proportional to p_i(z^i) p(m | z^i), each source on its own: O(n K) a token.

    An approximation: the sources are independent given the mixture, so its samples are products of
    marginals, and its log evidence is the sum over the sources of log p(m | past of source i), a
    pseudo-evidence. It needs the tables p(m | z^i), averaged over all other sources; on star(n)
    they are the graph's own, and there it is exact. It answers for the sources alone.
    """

    def factors(self, graph: MixingGraph) -> tuple[Factor, ...]:
        if _is_star(graph):
            return graph.factors
        return tuple(
            graph.factor(child, (source,), f"{child}|{source}")
            for child in graph.observed
            for source in graph.leaf_weights(child)
        )

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> ExtractorPlan:
        return ExtractorPlan(self, graph, tables)

    def is_exact(self, graph: MixingGraph) -> bool:
        return _is_star(graph) and all(f.parents[0] in graph.sources for f in graph.factors)


def _is_star(graph: MixingGraph) -> bool:
    return all(len(f.parents) == 1 and f.child in graph.observed for f in graph.factors)


class ExtractorPlan(Plan):
    """The logarithms of p(m | z^i), child first."""

    def __init__(
        self, engine: Extractor, graph: MixingGraph, tables: Mapping[str, AnyTable]
    ) -> None:
        self.engine, self.graph = engine, graph
        self.factors = engine.factors(graph)
        for factor in self.factors:
            if factor.parents[0] not in graph.sources:
                raise EngineError(
                    f"Extractor() reads tables p(mixture | source); '{factor.name}' is given "
                    f"'{factor.parents[0]}', a partial mixture."
                )
        self.tables, self.sizes = ready_tables(graph, self.factors, tables)
        self.seen = seen_tokens(graph, self.factors, self.tables)
        self._log = {
            name: table.dense().T.log()
            for name, table in self.tables.items()
            if isinstance(table, Table)
        }

    @property
    def cost(self) -> Cost:
        held = sum(log.nbytes for log in self._log.values())
        held += sum(t.nbytes for t in self.tables.values() if isinstance(t, FeatureTable))
        return replace(extractor_cost(self.graph, self.sizes), held=float(held))

    def __str__(self) -> str:
        return (
            f"{self.engine!r} on {self.graph.name}: {len(self.factors)} tables, {self.cost}\n"
            f"  {memory(self.cost)}"
        )

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> ExtractorPosterior:
        position = self.position(log_priors, evidence)
        scores = {
            name: position.unary[name].unflatten(0, position.shape) for name in self.graph.sources
        }
        for factor in self.factors:
            source = factor.parents[0]
            log = self._likelihood(factor, evidence[factor.child], position.shape[0])
            log = log.to(scores[source])
            scores[source] = scores[source] + log[:, None]
        return ExtractorPosterior(self, position, scores)

    def _likelihood(self, factor: Factor, given: Tensor, mixtures: int) -> Tensor:
        """log p(evidence | source) [M, K_source]."""
        table = self.tables[factor.name]
        if isinstance(table, FeatureTable):
            return log_likelihood(factor.child, table, given, mixtures)
        log = self._log[factor.name]
        if factor.child in self.graph.known:
            return log[given.cpu()]
        return log_sum(log.T + given.double().cpu()[:, None])  # over the weighted tokens


class ExtractorPosterior(Posterior):
    def __init__(self, plan: ExtractorPlan, position: Position, scores: dict[str, Tensor]) -> None:
        super().__init__(plan, position)
        self._plan, self._scores = plan, scores
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
        shape = self.position.shape
        uniform = uniforms(random, *shape, len(self._scores))
        return {
            name: draw(
                weights.flatten(0, 1), uniform[..., place].flatten().to(weights.device)
            ).reshape(shape)
            for place, (name, weights) in enumerate(self.marginals().items())
        }

    def mode(self) -> dict[str, Tensor]:
        possible = self.log_evidence > float("-inf")
        return {
            name: torch.where(possible, score.argmax(-1), -1)
            for name, score in self._scores.items()
        }

    def of(self, parents: Tensor) -> ExtractorPosterior:
        scores = {
            name: score.gather(1, parents[..., None].expand(-1, -1, score.shape[2]))
            for name, score in self._scores.items()
        }
        return ExtractorPosterior(self._plan, self.position.of(parents), scores)

    def pairwise(self, first: str, second: str) -> Tensor:
        """The product of the marginals: the sources are independent in this model."""
        marginals = self.marginals()
        for name in (first, second):
            if name not in marginals:
                raise EngineError(
                    f"Extractor() answers for the sources {list(marginals)}, not '{name}'."
                )
        if first == second:
            return marginals[first].diag_embed()
        return marginals[first][..., :, None] * marginals[second][..., None, :]
