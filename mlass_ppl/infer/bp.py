"""Belief propagation on trees of mixtures: MLASS-BP (Scarcelli, 2024), made exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor

from ..errors import OptionError
from ..graph import MixingGraph
from ..tables.table import Table
from .base import AnyTable, Engine
from .cost import Cost, bp_cost
from .joint import JointPosterior, Kind
from .messages.passes import MessagePass
from .messages.plan import MessagePlan
from .messages.schedule import schedule
from .position import Position
from .random import Random, draw, uniforms
from .report import Row, report


@dataclass(frozen=True)
class BP(Engine):
    """Sum-product on the tree of sources and partial mixtures: exact, O((n - 1) K^3) a token.

    draw: "joint" samples all sources together by backward sampling; "marginals" samples each site
    from its own marginal, the paper's variant, which is no posterior sample (about half of its
    tuples are impossible under exact support). dense_limit: tables of up to this many bytes are
    held dense; larger ones are contracted over the cells that were seen, smoothed ones over all
    cells in logarithms.

    Refuses a graph with a cycle by naming it.
    """

    draw: Literal["joint", "marginals"] = "joint"
    dense_limit: float = 2**28

    def __post_init__(self) -> None:
        if self.draw not in ("joint", "marginals"):
            raise OptionError(f"BP(draw=...) is 'joint' or 'marginals', got {self.draw!r}.")

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> BPPlan:
        return BPPlan(self, graph, tables)

    def is_exact(self, graph: MixingGraph) -> bool:
        return self.draw == "joint" and graph.is_tree


class BPPlan(MessagePlan):
    """Schedule and kernels of BP on one graph. `print(plan)` tells its cost."""

    engine: BP

    def __init__(self, engine: BP, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> None:
        self.schedule = schedule(graph, graph.factors)  # a cycle is said before a missing table
        super().__init__(engine, graph, tables, engine.dense_limit)

    @property
    def cost(self) -> Cost:
        return bp_cost(self.graph, self.sizes)

    def __str__(self) -> str:
        title = f"{self.engine!r} on {self.graph.name}: messages from the leaves up, exact"
        rows = []
        for number, step in enumerate(self.schedule.upward):
            scope = (step.target, *step.others)
            dense = prod(float(self.sizes.get(name, 1)) for name in scope)
            table = self.tables[step.factor.name]
            kind = self._kind_of(step.factor.name, bool(step.given))
            if kind == "dense" or not isinstance(table, Table):
                seen = dense
            else:
                seen = table.density * dense
            how = f"p({step.factor.name} | {', '.join(step.factor.parents)}), {kind}"
            rows.append(Row(str(number + 1), step.others, scope, seen, dense, seen, how))
        note = f"roots {', '.join(self.schedule.roots)}: joint samples are drawn from there down"
        return report(title, rows, [note])

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> BPPosterior:
        return BPPosterior(self, self.position(log_priors, evidence))

    def run(self, position: Position, kind: Kind) -> MessagePass:
        algebra, kernels, scale = self.kernels(position, kind)
        return MessagePass(self.schedule, kernels, algebra, position, self.sizes, scale)


class BPPosterior(JointPosterior):
    """Runs in linear space where every table is dense, and again in logarithms for the rows that
    came near underflow there."""

    _plan: BPPlan
    _pass: MessagePass

    def sample(self, random: Random) -> dict[str, Tensor]:
        if self._plan.engine.draw == "joint":
            return super().sample(random)
        latent, shape = self.graph.latent, self.position.shape
        uniform = uniforms(random, *shape, len(latent)).flatten(0, 1).to(self.log_evidence.device)
        marginals = self.marginals()
        tokens = {
            name: draw(marginals[name].flatten(0, 1), uniform[:, place])
            for place, name in enumerate(latent)
        }
        return self._shaped(tokens, self._possible)

    def messages(self) -> dict[tuple[str, str], Tensor]:
        """Messages by (factor, site), each row scaled to sum 1: {...: [M, C, K]}."""
        self._pass.marginals()
        out = {key: self._pass.normalised(key) for key in self._pass.sent()}
        if len(rows := self._weak()):
            again = self._again(rows)
            assert isinstance(again, MessagePass)
            again.marginals()
            for key in again.sent():
                out[key][rows] = again.normalised(key).to(out[key])
        return {key: value.unflatten(0, self.position.shape) for key, value in out.items()}
