"""A declared program as a Pyro model: it simulates, renders, and serves Pyro's own inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ._programs.row import check_row
from .declare import Program, compile_program
from .graph import MixingGraph

if TYPE_CHECKING:
    from .infer.base import AnyTable


def bind(
    program: Program | MixingGraph,
    tables: Mapping[str, AnyTable],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, Any] | None = None,
) -> Callable[[], Any]:
    """The program as a runnable Pyro model of one token position.

    tables: by mixture site. log_priors: nats [K] by source (Pyro scales them to sum to 1).
    evidence: of observed sites, a token, log weights [K] or a feature [D], as declared (default:
    none, so that running it simulates). Returns a function without arguments for
    `pyro.render_model`, `pyro.condition`, `pyro.infer.infer_discrete`, `TraceEnum_ELBO` and the
    like; each run returns the value of the observed site, or a tuple of them. A compiled graph runs
    as well as a program. In a `pyro.plate` of N positions it samples N of them; priors and
    evidence may then have an axis of N in front.

    Each site is a sample statement of its name: a categorical one, or a `Normal` where a feature is
    observed, a `MultivariateNormal` if its table is a `LinearGaussianTable`. Log weights are a
    `pyro.factor` beside their site. A likelihood power multiplies the log probability of a site
    while it is observed, here or by `pyro.condition`.

    Raises TableError, EngineError or GraphError when something is missing or ill-shaped; a
    simulation that reaches parents without a row in their table raises TableError.
    """
    from ._programs.binding import run, site_tables

    graph = compile_program(program)
    row = check_row(graph, tables, log_priors, evidence, plates=True)
    dense = site_tables(row)

    def model() -> Any:
        return run(row, dense)

    model.__name__ = model.__qualname__ = graph.name
    return model
