"""Exact inference on any graph by sparse variable elimination; on one factor, LASS (Postolache et
al., AAAI 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..errors import PlanError
from ..graph import MixingGraph
from .base import AnyTable, Engine
from .cost import Cost, bp_cost, exact_cost, item_size, likelihood_bytes
from .elimination.cliques import Cliques
from .elimination.order import Bucket, buckets
from .elimination.passes import Elimination
from .joint import JointPlan, Kind
from .position import Position
from .ready import ready_tables, seen_tokens
from .report import Row, memory, report, size

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Exact(Engine):
    """Sums the latent sites out one by one, over those joint states alone that the tables allow.

    Exact on every graph, cycles included, in the order of opt_einsum or of minimal fill; no step
    works on more than the joint states of one clique. With exact support only the cells that were
    counted are visited, as in LASS. memory_limit: bytes that a list of joint states may take; a
    graph that needs more is refused with the number. Lists that were made are kept within the same
    limit.
    """

    memory_limit: float = 4e9

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> ExactPlan:
        return ExactPlan(self, graph, tables)

    def is_exact(self, graph: MixingGraph) -> bool:
        return True


class ExactPlan(JointPlan):
    """Order of elimination, and the states of each step. `print(plan)` shows both."""

    engine: Exact

    def __init__(self, engine: Exact, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> None:
        self.engine, self.graph = engine, graph
        self.tables, self.sizes = ready_tables(graph, graph.factors, tables)
        self.seen = seen_tokens(graph, graph.factors, self.tables)
        self.buckets = buckets(graph, self.sizes)
        self._cliques = Cliques(
            graph, self.tables, self.buckets, self.sizes, self._allow, engine.memory_limit
        )
        if all(name in self.sizes for name in graph.latent):  # else the priors will say
            for number in range(len(self.buckets)):  # fails here, not amid a separation
                self._cliques.states(number, self._cliques.frequent, _CPU)

    @property
    def cost(self) -> Cost:
        """Over the states that are possible given the most frequent tokens, or over all of them
        where an alphabet is not known before its prior. The lists of other tokens, which are kept
        for the next time, take up to the engine's `memory_limit` more."""
        dense = exact_cost(self.graph, self.sizes)
        if self._unknown():
            return dense
        rows = self._rows()
        most = max(row.size for row in rows)
        return Cost(
            sum(row.operations for row in rows),
            most,
            mixture=2 * sum(row.holds for row in rows) + likelihood_bytes(self.graph, self.sizes),
            candidate=dense.candidate + sum(row.needs for row in rows),
            block=2.0 * item_size(self.graph) * most,
        )

    def _unknown(self) -> list[str]:
        return [name for name in self.graph.latent if name not in self.sizes]

    def run(self, position: Position, kind: Kind) -> Elimination:
        self._cliques.sizes = self.sizes  # by now it has that of a source that no table mentions
        return Elimination(self._cliques, position, kind)

    def kind(self, position: Position) -> Kind:
        return "linear"

    def _rows(self) -> list[Row]:
        tokens, item, rows = self._cliques.frequent, item_size(self.graph), []
        for number, bucket in enumerate(self.buckets):
            states, dense = self._cliques.states(number, tokens, _CPU), bucket.states(self.sizes)
            operations = len(states) / dense * bucket.operations(self.sizes)
            rows.append(
                Row(
                    str(number + 1), (bucket.site,), bucket.clique, len(states), dense, operations,
                    states.bytes, float(item * len(states.lengths)), self._how(bucket),
                )
            )  # fmt: skip
        return rows

    def __str__(self) -> str:
        title = f"{self.engine!r} on {self.graph.name}: variable elimination, exact"
        if missing := self._unknown():
            return f"{title}; the alphabet of {', '.join(missing)} is not known before its prior"
        given = ", ".join(
            f"{name}={token}"
            for name, token in zip(self.graph.known, self._cliques.frequent, strict=True)
        )
        note = f"states given the most frequent tokens, {given}" if given else "states possible"
        limit = size(self.engine.memory_limit)
        return report(
            title, self._rows(), [f"{note}; lists of up to {limit} are kept", memory(self.cost)]
        )

    def _how(self, bucket: Bucket) -> str:
        parts = [f"p({name})" for name in bucket.factors]
        for name in bucket.factors:
            factor = next(factor for factor in self.graph.factors if factor.name == name)
            parts[bucket.factors.index(name)] = f"p({name} | {', '.join(factor.parents)})"
        parts += [f"step {child + 1}" for child in bucket.children]
        return " x ".join(parts) or "its prior alone"

    def _allow(self, states: float, sites: tuple[str, ...]) -> None:
        needed = states * 8.0 * (len(sites) + 2)
        if needed <= self.engine.memory_limit:
            return
        if not self.graph.is_tree:
            hint = "LoopyBP() needs no such list, and approximates."
        elif len(self.graph.factors) > 1:
            need = bp_cost(self.graph, self.sizes).states
            hint = f"BP() needs {need:.1e} numbers and is exact here: the graph is a tree."
        else:
            hint = "Count a chain and use BP()."
        raise PlanError(
            f"Exact() on '{self.graph.name}' needs {states:.1e} joint states "
            f"({needed / 1e9:.3g} GB); the limit is {self.engine.memory_limit / 1e9:.3g} GB "
            f"(Exact(memory_limit=...)). They are those of {', '.join(sites)}. {hint}"
        )
