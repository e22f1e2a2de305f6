"""The interface of inference engines: plan once, then answer for each token position."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import EngineError, OptionError
from ..graph import Factor, MixingGraph
from ..tables import AnyTable as AnyTable
from .random import Random

if TYPE_CHECKING:
    from .position import Position


class Posterior(abc.ABC):
    """What is known about the latent sites of one token position, for M mixtures x C candidates.

    A row (mixture, candidate) whose evidence has probability zero is impossible: its log evidence
    is -inf, its marginals are zero and its samples and mode are -1. Nothing is ever NaN.
    """

    log_evidence: Tensor
    """log p(evidence | pasts of the sources), nats, [M, C]."""

    converged: Tensor | None = None
    """Of an iterative engine: whether each row's answer settled, bool [M, C]."""

    def __init__(self, plan: Plan, position: Position) -> None:
        self.plan, self.position, self.graph = plan, position, plan.graph

    @property
    def exact(self) -> bool:
        """Whether these answers are those of the graph's joint distribution, up to rounding."""
        return self.plan.engine.is_exact(self.graph)

    @abc.abstractmethod
    def sample(self, random: Random) -> dict[str, Tensor]:
        """One draw for each row: {latent site: int64 [M, C]}.

        random: a `torch.Generator`, or one for each mixture, so that a mixture's draws do not
        depend on the others in the batch, or uniform numbers [M, C, U].
        """

    @abc.abstractmethod
    def marginals(self) -> dict[str, Tensor]:
        """p(site | evidence) of every latent site: {site: float [M, C, K]}."""

    @abc.abstractmethod
    def mode(self) -> dict[str, Tensor]:
        """The most probable joint assignment of the latent sites: {site: int64 [M, C]}."""

    def of(self, parents: Tensor) -> Posterior:
        """The posterior of other candidates: its row (m, c) is row (m, parents[m, c]) of this one.

        parents: int64 [M, C']. A search that lets candidates branch draws from it.
        """
        raise EngineError(f"{self.plan.engine!r} cannot branch candidates: use BP() or Exact().")

    def topk(self, k: int) -> tuple[dict[str, Tensor], Tensor]:
        """The k most probable joint assignments, best first: {latent site: int64 [M, C, k]}, and
        log p(assignment | evidence), nats [M, C, k]; -1 and -inf where there are fewer."""
        raise EngineError(f"{self.plan.engine!r} has no topk(k): use BP() or Exact().")

    def pairwise(self, first: str, second: str) -> Tensor:
        """p(first, second | evidence) of two latent sites, float [M, C, K_first, K_second]."""
        raise EngineError(f"{self.plan.engine!r} has no pairwise marginals: use BP() or Exact().")

    def entropy(self, *sites: str) -> Tensor:
        """Entropy of one latent site, or the joint entropy of two, given the evidence, nats
        [M, C]; 0 in impossible rows."""
        if len(sites) not in (1, 2):
            raise OptionError(f"entropy takes the names of one or two sites, got {list(sites)}.")
        self._check_latent(*sites)
        p = self.marginals()[sites[0]] if len(sites) == 1 else self.pairwise(*sites).flatten(2)
        return torch.special.entr(p).sum(-1).clamp_min(0)  # rounding: p can be over 1

    def explain(self, mixture: int = 0, candidate: int = 0) -> str:
        """What this posterior says of one row, in words."""
        from .explain import explain

        return explain(self, mixture, candidate)

    def _check_latent(self, *sites: str) -> None:
        for name in sites:
            if name not in self.graph.latent:
                raise EngineError(
                    f"'{name}' is no latent site of '{self.graph.name}': those are "
                    f"{list(self.graph.latent)}."
                )


class Plan(abc.ABC):
    """An engine prepared for one graph and its tables."""

    engine: Engine
    graph: MixingGraph
    tables: Mapping[str, AnyTable]
    """By factor name, likelihood powers applied."""
    sizes: Mapping[str, int]
    """Alphabet of each site that has a token."""
    seen: Mapping[str, Tensor]
    """Which tokens of each observed site have any probability, {site: bool [K]}, for the sites
    whose token is given."""

    @abc.abstractmethod
    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> Posterior:
        """Posterior of one token position.

        log_priors: {source: log p(z | its past), nats, float [M, C, K]}. evidence: for each
        observed site, by its declared kind: tokens int64 [M] (`Token`), log weights [M, K]
        (`Soft`) or features [M, D] (`Feature`). Raises EngineError on ill-shaped input and
        UnseenToken when an observed token never occurs in its table.
        """

    def position(
        self,
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, Tensor],
        tables: Mapping[str, AnyTable] | None = None,
    ) -> Position:
        """Checked input, in rows; for engines of one's own. tables: those whose likelihood of every
        configuration is wanted; by default all of them."""
        from .position import check_position

        sizes = dict(self.sizes)
        for name in self.graph.sources:  # a source that no table conditions on
            if name in log_priors:
                sizes.setdefault(name, log_priors[name].shape[-1])
        self.sizes = sizes
        tables = self.tables if tables is None else tables
        return check_position(self.graph, tables, self.sizes, self.seen, log_priors, evidence)


@dataclass(frozen=True)
class Engine(abc.ABC):
    """Frozen configuration of an inference algorithm; data lives in the plan.

    Engines are compared and printed by value: `repr(engine)` makes it again.
    """

    def factors(self, graph: MixingGraph) -> tuple[Factor, ...]:
        """The tables that this engine needs for a graph."""
        return graph.factors

    @abc.abstractmethod
    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> Plan:
        """Prepare for a graph. tables: by the names of `factors(graph)`.

        Raises TableError on missing or ill-shaped tables, EngineError on a graph that the engine
        cannot treat, PlanError when it would take more memory than allowed.
        """

    def is_exact(self, graph: MixingGraph) -> bool:
        """Whether its answers on this graph are exact up to rounding."""
        return False
