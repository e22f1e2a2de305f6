"""Enumeration of the joint posterior: LASS (Postolache et al., AAAI 2023), for any graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PlanError
from ..graph import MixingGraph
from ..tables.table import Table
from .algebra import log_sum
from .base import Engine, Plan, Posterior, check_inputs, check_tables, observed_seen
from .cost import Cost, bp_cost, exact_cost
from .random import Random, draw, uniforms
from .support import Cells, Support, join

_CHUNK_BYTES = 1 << 27
_KEEP_BYTES = 1 << 29


@dataclass(frozen=True)
class Exact(Engine):
    """Sums over every joint state of the latent sites that the tables allow: O(K^n) at worst.

    With exact support only the cells that were counted are visited, as in LASS. Works on any
    graph, cycles included. memory_limit: bytes that the list of joint states may take; a graph
    that needs more is refused with the number.
    """

    memory_limit: float = 4e9

    def plan(self, graph: MixingGraph, tables: Mapping[str, Table]) -> ExactPlan:
        return ExactPlan(self, graph, tables)


class ExactPlan(Plan):
    """Positive cells of each table; the joint states for an observation are listed on demand."""

    def __init__(self, engine: Exact, graph: MixingGraph, tables: Mapping[str, Table]) -> None:
        self.engine, self.graph = engine, graph
        self.sizes = check_tables(graph, graph.factors, tables)
        self.tables = {factor.name: tables[factor.name] for factor in graph.factors}
        self.seen = observed_seen(graph, graph.factors, self.tables)
        for table in self.tables.values():
            cells = table.size if table.floor is not None else len(table.keys)
            self._allow(cells, len(table.shape))
        self._cells = []
        for factor in reversed(graph.factors):  # evidence first: the smallest lists are joined
            index, probability = self.tables[factor.name].entries()
            index = torch.cat([index[-1:], index[:-1]])
            self._cells.append(Cells(factor, index, probability.log()))
        self._supports: dict[tuple[int, ...], Support] = {}
        self._kept = 0
        if all(name in self.sizes for name in graph.latent):  # else the priors will say
            self.support(self._largest())  # fails here, not in the middle of a separation

    @property
    def cost(self) -> Cost:
        return exact_cost(self.graph, self.sizes)

    def __str__(self) -> str:
        states = max((support.states for support in self._supports.values()), default=0)
        return (
            f"{self.engine!r} on {self.graph.name}: {states:,} joint states for the most frequent "
            f"observation ({self.cost} were all possible)"
        )

    def _largest(self) -> tuple[int, ...]:
        """The observation with the most cells."""
        return tuple(
            max(
                (
                    int(torch.bincount(cells.index[0], minlength=1).argmax())
                    for cells in self._cells
                    if cells.factor.child == name
                ),
                default=0,
            )
            for name in self.graph.observed
        )

    def _allow(self, states: int, sites: int) -> None:
        needed = states * 8.0 * (sites + 2)
        if needed > self.engine.memory_limit:
            hint = "Count a chain and use BP()."
            if self.graph.is_tree and len(self.graph.factors) > 1:
                need = bp_cost(self.graph, self.sizes).states
                hint = f"BP() needs {need:.1e} numbers and is exact here: the graph is a tree."
            raise PlanError(
                f"Exact() on '{self.graph.name}' needs {states:.1e} joint states "
                f"({needed / 1e9:.3g} GB); the limit is {self.engine.memory_limit / 1e9:.3g} GB "
                f"(Exact(memory_limit=...)). {hint}"
            )

    def support(self, tokens: tuple[int, ...]) -> Support:
        """Joint states of the latent sites given the observed tokens, in the graph's order."""
        if tokens in self._supports:
            return self._supports[tokens]
        evidence = dict(zip(self.graph.observed, tokens, strict=True))
        out = Support.nothing()
        for cells in self._cells:
            out = join(out, cells.given(evidence), self.sizes, self._allow)
        for name in self.graph.latent:  # a source that no table conditions on takes any token
            if name not in out.sites:
                size = self.sizes[name]
                alone = Support((name,), torch.arange(size)[None], torch.zeros(size).double())
                out = join(out, alone, self.sizes, self._allow)
        size = out.states * (len(out.sites) + 1) * 8
        if self._kept + size <= self.engine.memory_limit:
            self._supports[tokens] = out
            self._kept += size
        return out

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> ExactPosterior:
        for name in self.graph.sources:
            if name in log_priors:
                self.sizes.setdefault(name, log_priors[name].shape[-1])
        shape = check_inputs(self.graph, self.sizes, self.seen, log_priors, evidence)
        return ExactPosterior(self, shape, log_priors, evidence)


@dataclass
class _Group:
    """Rows [R] of the mixtures that share one observation, and the joint states it allows."""

    rows: Tensor
    support: Support
    scores: Tensor | None = None


