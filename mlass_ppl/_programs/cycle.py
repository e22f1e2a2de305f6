"""A cycle of a mixing graph's factor graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graph import MixingGraph


def find_cycle(graph: MixingGraph) -> list[str] | None:
    """Names of the sites along one cycle among factors and latent sites, or None for a forest."""
    import networkx as nx

    tied = nx.Graph()
    for factor in graph.factors:
        node = ("factor", factor.name)
        tied.add_node(node)
        for name in factor.tokens:
            if name in graph.latent:
                tied.add_edge(node, ("site", name))
    try:
        edges = nx.find_cycle(tied)
    except nx.NetworkXNoCycle:
        return None
    return [node[1] for edge in edges for node in edge[:1] if node[0] == "site"]
