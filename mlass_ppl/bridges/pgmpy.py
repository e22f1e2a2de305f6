"""Mixing graphs as Bayesian networks and factor graphs of pgmpy, and back.

pgmpy is an optional dependency: `pip install mlass-ppl[pgmpy]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._programs.row import Row, check_row
from ..declare import Program, compile_program
from ..errors import GraphError, MlassError, PriorError, TableError
from ..evidence import Token
from ..graph import MixingGraph
from ..tables.table import Table
from ._build import Read, factor_graph, network_graph
from ._factors import log_factors, merged, scaled

if TYPE_CHECKING:
    from pgmpy.models import DiscreteBayesianNetwork, FactorGraph

    from ..infer.base import AnyTable

NEVER = "never"
"""State of a site whose parents' row its table does not have."""


def to_pgmpy_network(
    program: Program | MixingGraph,
    tables: Mapping[str, AnyTable],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, Any] | None = None,
) -> tuple[DiscreteBayesianNetwork, dict[str, Any]]:
    """The graph as a Bayesian network, and its evidence as pgmpy's queries take it:

        network, given = to_pgmpy_network(trio, tables, log_priors, {"song": 3})
        VariableElimination(network).query(["drums"], **given)

    log_priors: nats [K] by source, scaled to sum to 1. evidence: by observed site, a token (given
    as `evidence`) or log weights [K] of `Soft()` (given as `virtual_evidence`). Columns of a
    `TabularCPD` must sum to 1, so a site whose table lacks rows gets one more state, "never", for
    them, and so do its children; no observation reaches it.

    Raises GraphError where the graph has a feature or a likelihood power, which no network can
    hold (`to_pgmpy_factors` can), TableError, EngineError and PriorError.
    """
    pgmpy = _pgmpy()
    row = check_row(compile_program(program), tables, log_priors, evidence)
    graph = row.graph
    for name in graph.observed:
        if name in graph.features or row.power(name) != 1:
            what = "a feature" if name in graph.features else f"a power ({row.power(name):g})"
            raise GraphError(
                f"'{name}' is observed with {what}, and a Bayesian network has discrete sites and "
                "plain probabilities alone. Use to_pgmpy_factors(...), where it is a factor."
            )
    network = pgmpy.models.DiscreteBayesianNetwork()
    network.add_nodes_from(site.name for site in graph.sites)
    states: dict[str, list[Any]] = {name: [*range(row.sizes[name])] for name in row.sizes}
    for name, log in row.log_priors.items():
        p = log.double().exp()
        if not p.sum() > 0:
            raise PriorError(f"log_priors['{name}'] gives no token any probability.")
        network.add_cpds(_cpd(name, p / p.sum(), (), states))
    for factor in graph.factors:
        dense = row.dense(factor.name)
        full = [len(states[parent]) for parent in factor.parents]
        if [*dense.shape[:-1]] != full or not (dense.sum(-1) > 0).all():
            states[factor.child].append(NEVER)
            padded = dense.new_zeros(*full, len(states[factor.child]))
            padded[tuple(slice(size) for size in dense.shape)] = dense
            padded[..., -1] = (padded.sum(-1) == 0).to(dense)
            dense = padded
        network.add_edges_from((parent, factor.child) for parent in factor.parents)
        network.add_cpds(_cpd(factor.child, dense, factor.parents, states))
    network.check_model()
    return network, _given(row, states)


def _cpd(name: str, table: Tensor, parents: Sequence[str], states: Mapping[str, list[Any]]) -> Any:
    """A `TabularCPD` of a table [K_parents..., K]: one column for each row of the table."""
    from pgmpy.factors.discrete import TabularCPD

    columns = table.reshape(-1, table.shape[-1]).T.tolist()
    names = {site: states[site] for site in (name, *parents)}
    if not parents:
        return TabularCPD(name, len(columns), columns, state_names=names)
    cards = [len(states[parent]) for parent in parents]
    return TabularCPD(name, len(columns), columns, list(parents), cards, state_names=names)


