"""A declared program as a Pyro model: it simulates, renders, and serves Pyro's own inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .declare import Program, compile_program, mix, source
from .errors import GraphError
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
        from ._binding import Binding

        with Binding(tables, log_priors, evidence or {}):
            return run()

    model.__name__ = graph.name
    return model


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
