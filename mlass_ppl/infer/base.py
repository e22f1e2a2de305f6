"""The interface of inference engines: plan once, then answer for each token position."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EngineError, TableError, UnseenToken
from ..graph import Factor, MixingGraph
from ..tables.table import Table
from .random import Random


class Posterior(abc.ABC):
    """What is known about the latent sites of one token position, for M mixtures x C candidates.

    A row (mixture, candidate) whose evidence has probability zero is impossible: its log evidence
    is -inf, its marginals are zero and its samples and mode are -1. Nothing is ever NaN.
    """

    log_evidence: Tensor
    """log p(observed tokens | pasts of the sources), nats, [M, C]."""

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


class Plan(abc.ABC):
    """An engine prepared for one graph and its tables."""

    graph: MixingGraph
    tables: Mapping[str, Table]
    seen: Mapping[str, Tensor]
    """Which tokens of each observed site have any probability: {site: bool [K]}."""

    @abc.abstractmethod
    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> Posterior:
        """Posterior of one token position.

        log_priors: {source: log p(z | its past), nats, float [M, C, K]}; evidence:
        {observed site: int64 [M]}. Raises EngineError on ill-shaped input and UnseenToken when an
        observed token never occurs in its table.
        """


@dataclass(frozen=True)
class Engine(abc.ABC):
    """Frozen configuration of an inference algorithm; data lives in the plan.

    Engines are compared and printed by value: `repr(engine)` makes it again.
    """

    def factors(self, graph: MixingGraph) -> tuple[Factor, ...]:
        """The tables that this engine needs for a graph."""
        return graph.factors

    @abc.abstractmethod
    def plan(self, graph: MixingGraph, tables: Mapping[str, Table]) -> Plan:
        """Prepare for a graph. tables: by the names of `factors(graph)`.

        Raises TableError on missing or ill-shaped tables, EngineError on a graph that the engine
        cannot treat, PlanError when it would take more memory than allowed.
        """


def check_tables(
    graph: MixingGraph, factors: tuple[Factor, ...], tables: Mapping[str, Table]
) -> dict[str, int]:
    """Check that every factor has a table and that all agree on alphabets: {site: K}."""
    sizes = graph.alphabets()
    for factor in factors:
        table = tables.get(factor.name)
        if table is None:
            raise TableError(
                f"'{graph.name}' needs a table for '{factor.name}', p({factor.child} | "
                f"{', '.join(factor.parents)}); given are {sorted(tables)}."
            )
        if len(table.shape) != len(factor.scope):
            raise TableError(
                f"the table of '{factor.name}' has {len(table.shape)} axes {table.shape}; expected "
                f"{len(factor.scope)}: {', '.join(factor.parents)}, and last {factor.child}."
            )
        for name, size in zip((*factor.parents, factor.child), table.shape, strict=True):
            if sizes.setdefault(name, size) != size:
                raise TableError(
                    f"site '{name}' has {sizes[name]} tokens elsewhere, but the table of "
                    f"'{factor.name}' was counted for {table.shape} "
                    f"({', '.join(factor.parents)}, then {factor.child})."
                )
    return sizes


def check_inputs(
    graph: MixingGraph,
    sizes: Mapping[str, int],
    seen: Mapping[str, Tensor],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, Tensor],
) -> tuple[int, int]:
    """Check one position's input and return (M, C).

    seen: {observed site: bool [K]}, the tokens that have any probability.
    """
    rows: tuple[int, int] | None = None
    for name in graph.sources:
        if name in graph.observed:
            continue
        if name not in log_priors:
            raise EngineError(f"log_priors lacks '{name}'; given are {sorted(log_priors)}.")
        prior = log_priors[name]
        size = sizes.get(name, prior.shape[-1])
        if prior.ndim != 3 or prior.shape[2] != size:
            raise EngineError(
                f"log_priors['{name}'] must be [M, C, {size}], got {list(prior.shape)}."
            )
        if rows is None:
            rows = (prior.shape[0], prior.shape[1])
        elif rows != (prior.shape[0], prior.shape[1]):
            raise EngineError(
                f"log_priors['{name}'] has {list(prior.shape[:2])} rows, others {list(rows)}."
            )
        if torch.isnan(prior).any() or (prior == float("inf")).any():
            raise EngineError(
                f"log_priors['{name}'] holds NaN or +inf; expected log probabilities."
            )
    if rows is None:
        raise EngineError(f"'{graph.name}' has no latent source.")
    for name in graph.observed:
        if name not in evidence:
            raise EngineError(f"evidence lacks '{name}'; given are {sorted(evidence)}.")
        tokens = evidence[name]
        if tokens.shape != (rows[0],) or tokens.is_floating_point():
            raise EngineError(
                f"evidence['{name}'] must be {rows[0]} integer tokens, one a mixture; got "
                f"{tokens.dtype} {list(tokens.shape)}."
            )
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < sizes[name]:
            raise EngineError(
                f"evidence['{name}'] must lie in [0, {sizes[name]}), got "
                f"[{int(tokens.min())}, {int(tokens.max())}]."
            )
        if name in seen and not (ok := seen[name].to(tokens.device)[tokens]).all():
            token = int(tokens[~ok][0])
            raise UnseenToken(
                f"token {token} of '{name}' never occurs in its table, under any parents (seen: "
                f"{int(seen[name].sum())} of {sizes[name]} tokens). Smooth the table, count more "
                "mixtures, or pass on_unseen='prior'."
            )
    return rows


def observed_seen(
    graph: MixingGraph, factors: tuple[Factor, ...], tables: Mapping[str, Table]
) -> dict[str, Tensor]:
    """Which tokens of each observed site its table gives any probability: {site: bool [K]}."""
    out: dict[str, Tensor] = {}
    for factor in factors:
        if factor.child in graph.observed:
            seen = tables[factor.name].seen()
            out[factor.child] = out.get(factor.child, torch.ones_like(seen)) & seen
    return out
