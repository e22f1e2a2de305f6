"""Inference over short lists of the promising tuples of sources, for many sources under one
feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from ..errors import EngineError, OptionError
from ..graph import MixingGraph
from ..tables.feature import FeatureTable
from ..tables.linear import LinearGaussianTable
from .base import AnyTable, Engine, Plan
from .cost import Cost, truncated_cost
from .flat import KEEP, refusal
from .halves import Halves
from .listed import TruncatedPosterior
from .position import Position, check_feature
from .ready import ready_tables
from .report import Row, memory, report
from .shortlist import halves, shortlist
from .tellers import Adding, Listing, Teller, averages

_TINY = 1e-30


@dataclass(frozen=True)
class Truncated(Engine):
    """Sums over the `keep` most promising tuples of each half of the sources, paired.

    For sources directly under observed features, as in joint(n, evidence=Feature(linear=True)),
    where the exact posterior has K^n terms. Priors are peaked, so that short lists hold nearly all
    of the mass; `posterior.covered` tells how much. Candidates of a mixture share its lists. Every
    term is as the exact engines have it and none is negative: log evidence is a lower bound, and
    where the lists hold every tuple the answers are exact (`posterior.exact`).

    keep: length of a list; the sources are split into two groups of about the same number. A token
    and candidate costs up to keep^2 operations, a token and mixture keep^2 densities. Raises
    OptionError unless it is a whole number, at least 1.
    """

    keep: int = KEEP

    def __post_init__(self) -> None:
        if not isinstance(self.keep, int) or self.keep < 1:
            raise OptionError(
                f"Truncated(keep=...) is a whole number, at least 1, got {self.keep!r}."
            )

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> TruncatedPlan:
        return TruncatedPlan(self, graph, tables)


class TruncatedPlan(Plan):
    """Which sources are listed together. `print(plan)` shows it, and how long the lists are."""

    engine: Truncated

    def __init__(
        self, engine: Truncated, graph: MixingGraph, tables: Mapping[str, AnyTable]
    ) -> None:
        self.engine, self.graph, self.seen = engine, graph, {}
        if (why := refusal(graph)) is not None:
            raise EngineError(
                f"{engine!r} needs sources directly under observed features, as in joint(n, "
                f"evidence=Feature(linear=True)); in '{graph.name}' {why}. Use BP() or Auto()."
            )
        self.tables, self.sizes = ready_tables(graph, graph.factors, tables)
        self.groups = halves(graph.sources)
        self._adding = {
            name: table
            for name, table in self.tables.items()
            if isinstance(table, LinearGaussianTable) and table.diagonal
        }

    @property
    def cost(self) -> Cost:
        cost = truncated_cost(self.graph, self.sizes, self.engine.keep)
        held = sum(t.nbytes for t in self.tables.values() if isinstance(t, FeatureTable))
        return replace(cost, held=float(held))

    @property
    def exact(self) -> bool:
        """Whether the lists hold every tuple; alphabets must be known."""
        return all(self._states(group) <= self.engine.keep for group in self.groups)

    def _states(self, group: tuple[str, ...]) -> int:
        return prod(self.sizes[name] for name in group)

    def position(
        self,
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, Tensor],
        tables: Mapping[str, AnyTable] | None = None,
    ) -> Position:
        """As of every plan, but without the densities of tables that add up moments."""
        if tables is None:
            tables = {n: table for n, table in self.tables.items() if n not in self._adding}
        position = super().position(log_priors, evidence, tables)
        for name, table in self._adding.items():
            check_feature(name, table, evidence[name], position.shape[0])
        return position

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> TruncatedPosterior:
        position = self.position(log_priors, evidence)
        # Added densities in 32 bits, for speed, unless the answer is to be exact.
        dtype = torch.float32 if self._adding and not self.exact else torch.float64
        logs, priors = {}, {}
        for name in self.graph.sources:
            # Candidates last, so that the row of a token holds all of them.
            log = position.unary[name].unflatten(0, position.shape).mT.to(dtype).contiguous()
            logs[name], priors[name] = log, log.float().softmax(1).nan_to_num_(0.0)
        tellers = self._tellers(position, evidence, priors, dtype)
        first, second = (
            shortlist(group, priors, tellers, self.engine.keep) for group in self.groups
        )
        likelihood = tellers[0].pairs(first.parts, second.parts).to(dtype)
        for teller in tellers[1:]:
            likelihood = likelihood + teller.pairs(first.parts, second.parts)
        own, other = first.log_prior(logs).mT, second.log_prior(logs).mT
        return TruncatedPosterior(
            self, position, Halves.join(first, second, likelihood, own, other)
        )

    def _tellers(
        self,
        position: Position,
        evidence: Mapping[str, Tensor],
        priors: Mapping[str, Tensor],
        dtype: torch.dtype,
    ) -> list[Teller]:
        """What each observed site says. priors: {source: [M, K, C]}."""
        average = {}
        for name, prior in priors.items():
            total = prior.sum(2)
            average[name] = total / total.sum(1, keepdim=True).clamp_min(_TINY)
        out: list[Teller] = []
        like = position.like.new_empty(0, dtype=dtype)
        for factor in self.graph.factors:
            if (table := self._adding.get(factor.name)) is None:
                own = {source: average[source] for source in factor.parents}
                out.append(Listing(factor.parents, position.likelihood[factor.name], own))
            else:
                rows = zip(factor.parents, table.centres, table.spreads, strict=True)
                cells = {name: (centre.to(like), spread.to(like)) for name, centre, spread in rows}
                mean = {name: averages(part, average[name]) for name, part in cells.items()}
                out.append(Adding(table, evidence[factor.child], cells, mean))
        return out

    def __str__(self) -> str:
        title = f"{self.engine!r} on {self.graph.name}: pairs of short lists"
        missing = [name for name in self.graph.latent if name not in self.sizes]
        if missing:
            return f"{title}; the alphabet of {', '.join(missing)} is not known before its prior"
        title += ", exact" if self.exact else ", a lower bound"
        keep, rows, paired = self.engine.keep, [], 1.0
        for place, group in enumerate(filter(None, self.groups), 1):
            every = float(self._states(group))
            length = min(every, keep)
            paired *= length
            how = "every one" if every <= keep else f"the {keep} most promising of each mixture"
            listed = 8.0 * length * len(group)
            rows.append(
                Row(f"list {place}", (), group, length, every, length, listed, 24 * length, how)
            )
        factors = " x ".join(f"p({f.name} | {', '.join(f.parents)})" for f in self.graph.factors)
        states = float(self._states(self.graph.sources))
        rows.append(
            Row(
                "pairs", self.graph.sources, self.graph.sources, paired, states, paired,
                16 * paired, 0.0, factors,
            )
        )  # fmt: skip
        note = "lists and densities of pairs are held for each mixture, all candidates together"
        return report(title, rows, [note, memory(self.cost)])
