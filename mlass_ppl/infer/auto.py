"""The engine that picks an engine, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import OptionError, PlanError
from ..graph import MixingGraph
from ..tables.feature import FeatureTable
from .base import AnyTable, Engine, Plan, Posterior
from .bp import BP
from .cost import Cost, bp_cost, exact_cost
from .exact import Exact
from .flat import KEEP, refusal
from .loopy import LoopyBP
from .position import Position
from .report import number, size
from .truncated import Truncated

_STATES = 1 << 17


@dataclass(frozen=True)
class Choice:
    """engine: what was picked. reason: why, in one sentence."""

    engine: Engine
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Auto(Engine):
    """`BP` where the graph is a tree, else `Exact` where it can be afforded, else `LoopyBP`; where
    the sources are directly under features, `Truncated` instead of what cannot be afforded.

    memory_limit: bytes that `Exact` may take. operations_limit: multiplications that it may take
    for one token of one candidate (1e9 are some ten milliseconds on one core). A likelihood of more
    than 2^17 joint states, which features have anew for each mixture, is never multiplied out.
    keep: of `Truncated`. A plan has the `choice` that was made, and prints it.
    """

    memory_limit: float = 4e9
    operations_limit: float = 1e9
    keep: int = KEEP

    def __post_init__(self) -> None:
        Truncated(self.keep)  # checks it
        for name in ("memory_limit", "operations_limit"):
            if not getattr(self, name) > 0:
                raise OptionError(
                    f"Auto({name}=...) must be positive, got {getattr(self, name)!r}."
                )

    def __str__(self) -> str:
        return (
            f"{self!r}: BP() where the graph is a tree; else Exact() within "
            f"{self.memory_limit / 1e9:.3g} GB and {self.operations_limit:.0e} operations a token; "
            "else LoopyBP(); Truncated() for many sources directly under features. "
            "Auto().select(graph, tables) tells which, and why."
        )

    def select(self, graph: MixingGraph, tables: Mapping[str, AnyTable] | None = None) -> Choice:
        """The engine for a graph. Without tables all cells count as possible, and an alphabet that
        is not declared as 256 tokens. Raises TableError as a plan does."""
        return self._pick(graph, tables)[0]

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> AutoPlan:
        choice, plan = self._pick(graph, tables)
        return AutoPlan(self, choice, plan or choice.engine.plan(graph, tables))

    def is_exact(self, graph: MixingGraph) -> bool:
        """True on trees, if those with several sources directly under a feature have their
        alphabets declared, and few. Elsewhere it depends on the tables: `posterior.exact` tells."""
        if not graph.is_tree:
            return False
        if not _is_flat(graph):
            return True
        sizes = graph.alphabets()
        return all(name in sizes for name in graph.latent) and _states(graph, sizes) <= _STATES

    def _pick(
        self, graph: MixingGraph, tables: Mapping[str, AnyTable] | None
    ) -> tuple[Choice, Plan | None]:
        """The choice, and its plan where that had to be made."""
        flat = _is_flat(graph)
        if flat and (states := _states(graph, _sizes(graph, tables))) > _STATES:
            few = f"of whose {number(states)} joint states it takes the promising ones"
            return self._truncated(graph, few), None
        if (cycle := graph.cycle()) is None:
            reason = f"BP(), since '{graph.name}' is a tree, on which one pass is exact."
            return Choice(BP(), reason), None
        loop = f"since '{graph.name}' has the cycle {' - '.join([*cycle, cycle[0]])}"
        exact, plan = Exact(memory_limit=self.memory_limit), None
        why = ""
        if tables is None:
            cost = _dense(graph)
        else:
            try:
                plan = exact.plan(graph, tables)
            except PlanError as error:
                why = str(error).split(". ")[0]
            else:
                known = all(name in plan.sizes for name in graph.latent)
                cost = plan.cost if known else _dense(graph)
        if not why and cost.operations > self.operations_limit:
            why = f"Exact() would need {cost}, more than is allowed"
        if not why and cost.bytes() > self.memory_limit:
            why = f"Exact() would need {size(cost.bytes())}, more than is allowed"
        if why and flat:
            return self._truncated(graph, f"and {why}"), None
        if why:
            return Choice(LoopyBP(), f"LoopyBP(), {loop}, and {why}."), None
        return Choice(exact, f"Exact(), {loop}, and takes about {cost}."), plan

    def _truncated(self, graph: MixingGraph, why: str) -> Choice:
        sources = f"'{graph.name}' has {len(graph.sources)} sources directly under features"
        engine = Truncated(self.keep)
        name = "Truncated()" if engine == Truncated() else repr(engine)
        return Choice(engine, f"{name}, since {sources}, {why}.")


def _is_flat(graph: MixingGraph) -> bool:
    """Whether features have several sources, and nothing else, as their parents."""
    return refusal(graph) is None and any(len(factor.parents) > 1 for factor in graph.factors)


def _sizes(graph: MixingGraph, tables: Mapping[str, AnyTable] | None) -> dict[str, int]:
    """Alphabets, 256 where neither the graph nor a table says."""
    sizes = graph.alphabets(256)
    for factor in graph.factors:
        table = (tables or {}).get(factor.name)
        if isinstance(table, FeatureTable):
            sizes.update(zip(factor.parents, table.parents, strict=False))
    return sizes


def _states(graph: MixingGraph, sizes: Mapping[str, int]) -> float:
    """Joint states of the largest factor."""
    return bp_cost(graph, sizes).states


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

    @property
    def cost(self) -> Cost | None:
        """That of the engine that was picked."""
        return getattr(self.picked, "cost", None)

    def __str__(self) -> str:
        return f"{self.choice}\n{self.picked}"

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> Posterior:
        return self.picked.posterior(log_priors, evidence)

    def position(
        self,
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, Tensor],
        tables: Mapping[str, AnyTable] | None = None,
    ) -> Position:
        return self.picked.position(log_priors, evidence, tables)
