"""The engine that does not listen: sources drawn from their priors, whatever the mixture says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EngineError
from ..graph import Factor, MixingGraph
from ..infer.base import AnyTable, Engine, Plan, Posterior
from ..infer.position import Position
from ..infer.random import Random, draw, uniforms


@dataclass(frozen=True)
class PriorOnly(Engine):
    """Ignores the evidence, so that a row shows what choosing the nearest candidate (and refining
    it) does without any likelihood. Needs no table; takes graphs whose latent sites are sources
    alone, such as `star(n)` and `joint(n)`."""

    def factors(self, graph: MixingGraph) -> tuple[Factor, ...]:
        return ()

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> Plan:
        if partial := [name for name in graph.latent if name not in graph.sources]:
            raise EngineError(
                f"PriorOnly() draws sources alone, but {partial} of '{graph.name}' are latent "
                f"mixtures. Use it on joint({len(graph.sources)})."
            )
        return _PriorPlan(self, graph, tables)


class _PriorPlan(Plan):
    def __init__(
        self, engine: PriorOnly, graph: MixingGraph, tables: Mapping[str, AnyTable]
    ) -> None:
        self.engine, self.graph, self.tables = engine, graph, tables
        self.sizes = graph.alphabets()
        self.seen: dict[str, Tensor] = {}  # it rules nothing out

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> Posterior:
        some = {name: log_priors[name] for name in self.graph.latent}
        mixtures, candidates, _ = next(iter(some.values())).shape
        unary = {name: log.flatten(0, 1) for name, log in some.items()}
        rows = torch.arange(mixtures).repeat_interleave(candidates)
        return _PriorPosterior(self, Position((mixtures, candidates), rows, unary, {}, {}), some)


class _PriorPosterior(Posterior):
    def __init__(
        self, plan: _PriorPlan, position: Position, log_priors: Mapping[str, Tensor]
    ) -> None:
        super().__init__(plan, position)
        self._log_priors = log_priors
        self.log_evidence = torch.zeros_like(next(iter(log_priors.values()))[..., 0])

    def sample(self, random: Random) -> dict[str, Tensor]:
        mixtures, candidates = self.log_evidence.shape
        numbers = uniforms(random, mixtures, candidates, len(self._log_priors))
        return {
            name: draw(weights.flatten(0, 1), uniform.flatten()).view(mixtures, candidates)
            for (name, weights), uniform in zip(
                self.marginals().items(), numbers.unbind(2), strict=True
            )
        }

    def marginals(self) -> dict[str, Tensor]:
        return {name: log_prior.exp() for name, log_prior in self._log_priors.items()}

    def mode(self) -> dict[str, Tensor]:
        return {name: log_prior.argmax(2) for name, log_prior in self._log_priors.items()}
