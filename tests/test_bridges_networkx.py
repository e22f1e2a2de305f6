"""Directed graphs of networkx as mixing graphs, and back."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given

from mlass_ppl import (
    Feature,
    GraphError,
    Mix,
    MixingGraph,
    Soft,
    Source,
    Token,
    balanced,
    chain,
    compile_program,
    joint,
    mix,
    source,
    star,
)
from mlass_ppl.bridges import from_networkx, to_networkx
from mlass_ppl.testing import random_graph


def everything():
    a = source("a", prior="digit", alphabet=3, label=2)
    b = source("b", prior="digit", alphabet=3)
    c = source("c")
    pair = mix("pair", b, a, alphabet=4, codec="fine", symmetric=True)
    left = mix("left", c, pair, weights=(0.7, 0.3), evidence=Feature(0.5))
    right = mix("right", pair, hidden=[c], weights=(0.2, 0.8), evidence=Soft(2.0))
    return right, left, mix("third", pair, b, evidence=Token(0.5))


@given(graph=random_graph(tree=False))
def test_random_graphs_come_back(graph: MixingGraph) -> None:
    assert from_networkx(to_networkx(graph)) == graph


@pytest.mark.parametrize("program", [everything, joint(3), chain(4), star(3), balanced(5)])
def test_everything_that_is_declared_comes_back(program) -> None:
    graph = compile_program(program)
    other = graph.to_networkx()
    assert from_networkx(other) == graph
    assert from_networkx(nx.relabel_nodes(other, str), name="other").name == "other"


def test_attributes_say_what_is_declared() -> None:
    graph = compile_program(everything).to_networkx()
    assert graph.nodes["a"] == {
        "kind": "source", "observed": False, "prior": "digit", "alphabet": 3, "label": 2,
    }  # fmt: skip
    assert graph.nodes["pair"] == {
        "kind": "mix", "observed": False, "alphabet": 4, "codec": "fine", "symmetric": True,
    }  # fmt: skip
    assert graph.nodes["left"] == {"kind": "mix", "observed": True, "evidence": Feature(0.5)}
    assert graph.edges["b", "pair"] == {"weight": 0.5, "hidden": False, "place": 0}
    assert graph.edges["c", "right"] == {"weight": 0.8, "hidden": True, "place": 1}


def test_a_plain_graph_is_enough() -> None:
    """Sinks are observed, mixtures are the mean of their sources, in the order of the edges."""
    graph = nx.DiGraph([("pair", "song"), ("b", "pair"), ("a", "pair"), ("c", "song")])
    found = from_networkx(graph)
    assert found == MixingGraph(
        "graph",
        (
            Source("b"),
            Source("a"),
            Mix("pair", ("b", "a"), (0.5, 0.5)),
            Source("c"),
            Mix("song", ("pair", "c"), (2 / 3, 1 / 3)),
        ),
        ("song",),
    )


def test_what_is_no_mixing_graph_is_refused() -> None:
    with pytest.raises(GraphError, match=r"expected a networkx\.DiGraph, .* got Graph"):
        from_networkx(nx.Graph([("a", "m")]))
    with pytest.raises(GraphError, match=r"cannot be part of itself: m -> k -> m\. Expected a"):
        from_networkx(nx.DiGraph([("a", "m"), ("m", "k"), ("k", "m")]))
    with pytest.raises(
        GraphError, match=r"named by strings, got \[1, 2\]\. Rename .*relabel_nodes"
    ):
        from_networkx(nx.DiGraph([(1, 2)]))
    graph = nx.DiGraph([("a", "m")])
    graph.add_node("loose")
    with pytest.raises(GraphError, match="returns the source 'loose'"):
        from_networkx(graph)
    graph.nodes["m"]["observed"] = True
    with pytest.raises(GraphError, match="declares 'loose', which the observed 'm' does not"):
        from_networkx(graph)
    with pytest.raises(GraphError, match="declares no source"):
        from_networkx(nx.DiGraph())
