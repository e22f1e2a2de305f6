"""A declared program as a Pyro model: it simulates, renders, and serves Pyro's own inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from .declare import Program, _SiteDistribution, compile_program, mix, source
from .errors import GraphError, TableError
from .graph import MixingGraph, Source
from .tables.table import Table


def bind(
    program: Program | MixingGraph,
    tables: Mapping[str, Table],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, int] | None = None,
) -> Callable[[], Any]:
    """The program as a runnable Pyro model of one token position.

    tables: by mixture site. log_priors: nats [K] by source. evidence: observed tokens by site
    (default: none, so that running it simulates). Returns a function without arguments for
    `pyro.render_model`, `pyro.infer.infer_discrete`, `TraceEnum_ELBO` and the like. A compiled
    graph runs as well as a program. Each run returns the values of the observed sites.

    Raises GraphError when a prior or a table is missing or evidence names no site; a simulation
    that reaches parents without a row in their table raises TableError.
    """
    run = _replay(program) if isinstance(program, MixingGraph) else program
    graph = compile_program(program)
    for name in graph.sources:
        if name not in log_priors:
            raise GraphError(f"bind needs log_priors['{name}'], a tensor [K] in nats.")
    for factor in graph.factors:
        if factor.name not in tables:
            raise GraphError(f"bind needs tables['{factor.name}'], p({factor.name} | parents).")
    for name in evidence or {}:
        graph.site(name)

    def model() -> Any:
        with _Binding(tables, log_priors, evidence or {}):
            return run()

    model.__name__ = graph.name
    return model


class _Binding(Messenger):
    """Gives each declared site its categorical distribution."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.tables, self.log_priors, self.evidence = tables, log_priors, evidence

    def _pyro_sample(self, msg: Any) -> None:
        fn, name = msg["fn"], msg["name"]
        if not isinstance(fn, _SiteDistribution):
            return
        if fn.declared.site is not None:
            msg["fn"] = dist.Categorical(logits=self.log_priors[name])
        else:
            like = next(iter(self.log_priors.values()))
            rows = self.tables[name].dense(like.dtype).to(like.device)
            msg["fn"] = Conditional(rows[fn.declared.parents], name=name)
        if name in self.evidence and not msg["is_observed"]:
            msg["value"] = torch.as_tensor(self.evidence[name])
            msg["is_observed"] = True


class Conditional(dist.Categorical):
    """Rows of a table. Where the table has none, every token has probability zero; `Categorical`
    would divide zero by zero."""

    def __init__(self, probs: Any = None, logits: Any = None, name: str = "site") -> None:
        logits = probs.log() if logits is None else logits
        self.name, self.empty = name, (logits == float("-inf")).all(-1)
        super().__init__(logits=logits.masked_fill(self.empty[..., None], 0.0))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Conditional:
        logits = self.logits.masked_fill(self.empty[..., None], float("-inf"))
        return Conditional(logits=logits.expand(*batch_shape, -1), name=self.name)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value).masked_fill(self.empty, float("-inf"))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        if self._validate_args and self.empty.any():  # drawing a program turns validation off
            raise TableError(
                f"'{self.name}' cannot be simulated: its table never saw the parents that were "
                "drawn. Smooth the table, Table.from_counts(counts, Additive(alpha)), or give "
                "priors that stay on what was counted."
            )
        return super().sample(torch.Size(sample_shape))


def _replay(graph: MixingGraph) -> Program:
    def program() -> Any:
        values: dict[str, Any] = {}
        for site in graph.sites:
            if isinstance(site, Source):
                values[site.name] = source(site.name, prior=site.prior, alphabet=site.alphabet)
            else:
                values[site.name] = mix(
                    site.name,
                    *(values[part] for part in site.parents),
                    weights=site.weights,
                    hidden=[values[part] for part in site.hidden],
                    alphabet=site.alphabet,
                )
        return tuple(values[name] for name in graph.observed)

    return program