def _given(row: Row, states: Mapping[str, list[Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if row.tokens:
        out["evidence"] = {name: int(token) for name, token in row.tokens.items()}
    if row.weights:
        out["virtual_evidence"] = []
        for name, log in row.weights.items():
            weights = (log.double() - log.double().max().clamp_min(-1e300)).exp()
            weights = torch.cat([weights, weights.new_zeros(len(states[name]) - len(weights))])
            out["virtual_evidence"].append(_cpd(name, weights, (), states))
    return out


def to_pgmpy_factors(
    program: Program | MixingGraph,
    tables: Mapping[str, AnyTable],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, Any] | None = None,
) -> FactorGraph:
    """The posterior as a factor graph over the sites that are not given: their priors, the tables
    cut at given tokens and raised to their powers, log weights and feature likelihoods, multiplied
    together where they are over the same sites (pgmpy takes two equal factors for one).

        model = to_pgmpy_factors(trio, tables, log_priors, {"song": 3})
        BeliefPropagation(model).query(["drums"])  # pgmpy's junction tree: exact

    Each factor is scaled to a largest value of 1, so that pgmpy, which multiplies probabilities,
    does not underflow; `model.graph["log_scale"]` is the log of what was divided out, in nats: the
    log evidence is `log(model.get_partition_function())` plus that.

    log_priors: nats [K] by source. evidence: by observed site, as declared. Raises TableError,
    EngineError and GraphError.
    """
    pgmpy = _pgmpy()
    from pgmpy.factors.discrete import DiscreteFactor

    row = check_row(compile_program(program), tables, log_priors, evidence)
    model, log_scale = pgmpy.models.FactorGraph(), 0.0
    for factor in merged(log_factors(row, reduce=True)):
        values, scale = scaled(factor)
        if not factor.scope:
            log_scale += scale if values > 0 else float("-inf")
            continue
        log_scale += scale
        node = DiscreteFactor(list(factor.scope), list(values.shape), values.numpy())
        model.add_nodes_from(factor.scope)
        model.add_factors(node)
        model.add_node(node)
        model.add_edges_from((name, node) for name in factor.scope)
    model.graph["log_scale"] = log_scale
    model.check_model()
    return model


def from_pgmpy(
    model: DiscreteBayesianNetwork, observed: str | Sequence[str]
) -> tuple[MixingGraph, dict[str, Table], dict[str, Tensor]]:
    """A Bayesian network as a mixing graph with its tables and log priors.

    Nodes without parents become sources, the others mixtures; observed: the names of those whose
    tokens will be given. Tokens are places among a node's states. What a network does not say, how
    signals mix, is filled in by equal weights. Raises GraphError where the network is no mixing
    graph (a node that the observed ones do not depend on, an observed root) and TableError where
    its tables are malformed.
    """
    pgmpy = _pgmpy()
    if not isinstance(model, pgmpy.models.DiscreteBayesianNetwork):
        raise GraphError(
            f"expected pgmpy's DiscreteBayesianNetwork, got {type(model).__name__}. Of a factor "
            "graph use from_pgmpy_factors(model)."
        )
    _check_names(model)
    import networkx as nx

    order = {node: place for place, node in enumerate(model)}
    parents: dict[str, Sequence[str]] = {}
    arrays: dict[str, Tensor] = {}
    for node in nx.lexicographical_topological_sort(model, key=order.__getitem__):
        cpd = model.get_cpds(node)
        if cpd is None:
            raise TableError(f"node '{node}' has no CPD; add one with model.add_cpds(...).")
        parents[node] = tuple(cpd.variables[1:])
        if set(parents[node]) != set(model.predecessors(node)):
            raise TableError(
                f"the CPD of '{node}' is given {list(parents[node])}, but edges lead to it from "
                f"{list(model.predecessors(node))}."
            )
        arrays[node] = torch.as_tensor(cpd.values, dtype=torch.float64).movedim(0, -1)
    sizes = {node: array.shape[-1] for node, array in arrays.items()}
    names = [observed] if isinstance(observed, str) else list(observed)
    graph = network_graph(
        getattr(model, "name", "") or "network", parents, sizes, dict.fromkeys(names, Token())
    )
    tables = {}
    for node in graph.mixtures:
        try:
            tables[node] = Table.from_array(arrays[node])
        except TableError as error:
            raise TableError(
                f"the CPD of '{node}' is no conditional distribution: {error} pgmpy scales one by "
                f"model.get_cpds('{node}').normalize()."
            ) from error
    return graph, tables, {node: arrays[node].log() for node in graph.sources}


def from_pgmpy_factors(model: FactorGraph) -> Read:
    """A factor graph as a mixing graph with the same posterior: graph, tables, log priors and
    evidence.

    Every variable becomes a source. Every factor f over several becomes a binary mixture, named
    "f(a, b)" and observed to be 1, with p(1 | a, b) = f / max f; the maxima go into the priors, so
    that the log evidence is the log of the sum over the product of all factors. Raises GraphError
    and TableError.
    """
    pgmpy = _pgmpy()
    if not isinstance(model, pgmpy.models.FactorGraph):
        raise GraphError(
            f"expected pgmpy's FactorGraph, got {type(model).__name__}. Of a Bayesian network use "
            "from_pgmpy(model, observed)."
        )
    variables = [node for node in model if any(node in f.variables for f in model.factors)]
    _check_names(variables)
    cards = model.get_cardinality()
    factors = [
        (tuple(f.variables), torch.as_tensor(f.values, dtype=torch.float64)) for f in model.factors
    ]
    sizes = {name: int(cards[name]) for name in variables}
    return factor_graph("factors", sizes, factors, model.graph.get("log_scale", 0.0))


def _check_names(nodes: Any) -> None:
    if odd := [node for node in nodes if not isinstance(node, str)]:
        raise GraphError(f"sites are named by strings, got {odd[:3]!r}. Rename the nodes.")


def _pgmpy() -> Any:
    try:
        import pgmpy.models
    except ImportError as error:
        raise MlassError(
            f"this bridge needs pgmpy ({error}). Install it: pip install 'mlass-ppl[pgmpy]'."
        ) from error
    return pgmpy
