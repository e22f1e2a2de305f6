"""Programs: what compiles, and what is refused with a sentence."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from mlass_ppl import GraphError, Mix, Source, chain, compile_program, mix, source


def trio():
    drums = source("drums", prior="beat", alphabet=3)
    bass = source("bass")
    rhythm = mix("rhythm", drums, bass, weights=(0.25, 0.75), alphabet=4)
    return mix("song", rhythm, source("piano"))


def test_a_program_becomes_a_graph():
    graph = compile_program(trio)
    assert graph.name == "trio"
    assert graph.sites == (
        Source("drums", "beat", 3),
        Source("bass"),
        Mix("rhythm", ("drums", "bass"), (0.25, 0.75), (), 4),
        Source("piano"),
        Mix("song", ("rhythm", "piano"), (2 / 3, 1 / 3)),  # the mean of three leaves
    )
    assert graph.observed == ("song",)
    assert compile_program(trio) == graph
    assert compile_program(graph) is graph


def test_hidden_sites_are_part_of_the_signal_and_not_of_the_table():
    def program():
        a, b, c = source("a"), source("b"), source("c")
        return mix("m", a, hidden=[mix("bc", b, c, weights=(0.5, 0.5))], weights=(0.2, 0.8))

    graph = compile_program(program)
    assert graph.site("m") == Mix("m", ("a",), (0.2, 0.8), ("bc",))
    assert graph.leaf_weights("m") == pytest.approx({"a": 0.2, "b": 0.4, "c": 0.4})


def test_several_observed_sites():
    def program():
        a, b = source("a"), source("b")
        return mix("left", a, b, weights=(0.9, 0.1)), mix("right", a, b, weights=(0.1, 0.9))

    assert compile_program(program).observed == ("left", "right")


def test_loops_and_closures_are_plain_python():
    def program():
        partial = source("s0")
        for i in range(1, 4):
            partial = mix(f"m{i}", partial, source(f"s{i}"))
        return partial

    graph = compile_program(program)
    assert graph.sources == ("s0", "s1", "s2", "s3")
    assert graph.leaf_weights("m3") == pytest.approx(dict.fromkeys(graph.sources, 0.25))


USES = {
    "bool": lambda a, b: mix("m", a, b) if a else None,
    "not": lambda a, b: mix("m", a, b) if not a else None,
    "equality": lambda a, b: mix("m", a, b) if a == 1 else None,
    "inequality": lambda a, b: mix("m", a, b) if a != b else None,
    "order": lambda a, b: mix("m", a, b) if a < 3 else None,
    "membership": lambda a, b: mix("m", a, b) if a in [0, 1] else None,
    "int": lambda a, b: mix(f"m{int(a)}", a, b),
    "float": lambda a, b: mix("m", a, b, weights=(float(a), 0.5)),
    "range": lambda a, b: [mix(f"m{i}", a, b) for i in range(a)],
    "iteration": lambda a, b: [mix(f"m{i}", a, b) for i in a],
    "indexing": lambda a, b: mix("m", a[0], b),
    "as index": lambda a, b: mix("m", [a, b][a], b),
    "length": lambda a, b: mix("m", a, b) if len(a) else None,
    "sum": lambda a, b: mix("m", a + b),
    "scaling": lambda a, b: mix("m", 0.5 * a, b),
    "negation": lambda a, b: mix("m", -a, b),
    "method": lambda a, b: mix("m", a.item(), b),
    "torch": lambda a, b: mix("m", torch.where(a, 0, 1), b),
    "tensor": lambda a, b: mix("m", torch.as_tensor(a), b),
    "call": lambda a, b: mix("m", a(), b),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_program_cannot_compute_with_a_value(use):
    """An `if` on a latent would silently compile one of its branches."""

    def program():
        return use(source("a"), source("b"))

    with pytest.raises(GraphError, match=r"site 'a' is not known .* write one program for each"):
        compile_program(program)


REFUSED = {
    "no program": (5, "expected a program .* got int"),
    "argument": (chain, r"missing a required argument: 'n'; .* takes none\. Wrap it"),
    "returns nothing": (lambda: None, r"returned None; expected the observed mixture site"),
    "returns no site": (lambda: (source("a"), 3), "returned 3; expected the observed mixture"),
    "empty tuple": (lambda: (source("a"), ())[1], r"observes nothing: return the site"),
    "observed source": (lambda: source("a"), r"returns the source 'a'; .* return mix\("),
    "observed twice": (lambda: [mix("m", source("a"))] * 2, r"returns a site twice: \['m', 'm'\]"),
    "no source": (lambda: mix("m"), r"'m' .* has no parents: mix\(name, first, second"),
    "named twice": (lambda: mix("m", source("a"), source("a")), "declares site 'a' twice"),
    "mixture named as source": (lambda: mix("a", source("a")), "declares site 'a' twice"),
    "part twice": (
        lambda: (lambda a: mix("m", a, a))(source("a")),
        r"'m' .* takes a part twice: \['a', 'a'\]",
    ),
    "part hidden too": (
        lambda: (lambda a: mix("m", a, hidden=[a]))(source("a")),
        r"'m' .* takes a part twice",
    ),
    "part no site": (lambda: mix("m", source("a"), 0.5), r"'m' takes 0\.5; expected sites that"),
    "list of parts": (lambda: mix("m", [source("a")]), r"'m' takes \[site 'a'\]; expected sites"),
    "hidden no list": (
        lambda: mix("m", source("a"), hidden=source("b")),
        r"hidden of mixture 'm' must be a list of sites, as hidden=\[b\]; got site 'b'",
    ),
    "dangling source": (
        lambda: (source("loose"), mix("m", source("a")))[1],
        r"declares \['loose'\], which the observed \['m'\] do not depend on: .* drop them",
    ),
    "dangling mixture": (
        lambda: (lambda a: (mix("loose", a), mix("m", a))[1])(source("a")),
        r"declares \['loose'\]",
    ),
    "other distribution": (
        lambda: mix("m", pyro.sample("x", dist.Normal(0, 1))),
        "site 'x' .* samples Normal; a mixing program has only mlass_ppl.source",
    ),
    "nameless": (lambda: mix("", source("a")), "a site needs a name, .* got ''"),
    "name forgotten": (
        lambda: mix(source("a"), source("b")),
        "a site needs a name, a non-empty string; got site 'a'",
    ),
    "no alphabet": (lambda: source("a", alphabet=0), "alphabet of 'a' must be a positive integer"),
    "half alphabet": (lambda: mix("m", source("a"), alphabet=2.5), r"alphabet of 'm' .* got 2\.5"),
    "true alphabet": (lambda: source("a", alphabet=True), "alphabet of 'a' .* got True"),
    "too few weights": (
        lambda: mix("m", source("a"), source("b"), weights=(1,)),
        "'m' .* has 2 parts and 1 weights",
    ),
    "weights beyond 1": (
        lambda: mix("m", source("a"), source("b"), weights=(0.5, 0.6)),
        r"weights of mixture 'm' must be positive and sum to 1, got \(0\.5, 0\.6\) \(sum 1\.1\)",
    ),
    "negative weight": (
        lambda: mix("m", source("a"), source("b"), weights=(1.5, -0.5)),
        "must be positive and sum to 1",
    ),
    "zero weight": (
        lambda: mix("m", source("a"), source("b"), weights=(1, 0)),
        "must be positive and sum to 1",
    ),
    "NaN weight": (
        lambda: mix("m", source("a"), weights=(float("nan"),)),
        "must be positive and sum to 1",
    ),
    "one number": (
        lambda: mix("m", source("a"), weights=1.0),
        "weights of mixture 'm' must be numbers, one for each part, got 1.0",
    ),
    "words": (
        lambda: mix("m", source("a"), weights=["much"]),
        r"weights of mixture 'm' must be numbers, one for each part, got \['much'\]",
    ),
}


@pytest.mark.parametrize(("program", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_malformed_programs_are_refused(program, message):
    with pytest.raises(GraphError, match=message):
        compile_program(program)


def test_a_site_of_another_program_is_refused():
    kept = []

    def first():
        kept.append(source("a"))
        return mix("m", kept[0])

    compile_program(first)
    with pytest.raises(GraphError, match="'m' takes 'a', a site of another program"):
        compile_program(lambda: mix("m", kept[0], source("b")))


@pytest.mark.parametrize("size", [3, None])
def test_plates_are_refused(size):
    def program():
        with pyro.plate("many", size):
            return mix("m", source("a"))

    with pytest.raises(GraphError, match=r"'program' uses plate 'many'; .* a Python loop"):
        compile_program(program)


def test_mistakes_inside_a_program_keep_their_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'wieghts'"):
        compile_program(lambda: mix("m", source("a"), wieghts=(1,)))
    with pytest.raises(ZeroDivisionError):
        compile_program(lambda: mix("m", source("a"), weights=(1 / 0,)))


def test_compiling_leaves_pyro_as_it_was():
    with pytest.raises(GraphError):
        compile_program(lambda: 1)
    with poutine.trace() as trace:
        compile_program(trio)
        pyro.sample("outside", dist.Bernoulli(0.5))
    assert [name for name in trace.trace.nodes if name != "_INPUT"] == ["outside"]


def test_running_a_bare_program_says_how_to_run_it():
    with pytest.raises(GraphError, match=r"site 'drums' has no distribution .* bind\(program"):
        trio()
