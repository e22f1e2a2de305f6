"""The engine that picks an engine, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import OptionError, PlanError
from ..graph import MixingGraph
from .base import AnyTable, Engine, Plan, Posterior
from .bp import BP
from .cost import Cost, exact_cost
from .exact import Exact
from .loopy import LoopyBP
from .position import Position


@dataclass(frozen=True)
class Choice:
    """engine: what was picked. reason: why, in one sentence."""

    engine: Engine
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Auto(Engine):
    """`BP` where the graph is a tree, else `Exact` where it can be afforded, else `LoopyBP`.

    memory_limit: bytes that `Exact` may take. operations_limit: multiplications that it may take
    for one token of one candidate (1e9 are some ten milliseconds on one core). A plan has the
    `choice` that was made, and prints it.
    """

    memory_limit: float = 4e9
    operations_limit: float = 1e9

    def __post_init__(self) -> None:
        for name in ("memory_limit", "operations_limit"):
            if not getattr(self, name) > 0:
                raise OptionError(
                    f"Auto({name}=...) must be positive, got {getattr(self, name)!r}."
                )

    def __str__(self) -> str:
        return (
            f"{self!r}: BP() where the graph is a tree; else Exact() within "
            f"{self.memory_limit / 1e9:.3g} GB and {self.operations_limit:.0e} operations a token; "
            "else LoopyBP(). Auto().select(graph, tables) tells which, and why."
        )

    def select(self, graph: MixingGraph, tables: Mapping[str, AnyTable] | None = None) -> Choice:
        """The engine for a graph. Without tables all cells count as possible, and an alphabet that
        is not declared as 256 tokens. Raises TableError as a plan does."""
        return self._pick(graph, tables)[0]

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> AutoPlan:
        choice, plan = self._pick(graph, tables)
        return AutoPlan(self, choice, plan or choice.engine.plan(graph, tables))

    def is_exact(self, graph: MixingGraph) -> bool:
        """True on trees. Elsewhere it depends on the tables, and `posterior.exact` tells."""
        return graph.is_tree

    def _pick(
        self, graph: MixingGraph, tables: Mapping[str, AnyTable] | None
    ) -> tuple[Choice, Plan | None]:
        """The choice, and its plan where that had to be made."""
        if (cycle := graph.cycle()) is None:
            reason = f"BP(), since '{graph.name}' is a tree, on which one pass is exact."
            return Choice(BP(), reason), None
        loop = f"since '{graph.name}' has the cycle {' - '.join([*cycle, cycle[0]])}"
        exact, plan = Exact(memory_limit=self.memory_limit), None
        if tables is None:
            cost = _dense(graph)
        else:
            try:
                plan = exact.plan(graph, tables)
            except PlanError as error:
                why = str(error).split(". ")[0]
                return Choice(LoopyBP(), f"LoopyBP(), {loop}, and {why}."), None
            known = all(name in plan.sizes for name in graph.latent)
            cost = plan.sparse_cost if known else _dense(graph)
        if cost.states * 8 > self.memory_limit or cost.operations > self.operations_limit:
            why = f"Exact() would need {cost}, more than is allowed"
            return Choice(LoopyBP(), f"LoopyBP(), {loop}, and {why}."), None
        return Choice(exact, f"Exact(), {loop}, and takes about {cost}."), plan


def _dense(graph: MixingGraph) -> Cost:
    """Cost of variable elimination, were all cells possible."""
    return exact_cost(graph, graph.alphabets(256))


class AutoPlan(Plan):
    """The plan of the engine that was picked. `print(plan)` tells which, and why."""

    def __init__(self, engine: Auto, choice: Choice, plan: Plan) -> None:
        self.engine, self.choice, self.picked = engine, choice, plan
        self.graph, self.tables, self.sizes, self.seen = (
            plan.graph, plan.tables, plan.sizes, plan.seen
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.choice}\n{self.picked}"

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> Posterior:
        return self.picked.posterior(log_priors, evidence)

    def position(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> Position:
        return self.picked.position(log_priors, evidence)
