"""Programs: what compiles, and what is refused with a sentence."""

from __future__ import annotations

from functools import partial
from inspect import signature

import numpy
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import mlass_ppl
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


BRANCH = r"the value of site 'a' is not known while .* write one program for each case"
NUMBER = r"the value of site 'a' is not known while .* no number for int\(\), .* range\(3\)"
PARTS = r"site 'a' is a single token, .* no parts to .*source\(f'a_\{i\}'\) for i in range\(3\)"
SUM = r"site 'a' cannot be computed with \(.*\): .* mix\('m', a, b, weights=\(0\.7, 0\.3\)\)"
TENSOR = r"the value of site 'a' is not known while .* torch and NumPy cannot take it, .* tables="
NOTHING = r"the value of site 'a' is not known while .* it has no '"

USES = {
    BRANCH: (
        "1 if a else 0", "not a", "a and b", "a == 1", "a != b", "a < 3", "a >= b", "a in [0, 1]",
        "max(b, a)", "sorted([b, a])",
    ),
    NUMBER: (
        "int(a)", "float(a)", "complex(a)", "range(a)", "[a, b][a]", "'xy'[a]", "round(a)",
        "f'm{a:02d}'", "chr(a)",
    ),
    PARTS: ("list(a)", "[*a]", "a[0]", "a[:, 1]", "len(a)", "1 in a", "reversed(a)"),
    SUM: (
        "a + b", "1 + a", "a - b", "0.5 * a", "a / 2", "2 / a", "a // 2", "a % 2", "a ** 2",
        "2 ** a", "-a", "abs(a)", "~a", "a & b", "a @ b", "sum([a, b])", "numpy.float64(0.5) * a",
        "numpy.add(a, 1)",
    ),
    TENSOR: (
        "torch.where(a, 0, 1)", "torch.stack([a, b])", "torch.tensor(0.5) * a", "T[a]", "T[a, b]",
        "T[a][b]", "T[..., a]", "numpy.asarray(a)", "T.numpy()[a, b]", "dist.Categorical(T[0, a])",
        "dist.Normal(a, 1)", "torch.nn.functional.one_hot(a, 3)",
    ),
    NOTHING: ("a.item()", "a.long()", "a()", "a.shape"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "message"), [(code, message) for message, codes in USES.items() for code in codes]
)
def test_a_program_cannot_compute_with_a_value(code, message):
    """An `if` on a latent would silently compile one of its branches."""
    names = {"torch": torch, "numpy": numpy, "dist": dist, "T": torch.full((2, 2, 2), 0.5)}

    def program():
        a, b = source("a"), source("b")
        eval(code, {**names, "a": a, "b": b})
        return mix("m", a, b)

    with pytest.raises(GraphError, match=message):
        compile_program(program)


def test_a_site_has_a_name_and_prints_itself():
    def program():
        a = source("a")
        assert (a.name, repr(a), f"{a}") == ("a", "site 'a'", "site 'a'")
        return mix("m", a)

    compile_program(program)


