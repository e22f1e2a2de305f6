"""Belief propagation on trees of mixtures: MLASS-BP (Scarcelli, 2024), made exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ..errors import EngineError, OptionError
from ..graph import MixingGraph
from ..tables.table import Table
from .algebra import Linear, Logarithmic
from .base import Engine, Plan, Posterior, check_inputs, check_tables, observed_seen
from .cost import Cost, bp_cost
from .kernels import DenseKernel, Kernel, SparseKernel
from .passes import MessagePass
from .random import Random, draw, uniforms
from .schedule import schedule

Question = Callable[[MessagePass, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class BP(Engine):
    """Sum-product on the tree of sources and partial mixtures: exact, O((n - 1) K^3) a token.

    draw: "joint" samples all sources together by backward sampling; "marginals" samples each site
    from its own marginal, the paper's variant, which is no posterior sample (about half of its
    tuples are impossible under exact support). dense_limit: tables of up to this many bytes are
    held dense; larger ones are contracted over their positive cells in logarithms.

    Refuses a graph with a cycle by naming it.
    """

    draw: Literal["joint", "marginals"] = "joint"
    dense_limit: float = 2**28

    def __post_init__(self) -> None:
        if self.draw not in ("joint", "marginals"):
            raise OptionError(f"BP(draw=...) is 'joint' or 'marginals', got {self.draw!r}.")

    def plan(self, graph: MixingGraph, tables: Mapping[str, Table]) -> BPPlan:
        return BPPlan(self, graph, tables)


class BPPlan(Plan):
    """Schedule and kernels of BP on one graph. `print(plan)` tells its cost."""

    def __init__(self, engine: BP, graph: MixingGraph, tables: Mapping[str, Table]) -> None:
        self.engine, self.graph = engine, graph
        self.schedule = schedule(graph, graph.factors)  # a cycle is said before a missing table
        self.sizes = check_tables(graph, graph.factors, tables)
        self.tables = {factor.name: tables[factor.name] for factor in graph.factors}
        self.seen = observed_seen(graph, graph.factors, self.tables)
        self._kernels: dict[tuple[object, ...], dict[str, Kernel]] = {}

    @property
    def cost(self) -> Cost:
        return bp_cost(self.graph, self.sizes)

    def __str__(self) -> str:
        kinds = {
            name: "dense" if self._is_small(table, 4) else "sparse"
            for name, table in self.tables.items()
        }
        listed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        return f"{self.engine!r} on {self.graph.name}: {self.cost}; kernels {listed}"

    def _is_small(self, table: Table, item: int) -> bool:
        return table.size * item <= self.engine.dense_limit

    def kernels(self, kind: str, dtype: torch.dtype, device: torch.device) -> dict[str, Kernel]:
        """Kernels of every factor ("linear", "sum" or "max"), built when first asked for."""
        key = (kind, dtype, device)
        if key not in self._kernels:
            self._kernels[key] = {
                name: DenseKernel(table, dtype, device)
                if kind == "linear"
                else SparseKernel(table, dtype, device, largest=kind == "max")
                for name, table in self.tables.items()
            }
        return self._kernels[key]

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> BPPosterior:
        shape = check_inputs(self.graph, self.sizes, self.seen, log_priors, evidence)
        return BPPosterior(self, shape, log_priors, evidence)

    def run(
        self,
        kind: Literal["linear", "sum", "max"],
        unary: dict[str, Tensor],
        given: dict[str, Tensor],
    ) -> MessagePass:
        like = next(iter(unary.values()))
        algebra = Linear() if kind == "linear" else Logarithmic(largest=kind == "max")
        kernels = self.kernels(kind, like.dtype, like.device)
        return MessagePass(self.schedule, kernels, algebra, unary, given)


class BPPosterior(Posterior):
    """Runs in linear space where every table is dense, and again in logarithms for the rows that
    came near underflow there."""

    def __init__(
        self,
        plan: BPPlan,
        shape: tuple[int, int],
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, Tensor],
    ) -> None:
        self._plan, self._shape = plan, shape
        sources = plan.graph.sources
        self._unary = {name: log_priors[name].flatten(0, 1) for name in sources}
        self._given = {
            name: evidence[name].repeat_interleave(shape[1]) for name in plan.graph.observed
        }
        item = self._unary[sources[0]].element_size()
        small = all(plan._is_small(table, item) for table in plan.tables.values())
        self._pass = plan.run("linear" if small else "sum", self._unary, self._given)
        log_evidence = self._pass.log_evidence.clone()
        if (weak := self._pass.weak).any():
            rows = weak.nonzero()[:, 0]
            log_evidence[rows] = self._again(rows).log_evidence
        self.log_evidence = log_evidence.reshape(shape)

    def _again(self, rows: Tensor, kind: Literal["sum", "max"] = "sum") -> MessagePass:
        unary = {name: log[rows] for name, log in self._unary.items()}
        given = {name: tokens[rows] for name, tokens in self._given.items()}
        return self._plan.run(kind, unary, given)

    @cached_property
    def _rows(self) -> Tensor:
        return torch.arange(self.log_evidence.numel(), device=self.log_evidence.device)

    def _ask(self, question: Question) -> dict[str, Tensor]:
        """Answer of the first pass, mended where it is weak."""
        out = question(self._pass, self._rows)
        if (weak := self._pass.weak).any():
            rows = weak.nonzero()[:, 0]
            for name, value in question(self._again(rows), rows).items():
                out[name][rows] = value
        return out

    def _shaped(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        possible = self.log_evidence.reshape(-1) > float("-inf")
        return {
            name: torch.where(possible, tokens[name], -1).reshape(self._shape)
            for name in self._plan.graph.latent
        }

    def sample(self, random: Random) -> dict[str, Tensor]:
        latent = self._plan.graph.latent
        uniform = uniforms(random, *self._shape, len(latent)).flatten(0, 1)
        uniform = uniform.to(self.log_evidence.device)
        if self._plan.engine.draw == "marginals":
            marginals = self.marginals()
            tokens = {
                name: draw(marginals[name].flatten(0, 1), uniform[:, place])
                for place, name in enumerate(latent)
            }
            return self._shaped(tokens)

        def question(run: MessagePass, rows: Tensor) -> dict[str, Tensor]:
            columns = iter(uniform[rows].unbind(1))
            return run.descend(lambda weights: draw(weights, next(columns)))

        return self._shaped(self._ask(question))

    def marginals(self) -> dict[str, Tensor]:
        out = self._ask(lambda run, _: run.marginals())
        # A tree of a forest does not know that another one is impossible.
        possible = (self.log_evidence > float("-inf"))[..., None]
        return {
            name: torch.where(possible, out[name].reshape(*self._shape, -1), 0.0)
            for name in self._plan.graph.latent
        }

    def mode(self) -> dict[str, Tensor]:
        best = self._again(self._rows, "max")
        return self._shaped(best.descend(lambda weights: weights.argmax(-1)))

    def messages(self) -> dict[tuple[str, str], Tensor]:
        """Messages by (factor, site), each row scaled to sum 1: {...: [M, C, K]}."""
        if self._pass.weak.any():
            raise EngineError(
                "messages near underflow are not shown: temper the priors or use float64."
            )
        self._pass.marginals()
        return {
            key: self._pass.normalised(key).reshape(*self._shape, -1) for key in self._pass.sent()
        }
