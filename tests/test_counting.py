"""Counting a program's tables by simulation, against a loop over single tuples."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny import blobs, make_codec
from torch import Tensor

from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.errors import CodecError, DataError, OptionError, SignalError, TableError
from mlass_ppl.evidence import Feature, Soft
from mlass_ppl.infer import BP, Extractor
from mlass_ppl.shapes import chain, joint, star
from mlass_ppl.tables import Counts, Moments, Recipe, count

LEVELS = 13


class Levels:
    """Signals of three numbers, each a token: its twelfth. Thirds and halves of quarters of whole
    numbers are twelfths or eighths, so that rounding errors cannot change a token."""

    alphabet, signal_shape, token_shape = LEVELS, (3,), (3,)

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, signals: Tensor) -> Tensor:
        self.encoded += len(signals)
        return (signals * (LEVELS - 1) + 0.1).floor().long()

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens / (LEVELS - 1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents

    def decode(self, tokens: Tensor) -> Tensor:
        return self.embed(tokens)


def pool(number: int = 10, seed: int = 0) -> Tensor:
    """Signals whose entries are quarters."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, (number, 3), generator=generator) / 4


def weighted():
    return mix("m", source("a"), source("b"), weights=(0.75, 0.25))


def hidden():
    a, b, c = source("a"), source("b"), source("c")
    return mix("m", mix("ab", a, b), hidden=[c], weights=(0.5, 0.5))


def two_kinds():
    return mix("m", source("a", prior="low"), source("b", prior="high"))


def kind_of(graph):
    return lambda name: graph.site(name).prior or "signal"


