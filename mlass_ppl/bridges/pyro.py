"""Ordinary Pyro models as mixing graphs; `to_pyro` is `bind`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..bind import bind
from ..errors import GraphError
from ..evidence import Evidence, Feature, Soft, Token
from ..graph import MixingGraph
from ._build import network_graph

if TYPE_CHECKING:
    from ..infer.base import AnyTable
    from ._pyro_sites import PyroSite

to_pyro = bind


def from_pyro(
    model: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[MixingGraph, dict[str, AnyTable], dict[str, Tensor], dict[str, Any]]:
    """A Pyro model of finite discrete sites as a mixing graph: graph, tables, log priors, evidence.

    The model runs once with every discrete site enumerated in parallel, along a tensor dimension of
    its own, so the shape of a site's distribution tells its parents and the distribution is their
    table; then it runs some times more, one state at a time, and must say the same. Parents come in
    the order of their statements. Tables are indexed with several sites at once,
    `T[a, b]` or `Vindex(T)[a, b]`, never one after the other, `T[a][b]`.

    Sites without parents become sources, the others mixtures; tokens count a distribution's support
    from 0. What the model observes (obs=, pyro.condition) becomes the evidence: tokens; where it
    samples `Normal(...).to_event(1)`, a feature with its Gaussian table; where a `pyro.factor`
    depends on one site, log weights (`Soft`; of a source, part of its prior). poutine.scale on an
    observed site is its likelihood power. A model that observes nothing must return the site, or
    tuple of sites, that will be observed; the evidence is then empty.

    log priors: nats, float64 [K]. Raises GraphError, with the name of the site, on continuous or
    vector-valued latent sites, plates, masks, infinite supports, factors of several sites, sites
    that nothing observed depends on, models without any dependence, and models that do not run
    enumerated.
    """
    from ._pyro_run import read_sites

    name = getattr(model, "__name__", type(model).__name__)
    with torch.no_grad():
        statements, returned = read_sites(name, lambda: model(*args, **kwargs))
    sites = {site.name: site for site in statements if site.kind != "factor"}
    parents = {site.name: site.parents for site in sites.values()}
    observed: dict[str, Evidence] = {}
    evidence: dict[str, Any] = {}
    for site in sites.values():
        if site.observation is not None:
            _check_observed(name, site)
            observed[site.name] = (Feature if site.kind == "normal" else Token)(site.power)
            evidence[site.name] = site.observation
    log_priors = {site.name: site.log.clone() for site in sites.values() if not site.parents}
    for factor in (site for site in statements if site.kind == "factor"):
        _add_factor(name, factor, sites, observed, evidence, log_priors)
    if not observed:
        observed = dict.fromkeys(_returned(name, returned, sites), Token())
    sizes = {site.name: site.size for site in sites.values() if site.kind == "discrete"}
    graph = network_graph(name, parents, sizes, observed)
    tables: dict[str, AnyTable] = {}
    for mixture in graph.mixtures:
        tables[mixture] = sites[mixture].table()
    return graph, tables, log_priors, evidence


def _check_observed(model: str, site: PyroSite) -> None:
    if not site.parents:
        raise GraphError(
            f"'{model}' observes '{site.name}', which depends on no other site, so that it says "
            "nothing about any. Drop it, or let its distribution depend on what is looked for."
        )


def _add_factor(
    model: str,
    factor: PyroSite,
    sites: Mapping[str, PyroSite],
    observed: dict[str, Evidence],
    evidence: dict[str, Any],
    log_priors: dict[str, Tensor],
) -> None:
    """A factor is soft evidence of its one site, or part of a source's log prior."""
    if len(factor.parents) > 1:
        raise GraphError(
            f"pyro.factor '{factor.name}' of '{model}' depends on {list(factor.parents)}; a mixing "
            "graph takes log weights of one site. Tie several by a sample statement whose "
            "distribution depends on them."
        )
    log = factor.log * factor.power
    if not factor.parents:
        first = next(iter(log_priors))
        log_priors[first] = log_priors[first] + log
        return
    site = sites[factor.parents[0]]
    if site.name in log_priors:
        log_priors[site.name] = log_priors[site.name] + log
    elif isinstance(observed.get(site.name), Token):
        first = next(iter(log_priors))
        log_priors[first] = log_priors[first] + log[evidence[site.name]]
    else:
        observed[site.name] = Soft()
        evidence[site.name] = evidence.get(site.name, 0.0) + log


def _returned(model: str, returned: Any, sites: Mapping[str, PyroSite]) -> Sequence[str]:
    """The sites whose very values a model returned."""
    values = returned if isinstance(returned, (tuple, list)) else [returned]
    names = [site.name for value in values for site in sites.values() if site.value is value]
    if not names or len(names) != len(values):
        raise GraphError(
            f"'{model}' observes nothing: none of its sites has obs=, and it does not return the "
            "sites that will be observed. Condition it, pyro.condition(model, {'m': token}), or "
            "return the observed site."
        )
    return names
