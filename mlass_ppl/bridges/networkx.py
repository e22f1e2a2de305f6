"""Mixing graphs as directed graphs of networkx, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import GraphError
from ..evidence import Token
from ..graph import Mix, MixingGraph, Site, Source, mean_weights

if TYPE_CHECKING:
    import networkx as nx


def to_networkx(graph: MixingGraph) -> nx.DiGraph:
    """Directed graph with all that the sites declare, so that `from_networkx` gives it back.

    Nodes are the sites, in order: `kind` ("source" or "mix"), `observed`, and where they are
    declared `alphabet`, `prior`, `label`, `codec`, `symmetric`; observed ones have `evidence`, as
    `Soft()`. Edges lead from parts to mixtures: `weight`, `hidden`, and `place` among the parts.
    """
    import networkx as nx

    out = nx.DiGraph(name=graph.name)
    for site in graph.sites:
        observed = site.name in graph.observed
        facts: dict[str, Any] = {"observed": observed, "alphabet": site.alphabet}
        if isinstance(site, Source):
            facts |= {"kind": "source", "prior": site.prior, "label": site.label}
        else:
            facts |= {"kind": "mix", "codec": site.codec, "symmetric": site.symmetric or None}
            facts["evidence"] = site.evidence if observed else None
        out.add_node(site.name, **{key: value for key, value in facts.items() if value is not None})
        if isinstance(site, Mix):
            parts = zip(site.parents + site.hidden, site.weights, strict=True)
            for place, (part, weight) in enumerate(parts):
                hidden = part in site.hidden
                out.add_edge(part, site.name, weight=weight, hidden=hidden, place=place)
    if list(graph.observed) != [name for name, seen in out.nodes(data="observed") if seen]:
        out.graph["observed"] = list(graph.observed)  # in the order that the program returned
    return out


def from_networkx(graph: nx.DiGraph, name: str | None = None) -> MixingGraph:
    """A mixing graph from a directed acyclic graph whose nodes are named by strings.

    Nodes that nothing leads to are sources, the others mixtures. All attributes of `to_networkx`
    are read and none is needed: by default a mixture is the mean of its sources, its parts are in
    the order of their edges, and the nodes that lead nowhere are observed. name: of the graph
    (default: its own). Raises GraphError when it is undirected, has a cycle or is no mixing graph.
    """
    import networkx as nx

    if not graph.is_directed() or graph.is_multigraph():
        raise GraphError(
            f"expected a networkx.DiGraph, with edges from parts to mixtures; got "
            f"{type(graph).__name__}."
        )
    if odd := [node for node in graph if not isinstance(node, str)]:
        raise GraphError(
            f"sites are named by strings, got {odd[:3]!r}. Rename the nodes: "
            "networkx.relabel_nodes(graph, str)."
        )
    if not nx.is_directed_acyclic_graph(graph):
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
        raise GraphError(
            f"a mixture cannot be part of itself: {' -> '.join([*cycle, cycle[0]])}. Expected a "
            "directed graph without cycles, with edges from parts to mixtures."
        )
    title = graph.name or "graph" if name is None else name
    order = {node: place for place, node in enumerate(graph)}
    leaves: dict[str, set[str]] = {}
    sites: list[Site] = []
    for node in nx.lexicographical_topological_sort(graph, key=order.__getitem__):
        facts = graph.nodes[node]
        edges = [(part, graph.edges[part, node]) for part in graph.predecessors(node)]
        if not edges:
            leaves[node] = {node}
            keys = ("prior", "alphabet", "label")
            sites.append(Source(node, *(facts.get(key) for key in keys)))
            continue
        parts = sorted(enumerate(edges), key=lambda item: item[1][1].get("place", item[0]))
        edges = sorted((edge for _, edge in parts), key=lambda edge: bool(edge[1].get("hidden")))
        leaves[node] = {leaf for part, _ in edges for leaf in leaves[part]}
        mean = mean_weights([leaves[part] for part, _ in edges])
        sites.append(
            Mix(
                node,
                tuple(part for part, edge in edges if not edge.get("hidden")),
                tuple(
                    edge.get("weight", share) for (_, edge), share in zip(edges, mean, strict=True)
                ),
                tuple(part for part, edge in edges if edge.get("hidden")),
                facts.get("alphabet"),
                facts.get("evidence", Token()),
                facts.get("codec"),
                bool(facts.get("symmetric", False)),
            )
        )
    marked = [node for node in graph if graph.nodes[node].get("observed")]
    ends = [node for node in graph if not graph.out_degree(node)]
    return MixingGraph(title, tuple(sites), tuple(graph.graph.get("observed") or marked or ends))
