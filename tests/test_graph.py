"""The frozen graph: ready-made shapes, checks, cycles, descriptions."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import networkx as nx
import pytest

from mlass_ppl import (
    BP,
    EngineError,
    Factor,
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

MANY = pytest.mark.parametrize("n", range(2, 7))


def names(n):
    return tuple(f"source_{i}" for i in range(1, n + 1))


def diamond():
    """Two observed mixtures of the same two latent sources."""
    a, b = source("a"), source("b")
    return mix("left", a, b, weights=(0.9, 0.1)), mix("right", a, b, weights=(0.1, 0.9))


def ring():
    """drums - rhythm - song - drums."""
    drums, bass = source("drums"), source("bass")
    return mix("song", mix("rhythm", drums, bass), drums)


@MANY
def test_joint(n):
    graph = compile_program(joint(n))
    assert (graph.name, graph.sources, graph.mixtures) == (f"joint({n})", names(n), ("mixture",))
    assert graph.factors == (Factor("mixture", names(n), "mixture"),)
    assert graph.latent == names(n)
    assert graph.is_tree


@MANY
def test_chain(n):
    graph = compile_program(chain(n))
    partial = tuple(f"mix_{i}" for i in range(2, n))
    assert graph.sources == names(n)
    assert graph.mixtures == (*partial, "mixture")
    assert graph.observed == ("mixture",)
    assert set(graph.latent) == {*names(n), *partial}
    left = ("source_1", *partial)
    for i, factor in enumerate(graph.factors):
        assert factor.parents == (left[i], f"source_{i + 2}")
        assert factor.scope == (factor.child, *factor.parents)
        assert factor.name == factor.child
    assert graph.is_tree


@MANY
def test_star(n):
    graph = compile_program(star(n))
    assert graph.observed == graph.mixtures == tuple(f"mixture_{i}" for i in range(1, n + 1))
    assert [factor.parents for factor in graph.factors] == [(name,) for name in names(n)]
    for i, name in enumerate(graph.mixtures):
        site = graph.site(name)
        assert set(site.hidden) == set(names(n)) - {f"source_{i + 1}"}
    assert graph.is_tree


@MANY
@pytest.mark.parametrize("shape", [joint, chain, star, balanced])
def test_every_shape_mixes_its_sources_alike(shape, n):
    graph = compile_program(shape(n))
    for name in graph.observed:
        assert graph.leaf_weights(name) == pytest.approx(dict.fromkeys(names(n), 1 / n))


@MANY
def test_partial_mixtures_of_a_chain_are_means(n):
    graph = compile_program(chain(n))
    for k in range(2, n):
        wanted = dict.fromkeys(names(k), 1 / k)
        assert graph.leaf_weights(f"mix_{k}") == pytest.approx(wanted)
        assert sum(graph.site(f"mix_{k}").weights) == pytest.approx(1.0)


@MANY
def test_balanced(n):
    graph = compile_program(balanced(n))
    assert graph.sources == names(n)
    assert graph.observed == ("mixture",)
    assert len(graph.factors) == n - 1
    assert all(len(factor.parents) == 2 for factor in graph.factors)
    depth = dict.fromkeys(graph.sources, 0)
    for factor in graph.factors:
        depth[factor.child] = 1 + max(depth[parent] for parent in factor.parents)
    assert depth["mixture"] == (n - 1).bit_length()  # log2, rounded up
    assert graph.is_tree


def test_balanced_names_a_part_after_its_first_and_last_source():
    graph = compile_program(balanced(5))
    assert graph.mixtures == ("mix_1_2", "mix_1_3", "mix_4_5", "mixture")
    assert graph.leaf_weights("mix_1_3") == pytest.approx(dict.fromkeys(names(3), 1 / 3))


@pytest.mark.parametrize("shape", [joint, chain, star, balanced])
def test_shapes_pass_their_prior_and_evidence_on(shape):
    graph = compile_program(shape(3, prior="digit", evidence=Feature(0.5)))
    assert {graph.site(name).prior for name in graph.sources} == {"digit"}
    assert {graph.evidence(name) for name in graph.observed} == {Feature(0.5)}
    assert all(graph.site(name).evidence == Token() for name in graph.mixtures
               if name not in graph.observed)  # fmt: skip


@pytest.mark.parametrize("n", [1, 0, -2, 2.0, "3", None])
@pytest.mark.parametrize("shape", [joint, chain, star, balanced])
def test_a_mixture_has_two_or_more_sources(shape, n):
    with pytest.raises(GraphError, match=f"two or more sources, got n={n!r}"):
        shape(n)


def test_leaf_weights_follow_shared_parts():
    graph = compile_program(ring)  # rhythm = drums / 2 + bass / 2; song = 2/3 rhythm + 1/3 drums
    assert graph.leaf_weights("song") == pytest.approx({"drums": 2 / 3, "bass": 1 / 3})
    assert graph.leaf_weights("bass") == {"bass": 1.0}


# --- cycles -----------------------------------------------------------------------------------


def assert_closed(cycle, graph):
    """Neighbours on a cycle share a factor, and each factor serves once."""
    assert len(cycle) >= 2
    assert not set(cycle) & set(graph.observed)
    sharing = [
        {factor.name for factor in graph.factors if {left, right} <= set(factor.scope)}
        for left, right in zip(cycle, [*cycle[1:], cycle[0]], strict=True)
    ]
    assert all(sharing)
    assert len(set.union(*sharing)) >= 2


@pytest.mark.parametrize("program", [diamond, ring])
def test_cycles_are_named(program):
    graph = compile_program(program)
    assert not graph.is_tree
    cycle = graph.cycle()
    assert_closed(cycle, graph)
    path = " - ".join([*cycle, cycle[0]])
    with pytest.raises(EngineError, match=rf"BP\(\) needs a tree; .*{path}\. Use "):
        BP().plan(graph, {})  # said before a missing table


def test_observed_sites_cut_cycles():
    def program():
        drums, bass = source("drums"), source("bass")
        rhythm = mix("rhythm", drums, bass)
        return rhythm, mix("song", rhythm, source("piano"))

    assert compile_program(program).is_tree
    assert compile_program(ring).cycle() is not None

    def observed_ring():
        drums, bass = source("drums"), source("bass")
        rhythm = mix("rhythm", drums, bass)
        return rhythm, mix("song", rhythm, drums)

    assert compile_program(observed_ring).is_tree


def test_hidden_sites_close_no_cycle():
    assert compile_program(star(4)).is_tree


# --- checks on graphs made by hand --------------------------------------------------------------

A, B = Source("a"), Source("b")
M = Mix("m", ("a", "b"), (0.5, 0.5))


@pytest.mark.parametrize(
    ("sites", "observed", "message"),
    [
        ((A, B, A, M), ("m",), "declares site 'a' twice"),
        ((A, M, B), ("m",), r"'m' .* takes 'b', which is not declared before it"),
        ((A, B, M), (), "observes nothing: return the site"),
        ((A, B, M), ("x",), "returns 'x', which it does not declare"),
        ((A, B, M), ("m", "m"), "returns a site twice"),
        ((A, B, M), ("a",), "returns the source 'a'"),
        ((A, B, Mix("m", ("a",), (1.0,))), ("m",), "declares 'b', which the observed 'm' does not"),
        ((A, Mix("m", (), ())), ("m",), "'m' .* has no parents"),
        ((A, Mix("m", ("a",), (0.5,))), ("m",), r"must be positive and sum to 1, got \(0\.5,\)"),
        ((A, B, Mix("m", ("a",), (1.0,), ("b",))), ("m",), r"has 2 parts \(a, b\) and 1 weight\."),
        ((), ("m",), "declares no source"),
        (
            (A, B, M),
            "m",
            r"observed of 'hand' must be a tuple of names, as \('mixture',\); got 'm'",
        ),
        ((A, B, M), ("m", "x"), "returns 'x', which it does not declare"),
        ((Source("a", label=-1), B, M), ("m",), r"label of source 'a' must be a class number"),
        ((Source("a", alphabet=0), B, M), ("m",), "alphabet of 'a' must be a positive integer"),
        (
            (A, B, replace(M, evidence="Soft()")),
            ("m",),
            r"kind of what is observed, .* got 'Soft\(\)'",
        ),
        ((A, B, replace(M, evidence=Soft)), ("m",), r"is the class Soft, .* evidence=Soft\(\)"),
        (
            (A, B, replace(M, evidence=Soft()), Mix("k", ("m", "a"), (0.5, 0.5))),
            ("k",),
            r"'m' of 'hand' declares evidence=Soft\(temperature=1\.0\), but is not observed",
        ),
        (
            (A, B, replace(M, evidence=Feature()), Mix("k", ("m", "a"), (0.5, 0.5))),
            ("k", "m"),
            "'k' of 'hand' takes 'm' as a parent, but of 'm' a continuous feature is observed",
        ),
    ],
)
def test_a_graph_made_by_hand_is_checked(sites, observed, message):
    with pytest.raises(GraphError, match=message):
        MixingGraph("hand", sites, observed)


def test_unknown_sites_are_named():
    with pytest.raises(GraphError, match=r"'hand' has no site 'x'; it has \['a', 'b', 'm'\]"):
        MixingGraph("hand", (A, B, M), ("m",)).site("x")


def test_graphs_are_frozen_and_hashable():
    graph = compile_program(chain(3))
    with pytest.raises(FrozenInstanceError):
        graph.name = "other"
    assert hash(graph) == hash(compile_program(chain(3)))
    assert graph != compile_program(chain(4))


# --- evidence -----------------------------------------------------------------------------------


def stereo(left=Token(), right=Token(), middle=Token()):
    def program():
        a, b = source("a"), source("b")
        return (
            mix("left", a, b, weights=(0.9, 0.1), evidence=left),
            mix("right", a, b, weights=(0.1, 0.9), evidence=right),
            mix("middle", a, b, evidence=middle),
        )

    return compile_program(program)


def test_what_is_known_and_what_is_latent_follows_from_the_evidence():
    graph = stereo(Token(0.5), Soft(2.0), Feature())
    assert (graph.known, graph.soft, graph.features) == (("left",), ("right",), ("middle",))
    assert graph.latent == ("a", "b", "right")
    assert graph.observed == ("left", "right", "middle")
    assert [factor.feature for factor in graph.factors] == [False, False, True]
    assert graph.factors[0].tokens == ("left", "a", "b")
    assert graph.factors[2].tokens == ("a", "b")
    assert graph.factors[2].scope == ("middle", "a", "b")


def test_evidence_changes_which_sites_close_a_cycle():
    assert stereo(Token(), Token(), Token()).cycle() is not None
    one = compile_program(joint(3, evidence=Feature()))
    assert one.is_tree

    def program():
        drums, bass = source("drums"), source("bass")
        rhythm = mix("rhythm", drums, bass)
        return rhythm, mix("song", rhythm, drums)

    graph = compile_program(program)
    assert graph.is_tree  # the token of `rhythm` cuts it
    soft = graph.with_evidence({"rhythm": Soft()})
    assert set(soft.cycle()) == {"rhythm", "drums"}


def test_with_evidence_changes_nothing_else():
    graph = stereo()
    other = graph.with_evidence({"left": Soft(), "middle": Feature(2.0)})
    assert [other.evidence(name) for name in other.observed] == [Soft(), Token(), Feature(2.0)]
    assert graph.evidence("left") == Token()
    assert other.with_evidence({"left": Token(), "middle": Token()}) == graph
    with pytest.raises(GraphError, match=r"'program' does not observe 'a'; .* given as its prior"):
        graph.with_evidence({"a": Soft()})
    with pytest.raises(GraphError, match="has no site 'x'"):
        graph.with_evidence({"x": Soft()})
    with pytest.raises(GraphError, match=r"is the class Feature, .* evidence=Feature\(\)"):
        graph.with_evidence({"left": Feature})


@pytest.mark.parametrize("power", [0, -1, float("inf"), float("nan")])
def test_powers_and_temperatures_are_positive(power):
    for make in (Token, Feature, Soft):
        with pytest.raises(GraphError, match=rf"{make.__name__}\(\w+=\.\.\.\) must be positive"):
            make(power)


# --- showing ----------------------------------------------------------------------------------


def test_describe_shows_sites_alphabets_factors_and_costs():
    text = compile_program(chain(3)).describe(alphabet=256)
    assert "chain(3): 3 sources, 2 mixtures" in text
    assert text.count("K=256") == 5
    assert "p(. | source_1, source_2), signal = 0.5 source_1 + 0.5 source_2" in text
    assert "observed, p(. | mix_2, source_3), signal = 0.667 mix_2 + 0.333 source_3" in text
    costs = [line.split() for line in text.splitlines()[-3:]]
    assert [line[0] for line in costs] == ["Exact", "BP", "Extractor"]
    # of 256^4 joint states never more than those of three sites; as many cells; 3 * 256 tokens
    assert float(costs[0][1]) == pytest.approx(256**3 + 256**2, rel=0.05)
    assert float(costs[0][3]) == pytest.approx(256**3, rel=0.05)
    assert float(costs[1][1]) == pytest.approx(256**3 + 256**2, rel=0.05)
    assert float(costs[2][1]) == 768


def test_describe_takes_alphabets_by_site_and_declared_ones_first():
    def program():
        return mix("m", source("a", alphabet=3), source("b", prior="bass"))

    graph = compile_program(program)
    assert "K=?" in str(graph)
    assert "cost: alphabets unknown; pass describe(alphabet=256)" in str(graph)
    text = graph.describe({"a": 9, "b": 4, "m": 5})
    assert [f"K={size} " in text for size in (3, 4, 5, 9)] == [True, True, True, False]
    assert "source, prior 'bass'" in text
    assert "Exact      16 operations, 12 states" in text


def test_describe_names_what_bp_refuses():
    graph = compile_program(ring)
    line = next(line for line in graph.describe(4).splitlines() if line.strip().startswith("BP"))
    assert "refuses: cycle " + " - ".join([*graph.cycle(), graph.cycle()[0]]) in line


def test_describe_mentions_hidden_sites():
    text = str(compile_program(star(3)))
    assert "p(. | source_2, over source_1, source_3)" in text


@pytest.mark.parametrize("program", [chain(4), joint(3), star(3), diamond, ring])
def test_to_networkx_has_every_site_and_weight(program):
    graph = compile_program(program)
    other = graph.to_networkx()
    assert nx.is_directed_acyclic_graph(other)
    assert set(other.nodes) == {site.name for site in graph.sites}
    for name, facts in other.nodes.items():
        assert facts["kind"] == ("source" if name in graph.sources else "mix")
        assert facts["observed"] == (name in graph.observed)
    for site in graph.sites:
        found = {
            parent: (edge["weight"], edge["hidden"])
            for parent, _, edge in other.in_edges(site.name, data=True)
        }
        parts = [] if isinstance(site, Source) else [*site.parents, *site.hidden]
        assert set(found) == set(parts)
        assert sum(weight for weight, _ in found.values()) == pytest.approx(1.0 if parts else 0.0)
        assert {name for name, (_, hidden) in found.items() if hidden} == set(
            getattr(site, "hidden", ())
        )


def test_describe_shows_evidence_labels_codecs_and_symmetry():
    def program():
        a, b = source("a", prior="digit", label=3), source("b", prior="digit", label=0)
        pair = mix("pair", a, b, codec="fine", symmetric=True)
        c = source("c")
        return (
            mix("one", pair, c, evidence=Token(0.5)),
            mix("two", pair, c, evidence=Soft(2.0), codec="fine"),
            mix("three", pair, c, evidence=Soft()),
            mix("four", pair, c, evidence=Feature(0.3)),
            mix("five", pair, c, evidence=Feature()),
        )

    lines = {line.split()[0]: line for line in str(compile_program(program)).splitlines()[1:10]}
    assert lines["a"].endswith("source, prior 'digit', label 3")
    assert lines["b"].endswith("source, prior 'digit', label 0")
    assert lines["pair"].endswith("signal = 0.5 a + 0.5 b, codec 'fine', symmetric")
    assert "K=?     observed (power 0.5), p(. | pair, c)" in lines["one"]
    assert "observed as weights over its tokens at temperature 2, p(." in lines["two"]
    assert lines["two"].endswith("codec 'fine'")
    assert "observed as weights over its tokens, p(." in lines["three"]
    assert "K=-     observed as a feature (power 0.3), p(. | pair, c)" in lines["four"]
    assert "observed as a feature, p(. | pair, c)" in lines["five"]


def test_the_picture_shows_labels_codecs_and_evidence():
    def program():
        a, b = source("a", prior="digit", label=3, alphabet=9), source("b", label=4)
        left = mix("left", a, b, codec="fine", evidence=Soft())
        return left, mix("right", a, b, evidence=Feature())

    drawn = {
        text.get_text() for axes in compile_program(program).draw().axes for text in axes.texts
    }
    assert {"K=9, digit 3", "label 4", "soft, fine", "feature"} <= drawn