REFUSED = {
    "no program": (5, r"expected a program, .* got int\. Pass the function itself"),
    "argument": (chain, r"missing a required argument: 'sources'; .* takes none\. Wrap it"),
    "returns nothing": (lambda: None, r"returned None; expected the observed mixture site"),
    "returns no site": (lambda: (source("a"), 3), "returned 3; expected the observed mixture"),
    "empty tuple": (lambda: (source("a"), ())[1], r"observes nothing: return the site"),
    "observed source": (lambda: source("a"), r"returns the source 'a', but .* return mix\("),
    "observed twice": (lambda: [mix("m", source("a"))] * 2, r"returns a site twice: \['m', 'm'\]"),
    "no source": (lambda: mix("m"), r"'m' .* has no parents\. Name what it mixes: mix\("),
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
        "declares 'loose', which the observed 'm' does not depend on: .* drop it",
    ),
    "dangling mixture": (
        lambda: (lambda a: (mix("loose", a), mix("m", a))[1])(source("a")),
        "declares 'loose', which the observed 'm' does not",
    ),
    "other distribution": (
        lambda: mix("m", pyro.sample("x", dist.Normal(0, 1))),
        r"site 'x' .* samples Normal, a continuous variable; .* by source\('x'\) or mix\('x'",
    ),
    "nameless": (lambda: mix("", source("a")), "a site needs a name, .* got ''"),
    "name forgotten": (
        lambda: mix(source("a"), source("b")),
        "a site needs a name, a non-empty string, .* got site 'a'",
    ),
    "no alphabet": (lambda: source("a", alphabet=0), "alphabet of 'a' must be a positive integer"),
    "half alphabet": (lambda: mix("m", source("a"), alphabet=2.5), r"alphabet of 'm' .* got 2\.5"),
    "true alphabet": (lambda: source("a", alphabet=True), "alphabet of 'a' .* got True"),
    "too few weights": (
        lambda: mix("m", source("a"), source("b"), weights=(1,)),
        r"'m' .* has 2 parts \(a, b\) and 1 weight\. .* weights=\(1/2, 1/2\)",
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
        r"weights of mixture 'm' must be numbers, one for each part, .* got 1\.0",
    ),
    "words": (
        lambda: mix("m", source("a"), weights=["much"]),
        r"weights of mixture 'm' must be numbers, one for each part, .* got \['much'\]",
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


def test_other_mistakes_inside_a_program_keep_their_own_error():
    with pytest.raises(TypeError, match="can only concatenate"):
        compile_program(lambda: mix("m" + 1, source("a")))
    with pytest.raises(ZeroDivisionError):
        compile_program(lambda: mix("m", source("a"), weights=(1 / 0,)))


@pytest.mark.parametrize("call", ["source", "mix"])
def test_options_that_messages_name_are_those_there_are(call):
    keywords = [
        name
        for name, parameter in signature(getattr(mlass_ppl, call)).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    with pytest.raises(GraphError, match=f"has {', '.join(f'{name}=' for name in keywords)}"):
        compile_program(lambda: getattr(mlass_ppl, call)("a", volume=3))


def test_a_callable_object_and_a_partial_are_programs():
    class Duo:
        def __call__(self):
            return mix("m", source("a"), source("b"))

    assert compile_program(Duo()).name == "Duo"
    assert compile_program(partial(lambda name: mix(name, source("a")), "m")).observed == ("m",)


def test_a_site_that_an_earlier_run_declared_is_refused_by_identity():
    """Its name alone would pass."""
    kept = []

    def program():
        kept.append(source("a"))
        return mix("m", kept[0])

    compile_program(program)
    with pytest.raises(GraphError, match="'m' takes 'a', a site of another program or of an earl"):
        compile_program(program)
    other: list = []
    compile_program(lambda: other.append(mix("m", source("a"))) or other[0])
    with pytest.raises(GraphError, match="returned 'm', a site of another program"):
        compile_program(lambda: [mix("m", source("a")), other[0]][1])


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        (("a", "louder"), r"parents weigh \(0\.3.*, 0\.6.*\): only parents of equal weight"),
        (("a", "other"), r"'a' and 'other' differ in prior \(\['beat'\] and \['tone'\]\), so they"),
        (("a", "small"), r"'a' and 'small' differ in alphabet \(9 and 4\)"),
        (("pair", "fine"), r"'pair' and 'fine' differ in codec \(the sources' and finer\)"),
        (("pair", "three"), r"'pair' and 'three' differ in their sources' shares"),
        (("a", "same"), None),
        (("pair", "twin"), None),
    ],
)
def test_symmetric_parents_are_exchangeable(parents, message):
    def program():
        sites = {
            "a": source("a", prior="beat", alphabet=9),
            "same": source("same", prior="beat"),
            "other": source("other", prior="tone"),
            "small": source("small", prior="beat", alphabet=4),
        }
        for name in ("pair", "twin", "fine", "louder"):
            left, right = source(f"{name}_1"), source(f"{name}_2")
            sites[name] = mix(name, left, right, codec="finer" if name == "fine" else None)
        sites["three"] = mix("three", *(source(f"three_{i}") for i in range(3)))
        equal = None if "louder" in parents else (0.5, 0.5)
        chosen = [sites.pop(name) for name in parents]
        song = mix("song", *chosen, weights=equal, symmetric=True)
        return song, mix("rest", *sites.values())

    if message is None:
        assert compile_program(program).site("song").symmetric
    else:
        with pytest.raises(GraphError, match=message):
            compile_program(program)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: pyro.condition(p, {"song": torch.tensor(1)}),
            "'song' .* is conditioned .* evid",
        ),
        (lambda p: poutine.do(p, {"rhythm": torch.tensor(1)}), "'rhythm' .* is intervened on"),
        (lambda p: poutine.scale(p, scale=0.5), r"'drums' .* is scaled .*=Token\(power=0\.5\)"),
        (lambda p: poutine.mask(p, mask=torch.tensor(True)), "'drums' .* is scaled or masked"),
    ],
)
def test_what_a_handler_says_of_a_program_is_not_lost(change, message):
    with pytest.raises(GraphError, match=message):
        compile_program(change(trio))


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