class ExactPosterior(Posterior):
    """Scores of the joint states, row by row in chunks of bounded memory."""

    def __init__(
        self,
        plan: ExactPlan,
        shape: tuple[int, int],
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, Tensor],
    ) -> None:
        self._plan, self._shape = plan, shape
        self._priors = {name: log_priors[name].flatten(0, 1) for name in plan.graph.sources}
        self._like = next(iter(self._priors.values()))
        candidates = torch.arange(shape[1])
        places: dict[tuple[int, ...], list[int]] = {}
        observed = torch.stack([evidence[name].cpu() for name in plan.graph.observed], 1)
        for mixture, tokens in enumerate(observed.tolist()):
            places.setdefault(tuple(tokens), []).append(mixture)
        self._groups = []
        kept = 0
        for key, mixtures in places.items():
            rows = (torch.tensor(mixtures)[:, None] * shape[1] + candidates).flatten()
            group = _Group(rows, plan.support(key))
            kept += len(rows) * group.support.states * self._like.element_size()
            if kept <= _KEEP_BYTES:
                group.scores = self._score(group.support, rows)
            self._groups.append(group)
        (log_evidence,) = self._map(lambda support, scores, rows: [log_sum(scores)], [()])
        self.log_evidence = log_evidence.reshape(shape)

    def _score(self, support: Support, rows: Tensor) -> Tensor:
        """Log joint of each state, [R, E]."""
        device = self._like.device
        out = support.log.to(self._like).expand(len(rows), -1)
        for name, prior in self._priors.items():
            index = support.index[support.sites.index(name)].to(device)
            out = out + prior[rows.to(device)].index_select(1, index)
        return out

    def _chunks(self) -> Iterator[tuple[Support, Tensor, Tensor]]:
        for group in self._groups:
            if group.support.states == 0:
                continue
            step = max(1, _CHUNK_BYTES // (group.support.states * 8))
            for place in range(0, len(group.rows), step):
                rows = group.rows[place : place + step]
                scores = (
                    self._score(group.support, rows)
                    if group.scores is None
                    else group.scores[place : place + step]
                )
                yield group.support, scores, rows

    def _map(
        self,
        function: Callable[[Support, Tensor, Tensor], list[Tensor]],
        shapes: Sequence[tuple[int, ...]],
        fill: float = float("-inf"),
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """Apply a function to each chunk and gather its outputs, [R, *shape] each."""
        count = self._shape[0] * self._shape[1]
        out = [
            torch.full(
                (count, *shape), fill, dtype=dtype or self._like.dtype, device=self._like.device
            )
            for shape in shapes
        ]
        for support, scores, rows in self._chunks():
            for target, value in zip(out, function(support, scores, rows), strict=True):
                target[rows.to(target.device)] = value.to(target.dtype)
        return out

    def _tokens(self, choose: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """Tokens of the state that `choose(scores, rows)` picks in each row; -1 where none."""
        latent = self._plan.graph.latent

        def pick(support: Support, scores: Tensor, rows: Tensor) -> list[Tensor]:
            state = choose(scores, rows)
            possible = scores.amax(-1) > float("-inf")
            index = support.index.to(scores.device)
            return [
                torch.where(possible, index[support.sites.index(name)][state.clamp_min(0)], -1)
                for name in latent
            ]

        out = self._map(pick, [()] * len(latent), -1, torch.int64)
        return {name: value.reshape(self._shape) for name, value in zip(latent, out, strict=True)}

    def sample(self, random: Random) -> dict[str, Tensor]:
        uniform = uniforms(random, *self._shape, 1).flatten().to(self._like.device)
        return self._tokens(
            lambda scores, rows: draw(_weights(scores), uniform[rows.to(uniform.device)])
        )

    def mode(self) -> dict[str, Tensor]:
        return self._tokens(lambda scores, rows: scores.argmax(-1))

    def marginals(self) -> dict[str, Tensor]:
        latent = self._plan.graph.latent

        def spread(support: Support, scores: Tensor, rows: Tensor) -> list[Tensor]:
            weights = _weights(scores)
            total = weights.sum(-1, keepdim=True)
            weights = weights / torch.where(total > 0, total, torch.ones_like(total))
            out = []
            for name in latent:
                place = support.index[support.sites.index(name)].to(weights.device)
                mass = weights.new_zeros(len(weights), self._plan.sizes[name])
                out.append(mass.index_add_(1, place, weights))
            return out

        shapes = [(self._plan.sizes[name],) for name in latent]
        out = self._map(spread, shapes, 0.0)
        return {
            name: value.reshape(*self._shape, -1) for name, value in zip(latent, out, strict=True)
        }


def _weights(scores: Tensor) -> Tensor:
    top = scores.amax(-1, keepdim=True)
    return (scores - torch.where(top > float("-inf"), top, torch.zeros_like(top))).exp()
