"""Loopy belief propagation: any graph, approximate where it has cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import OptionError
from ..graph import MixingGraph
from ..tables.table import Table
from .base import AnyTable, Engine
from .cost import Cost, item_size, kernel_bytes, loopy_cost
from .joint import Kind
from .messages.beliefs import LoopyPosterior
from .messages.flow import Flow
from .messages.loopy import LoopyPass, Setting
from .messages.plan import MessagePlan
from .messages.sweeps import Sweep, sweep
from .position import Position
from .report import memory


@dataclass(frozen=True)
class LoopyBP(Engine):
    """Sum-product on a graph with cycles (Pearl, 1988; Murphy, Weiss and Jordan, 1999): O(K^3) for
    each message, exact on trees, else an approximation that is good where cycles are long or weak.

    Messages are sent in sweeps, up and down a spanning tree, until none of their entries (the
    largest is 1) would change by `tolerance`, or for `max_steps` sweeps; a posterior tells
    `converged` and `steps` of each row, and warns once when some did not converge. damping: share
    of the old message in the new one, for messages on a cycle, in [0, 1); more is slower and
    steadier. dense_limit: as of `BP`.

    Log evidence is Bethe's approximation (Yedidia, Freeman and Weiss, "Constructing free-energy
    approximations and generalized belief propagation algorithms", IEEE Trans. Inf. Theory 51,
    2005). Samples are drawn by decimation, so that they are joint samples of positive probability,
    of a distribution near the posterior; modes by decimation of max-product. A row in which no
    joint assignment is found counts as impossible.

    Raises OptionError on a value out of range.
    """

    damping: float = 0.5
    tolerance: float = 1e-6
    max_steps: int = 200
    dense_limit: float = 2**28

    def __post_init__(self) -> None:
        if not 0 <= self.damping < 1:
            raise OptionError(f"LoopyBP(damping=...) lies in [0, 1), got {self.damping!r}.")
        if not 0 < self.tolerance < 1:
            raise OptionError(f"LoopyBP(tolerance=...) lies in (0, 1), got {self.tolerance!r}.")
        if not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise OptionError(
                f"LoopyBP(max_steps=...) is a whole number, at least 1, got {self.max_steps!r}."
            )

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> LoopyPlan:
        return LoopyPlan(self, graph, tables, self.dense_limit)

    def is_exact(self, graph: MixingGraph) -> bool:
        return graph.is_tree


class LoopyPlan(MessagePlan):
    """Sweeps and kernels of one graph. `print(plan)` tells its cost."""

    engine: LoopyBP

    def __init__(
        self,
        engine: LoopyBP,
        graph: MixingGraph,
        tables: Mapping[str, AnyTable],
        dense_limit: float,
    ) -> None:
        super().__init__(engine, graph, tables, dense_limit)
        self._sweeps: dict[frozenset[str], Sweep] = {}
        self._setting = Setting(engine.damping, engine.tolerance, engine.max_steps, self._sweep)

    @property
    def cost(self) -> Cost:
        """Of one step."""
        cost, item = loopy_cost(self.graph, self.sizes), item_size(self.graph)
        held = sum(
            kernel_bytes(table, self._kind_of(name) == "dense", item)
            for name, table in self.tables.items()
        )
        return replace(cost, held=held, block=item * cost.states)

    def __str__(self) -> str:
        return (
            f"{self.engine!r} on {self.graph.name}: {self.cost} for each of at most "
            f"{1 if self.graph.is_tree else self.engine.max_steps} steps; {self._kinds()}\n"
            f"  {memory(self.cost)}"
        )

    def _sweep(self, latent: frozenset[str]) -> Sweep:
        if latent not in self._sweeps:
            sites = [name for name in self.graph.latent if name in latent]
            self._sweeps[latent] = sweep(self.graph.factors, sites)
        return self._sweeps[latent]

    def is_positive(self, position: Position) -> bool:
        """Whether no factor has a zero, so that priors and soft evidence alone can make a row
        impossible; messages then prove it."""
        tables = (table for table in self.tables.values() if isinstance(table, Table))
        return all(map(_is_positive, tables)) and all(
            bool((log > float("-inf")).all()) for log in position.likelihood.values()
        )

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> LoopyPosterior:
        return LoopyPosterior(self, self.position(log_priors, evidence))

    def run(self, position: Position, kind: Kind) -> LoopyPass:
        algebra, kernels, scale = self.kernels(position, kind)
        unary = {}
        for name, log in position.unary.items():
            unary[name], top = algebra.lift(log)
            scale = scale + top
        latent = self._sweep(frozenset(self.graph.latent))
        flow = Flow(algebra, latent, self.sizes, kernels, unary, position.known, scale)
        return LoopyPass(self._setting, flow)


def _is_positive(table: Table) -> bool:
    """Whether each cell of a table surely has some probability."""
    if table.background is None:
        return len(table.keys) == table.size and bool((table.probability > 0).all())
    return any(bool((part > 0).all()) for part in table.background.tables)
