"""Mixing graphs from networks and factors that know nothing of mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import GraphError, TableError
from ..evidence import Evidence, Token
from ..graph import Mix, MixingGraph, Site, Source, mean_weights
from ..tables.table import Table

Read = tuple[MixingGraph, dict[str, Table], dict[str, Tensor], dict[str, int]]
"""Graph, tables, log priors and evidence."""


def network_graph(
    name: str,
    parents: Mapping[str, Sequence[str]],
    sizes: Mapping[str, int],
    observed: Mapping[str, Evidence],
) -> MixingGraph:
    """Sites without parents are sources, the others mixtures, each the mean of its sources (a
    network does not say how signals mix; nothing but `count` asks). parents: {site: its parents},
    parents before children. sizes: {site: K} where known. Raises GraphError."""
    leaves: dict[str, tuple[str, ...]] = {}
    sites: list[Site] = []
    for site, given in parents.items():
        if not given:
            sites.append(Source(site, alphabet=sizes.get(site)))
            leaves[site] = (site,)
            continue
        weights = mean_weights([leaves[parent] for parent in given])
        evidence = observed.get(site, Token())
        sites.append(Mix(site, tuple(given), weights, (), sizes.get(site), evidence))
        leaves[site] = tuple(dict.fromkeys(x for parent in given for x in leaves[parent]))
    if all(isinstance(site, Source) for site in sites):
        raise GraphError(
            f"no site of '{name}' depends on another, so that nothing is mixed: "
            f"{list(parents)}. Expected sites with parents, of which some are observed."
        )
    return MixingGraph(name, tuple(sites), tuple(observed))


def factor_graph(
    name: str,
    sizes: Mapping[str, int],
    factors: Sequence[tuple[Sequence[str], Tensor]],
    log_scale: float = 0.0,
) -> Read:
    """A product of non-negative factors as a mixing graph with the same posterior.

    Every variable becomes a source, and every factor f over two or more of them a binary mixture
    that is observed to be 1, with p(1 | variables) = f / max f (Pearl, 1988). Factors of one
    variable are its prior, or such a mixture where it has no other factor. The maxima go into the
    priors, so that the log evidence is that of the product, log sum_x prod f(x) + log_scale.

    sizes: {variable: K}. factors: names and values float64 [K_1, ..., K_r]. Raises GraphError and
    TableError.
    """
    if not sizes:
        raise GraphError(f"'{name}' has no variables.")
    log_priors = {site: torch.zeros(size, dtype=torch.float64) for site, size in sizes.items()}
    first = next(iter(sizes))
    log_priors[first] += log_scale
    tied = {site for names, _ in factors if len(names) > 1 for site in names}
    parents: dict[str, Sequence[str]] = dict.fromkeys(sizes, ())
    tables: dict[str, Table] = {}
    known = dict(sizes)
    for names, values in factors:
        if (values < 0).any() or not torch.isfinite(values).all():
            raise TableError(f"the factor of {list(names)} must be finite and not negative.")
        if not names:
            log_priors[first] += values.log().reshape(())
        elif len(names) == 1 and names[0] in tied:
            log_priors[names[0]] += values.log()
        else:
            label = _unused(f"f({', '.join(names)})", parents)
            largest = values.max() if values.max() > 0 else torch.ones((), dtype=values.dtype)
            share = values / largest
            tables[label] = Table.from_array(torch.stack([1 - share, share], -1))
            log_priors[first] += largest.log()
            parents[label], known[label] = tuple(names), 2
    loose = [site for site in sizes if not any(site in given for given in parents.values())]
    for site in loose:  # in no factor at all: a flat one ties it to the graph
        label = _unused(f"f({site})", parents)
        tables[label] = Table.from_array([[0.0, 1.0]] * sizes[site])
        parents[label], known[label] = (site,), 2
    graph = network_graph(name, parents, known, dict.fromkeys(tables, Token()))
    return graph, tables, log_priors, dict.fromkeys(tables, 1)


def _unused(name: str, taken: Mapping[str, object]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} #{number}", number + 1
    return candidate