def slowly(graph, factor, signals, mixtures: int, seed: int) -> Counter:
    """Every tuple of every position of every mixture, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    picks = {
        name: torch.randint(len(signals(name)), (mixtures,), generator=generator)
        for name in graph.sources
    }
    found: Counter = Counter()
    codec = Levels()
    for number in range(mixtures):
        tokens = {}
        for name in factor.scope:
            signal = torch.zeros(3, dtype=torch.float64)
            for leaf, weight in graph.leaf_weights(name).items():
                signal += weight * signals(leaf)[picks[leaf][number]].double()
            tokens[name] = codec.encode(signal[None])[0].tolist()
        for position in range(3):
            key = [tokens[name][position] for name in (*factor.parents, factor.child)]
            found[tuple(key)] += 1
    return found


def as_counter(counts: Counts) -> Counter:
    return Counter(
        {
            tuple(cell): number
            for cell, number in zip(counts.index().T.tolist(), counts.values.tolist(), strict=True)
        }
    )


@pytest.mark.parametrize("mixtures", [7, 60])  # fewer and more than the pool holds
@pytest.mark.parametrize("program", [joint(2), chain(3), star(3), weighted, hidden, two_kinds])
def test_counts_are_those_of_a_slow_loop(program, mixtures):
    graph = compile_program(program)
    pools = {"signal": pool(), "low": pool(8, 1) / 2, "high": pool(20, 2)}
    kind = kind_of(graph)
    counted = count(graph, Levels(), pools, mixtures=mixtures, seed=3, batch_size=16, kind=kind)
    for factor in graph.factors:
        counts = counted[Recipe.of(graph, factor, kind)]
        same = [
            f for f in graph.factors if Recipe.of(graph, f, kind) == Recipe.of(graph, factor, kind)
        ]
        if same[0] != factor:
            continue  # counted once, for the first factor of that recipe
        assert as_counter(counts) == slowly(graph, factor, lambda n: pools[kind(n)], mixtures, 3)
        assert counts.total == 3 * mixtures
        assert counts.shape == (LEVELS,) * len(factor.scope)


@pytest.mark.parametrize("program", [chain(3), star(2), hidden])
def test_the_batch_size_changes_nothing(program):
    graph = compile_program(program)
    runs = [
        count(graph, Levels(), pool(), mixtures=50, batch_size=size) for size in (1, 7, 50, 1000)
    ]
    assert runs[0] == runs[1] == runs[2] == runs[3]


def test_seeds_decide_the_mixtures():
    graph = compile_program(joint(2))

    def run(seed: int) -> Counts:
        (counts,) = count(graph, Levels(), pool(40), mixtures=30, seed=seed).values()
        return counts

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_counting_goes_on_from_what_there_is():
    graph = compile_program(chain(3))

    def run(mixtures: int, seed: int, **options):
        return count(graph, Levels(), pool(), mixtures=mixtures, seed=seed, **options)

    first, second = run(40, 0), run(25, 1)
    together = run(25, 1, start=first)
    assert together == {recipe: first[recipe] + second[recipe] for recipe in first}
    other = Recipe(("signal",), ((1.0,),), (1.0,))
    unrelated = {other: Counts.empty((LEVELS, LEVELS))}
    assert run(40, 0, start=unrelated) == first


def test_one_recipe_is_counted_once_and_serves_every_program():
    codec = Levels()
    chained, joined = compile_program(chain(3)), compile_program(joint(2))
    tables = count(chained, codec, pool(), mixtures=20)
    assert len(tables) == 2
    (recipe,) = count(joined, codec, pool(), mixtures=20)
    assert recipe in tables  # p(mix_2 | source_1, source_2) is p(mixture | ...) of joint(2)

    def renamed():
        return mix("song", source("drums"), source("bass"))

    graph = compile_program(renamed)
    assert Recipe.of(graph, graph.factors[0], lambda name: "signal") == recipe
    starred = compile_program(star(3))
    assert len(starred.factors) == 3
    assert len(count(starred, codec, pool(), mixtures=20)) == 1
    extractors = Extractor().factors(compile_program(joint(3)))
    assert {Recipe.of(compile_program(joint(3)), f, lambda n: "s") for f in extractors} == {
        Recipe.of(starred, f, lambda n: "s") for f in starred.factors
    }


def test_recipes_tell_apart_what_is_mixed_differently():
    def recipe(program, kind=None):
        graph = compile_program(program)
        return Recipe.of(graph, graph.factors[-1], kind or kind_of(graph))

    def swapped():
        return mix("m", source("b", prior="high"), source("a", prior="low"))

    def heavier():
        return mix("m", source("a"), source("b"), weights=(0.25, 0.75))

    different = [
        joint(2),
        joint(3),
        chain(3),
        star(2),
        weighted,
        heavier,
        hidden,
        two_kinds,
        swapped,
    ]
    recipes = [recipe(program) for program in different]
    assert len(set(recipes)) == len(different)
    assert len({found.slug for found in recipes}) == len(different)
    assert recipe(joint(2), lambda name: "other") != recipe(joint(2))
    for found in recipes:
        assert Recipe.from_json(found.to_json()) == found
    assert str(recipe(weighted)) == "p(0.75 signal#1 + 0.25 signal#2 | 1 signal#1; 1 signal#2)"


def test_slugs_of_tokens_are_those_of_stored_tables():
    """Recipes name the files of shipped bundles: they must not move."""
    first = Recipe(("digit", "digit"), ((1.0, 0.0), (0.0, 1.0)), (0.5, 0.5))
    assert first.slug == "2of2-6d24f29a"
    third = 0.333333
    eye = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert Recipe(("digit",) * 3, eye, (third,) * 3).slug == "3of3-a7994e87"
    old = {"leaves": ["digit"] * 2, "parents": [[1.0, 0.0], [0.0, 1.0]], "child": [0.5, 0.5]}
    assert Recipe.from_json(old) == first
    assert first.to_json() == old


def test_recipes_know_features_and_codecs_but_no_labels():
    def recipe(**options):
        def program():
            a, b = source("a", label=options.pop("label", None)), source("b")
            return mix("m", a, b, **options)

        graph = compile_program(program)
        return Recipe.of(graph, graph.factors[0], lambda name: "signal")

    plain = recipe()
    assert recipe(label=3) == plain
    assert recipe(evidence=Soft()) == plain
    assert recipe(symmetric=True) == plain
    feature, other = recipe(evidence=Feature()), recipe(codec="fine")
    both = recipe(evidence=Feature(), codec="fine")
    assert len({plain, feature, other, both}) == 4
    assert len({found.slug for found in (plain, feature, other, both)}) == 4
    for found in (plain, feature, other, both):
        assert Recipe.from_json(found.to_json()) == found
    mixed = "0.5 signal#1 + 0.5 signal#2"
    assert str(plain) == f"p({mixed} | 1 signal#1; 1 signal#2)"
    assert str(feature) == f"p(x({mixed}) | 1 signal#1; 1 signal#2)"
    assert str(other) == f"p(fine[{mixed}] | 1 signal#1; 1 signal#2)"
    assert str(both) == f"p(x(fine[{mixed}]) | 1 signal#1; 1 signal#2)"


def test_exchangeable_parents_hold_the_same():
    def recipe(program):
        graph = compile_program(program)
        return Recipe.of(graph, graph.factors[-1], kind_of(graph))

    def pairs(first: str, last: str, shares=(0.5, 0.5)):
        def run():
            a, b, c, d = (source(n, prior=p) for n, p in ("ax", "by", f"c{first}", f"d{last}"))
            return mix("m", mix("ab", a, b, weights=shares), mix("cd", c, d))

        return recipe(run)

    def shared(first, second):
        def run():
            a, b, c = source("a"), source("b"), source("c")
            return mix("m", mix("ab", a, b, weights=first), mix("ac", a, c, weights=second))

        return recipe(run)

    def coded():
        a, b = mix("a2", source("a"), codec="fine"), mix("b2", source("b"))
        return mix("m", a, b)

    for yes in (recipe(joint(2)), recipe(joint(3)), recipe(star(2)), recipe(hidden)):
        assert yes.exchangeable
    for no in (recipe(chain(3)), recipe(weighted), recipe(two_kinds), recipe(coded)):
        assert not no.exchangeable
    assert pairs("x", "y").exchangeable
    assert pairs("y", "x").exchangeable
    assert not pairs("x", "x").exchangeable
    assert not pairs("x", "y", (0.25, 0.75)).exchangeable
    assert shared((0.5, 0.5), (0.5, 0.5)).exchangeable
    assert not shared((0.75, 0.25), (0.25, 0.75)).exchangeable


def test_averaged_sources_are_interchangeable():
    """p(m | a) over b and c: the order in which b and c are declared is no part of the table."""

    def program(first: str, second: str):
        def run():
            a, b, c = source("a"), source("b", prior=first), source("c", prior=second)
            return mix("m", a, hidden=[b, c])

        graph = compile_program(run)
        return Recipe.of(graph, graph.factors[0], kind_of(graph))

    assert program("x", "y") == program("y", "x")


def test_each_kind_has_its_own_signals():
    graph = compile_program(two_kinds)
    low, high = torch.zeros(4, 3), torch.ones(4, 3)
    pools = {"low": low, "high": high}
    (counts,) = count(graph, Levels(), pools, mixtures=9, kind=kind_of(graph)).values()
    assert as_counter(counts) == {(0, 12, 6): 27}


@pytest.mark.parametrize("size", [4, 10, 64])
def test_progress_counts_mixtures_to_the_end(size):
    graph, calls = compile_program(joint(2)), []
    count(
        graph, Levels(), pool(), mixtures=10, batch_size=size,
        progress=lambda done, total: calls.append((done, total)))  # fmt: skip
    assert calls[-1] == (10, 10)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert all(total == 10 for _, total in calls)


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ({"low": pool()}, r"no signals of kind 'high' for source 'b'; given are \['low'\]"),
        ({"low": pool(), "high": pool()[:0]}, "kind 'high'"),
        ({}, "kind 'low'"),
        (pool()[:0], "no signals of kind 'low' for source 'a'"),
    ],
)
def test_missing_signals_are_named(signals, message):
    graph = compile_program(two_kinds)
    with pytest.raises(DataError, match=message):
        count(graph, Levels(), signals, mixtures=5, kind=kind_of(graph))


def test_impossible_numbers_and_other_alphabets_are_refused():
    graph = compile_program(joint(2))
    for options in ({"mixtures": 0}, {"batch_size": 0}, {"mixtures": -3}):
        with pytest.raises(OptionError, match="at least 1"):
            count(graph, Levels(), pool(), **options)
    counted = count(graph, Levels(), pool(), mixtures=5)
    start = {recipe: Counts.empty((7, 7, 7)) for recipe in counted}
    with pytest.raises(TableError, match=r"\(13, 13, 13\) .* \(7, 7, 7\)"):
        count(graph, Levels(), pool(), mixtures=5, start=start)


# --- features and further codecs -----------------------------------------------------------------


class Sensed(Levels):
    """Levels that also tell each position's number and twice its square."""

    def features(self, signals: Tensor) -> Tensor:
        return torch.stack([signals, 2 * signals.square()], -1)


class Coarse(Levels):
    """A token for each quarter."""

    alphabet = 5

    def encode(self, signals: Tensor) -> Tensor:
        return (signals * 4 + 0.1).floor().long()


class Short(Levels):
    token_shape = (2,)

    def encode(self, signals: Tensor) -> Tensor:
        return super().encode(signals)[:, :2]


def felt():
    a, b, c = source("a"), source("b"), source("c")
    return mix("m", mix("ab", a, b), c, evidence=Feature())


@pytest.mark.parametrize("size", [7, 1000])
def test_features_are_counted_as_moments(size):
    graph = compile_program(felt)
    counted = count(graph, Sensed(), pool(), mixtures=50, seed=3, batch_size=size)
    tokens, moments = counted.values()
    assert isinstance(tokens, Counts)
    assert isinstance(moments, Moments)
    assert [recipe.feature for recipe in counted] == [False, True]
    assert (moments.shape, moments.width, moments.samples) == ((LEVELS, LEVELS), 2, 150)
    found = slowly(graph, graph.factors[0], lambda name: pool(), 50, 3)
    assert as_counter(tokens) == found
    generator = torch.Generator().manual_seed(3)
    picks = [torch.randint(10, (50,), generator=generator) for _ in range(3)]
    a, b, c = (pool()[pick] for pick in picks)
    codec = Sensed()
    parents = [codec.encode((a + b) / 2), codec.encode(c)]
    assert moments == Moments.from_features(parents, codec.features((a + b + c) / 3), (13, 13))


def test_moments_go_on_from_what_there_is_whatever_the_batch_size():
    graph = compile_program(felt)

    def run(mixtures: int, seed: int, **options):
        return count(graph, Sensed(), pool(), mixtures=mixtures, seed=seed, **options)

    first, second = run(40, 0), run(25, 1)
    assert run(25, 1, start=first, batch_size=4) == {r: first[r] + second[r] for r in first}
    tokens, features = first
    swapped = {tokens: first[tokens], features: Counts.empty((LEVELS, LEVELS))}
    with pytest.raises(TableError, match=r"Moments \(13, 13\) of 'm' from Counts \(13, 13\)"):
        run(5, 1, start=swapped)


def test_each_site_is_encoded_by_its_codec():
    def program():
        a, b = source("a"), source("b")
        partial = mix("ab", a, b, codec="coarse")
        return mix("m", partial, source("c")), mix("n", partial, codec="coarse")

    graph = compile_program(program)
    codecs = {"coarse": Coarse()}
    counted = count(graph, Levels(), pool(), codecs=codecs, mixtures=30, seed=2)
    shapes = [counts.shape for counts in counted.values()]
    assert shapes == [(13, 13, 5), (5, 13, 13), (5, 5)]
    generator = torch.Generator().manual_seed(2)
    a, b, c = (pool()[torch.randint(10, (30,), generator=generator)] for _ in range(3))
    partial, whole = Coarse().encode((a + b) / 2), Levels().encode((a + b + c) / 3)
    _, second, third = counted.values()
    assert second == Counts.from_tokens([partial, Levels().encode(c)], whole, (5, 13, 13))
    assert third == Counts.from_tokens([partial], partial, (5, 5))
    with pytest.raises(CodecError, match=r"'ab' .* codec 'coarse', but given are \['fine'\]"):
        count(graph, Levels(), pool(), codecs={"fine": Coarse()}, mixtures=5)
    with pytest.raises(CodecError, match=r"'ab' makes 2 tokens of a signal, the main codec 3"):
        count(graph, Levels(), pool(), codecs={"coarse": Short()}, mixtures=5)


def test_a_feature_site_needs_a_codec_with_features():
    graph = compile_program(felt)
    with pytest.raises(CodecError, match=r"no features\(signals\).*Add that method"):
        count(graph, Levels(), pool(), mixtures=5)
    other = compile_program(lambda: mix("m", source("a"), evidence=Feature(), codec="x"))
    (moments,) = count(other, Levels(), pool(), codecs={"x": Sensed()}, mixtures=5).values()
    assert moments.samples == 15


def test_a_real_codec_counts_images_and_refuses_others():
    graph, codec = compile_program(chain(2)), make_codec()
    (counts,) = count(graph, codec, blobs(20), factors=BP().factors(graph), mixtures=50).values()
    assert counts.total == 50 * 9
    assert counts.coverage().child > 0.5
    with pytest.raises(SignalError, match="expected images"):
        count(graph, codec, blobs(20, size=16), mixtures=5)
    seen = compile_program(chain(2, evidence=Feature()))
    (moments,) = count(seen, codec, blobs(20), mixtures=50).values()
    assert (moments.width, moments.samples) == (16, 50 * 9)
