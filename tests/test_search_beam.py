"""Beam and greedy search against every separation there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_bundle, mixtures, named, same, without
from torch import Tensor

from mlass_ppl import (
    BP,
    Beam,
    Bundle,
    Exact,
    Extractor,
    Feature,
    Greedy,
    Mean,
    MixingGraph,
    NGram,
    Sample,
    Separation,
    Soft,
    Table,
    chain,
    compile_program,
    joint,
    separate,
    star,
)
from mlass_ppl.declare import mix, source
from mlass_ppl.errors import EngineError, OptionError
from mlass_ppl.search._continue import Expander
from mlass_ppl.search.beam import alike
from mlass_ppl.testing import brute_force, random_graph, random_problem
from mlass_ppl.testing._draws import Draws


def stereo():
    a, b = source("a"), source("b")
    left = mix("left", a, b, weights=(0.7, 0.3))
    return left, mix("right", a, b, weights=(0.3, 0.7), evidence=Soft(2.0))


class Numbers:
    """T numbers in [0, 1], of K levels each, with evidence of all kinds."""

    def __init__(self, alphabet: int, length: int) -> None:
        self.alphabet, self.signal_shape, self.token_shape = alphabet, (length,), (length,)

    def encode(self, signals: Tensor) -> Tensor:
        return (signals * (self.alphabet - 1)).round().long()

    def log_weights(self, signals: Tensor) -> Tensor:
        levels = torch.linspace(0, 1, self.alphabet)
        return (-5 * (signals[..., None] - levels).square()).log_softmax(-1)

    def features(self, signals: Tensor) -> Tensor:
        return torch.stack([signals, signals.square()], -1)

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens / (self.alphabet - 1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents

    def decode(self, tokens: Tensor) -> Tensor:
        return self.decode_latents(self.embed(tokens))


class Toy(Bundle):
    def tables(self, graph, factors):
        return {factor.name: self.card[factor.name] for factor in factors}


def toy(
    program: Callable[[], Any] | MixingGraph, seed: int, alphabet: int, length: int, density: float
) -> Toy:
    """A bundle of random tables with zeros and a prior of random transitions with some."""
    graph, draws = compile_program(program), Draws(seed)
    sizes = dict.fromkeys([site.name for site in graph.sites], alphabet)
    draws._widths.update(dict.fromkeys(graph.features, 2))
    tables = {f.name: draws.table(f, sizes, density, None) for f in graph.factors}
    table = draws.uniform(alphabet + 1, alphabet) ** 3
    table[0, 0] = 0
    prior = NGram(table / table.sum(-1, keepdim=True))
    return Toy("toy", Numbers(alphabet, length), {"any": prior}, card=tables)


def observe(graph: MixingGraph, number: int, length: int, seed: int) -> dict[str, Tensor]:
    draws = Draws(seed + 1000)
    return {name: draws.uniform(number, length).float() for name in graph.observed}


def truth(used: Toy, graph: MixingGraph, observed: dict[str, Tensor], row: int) -> dict:
    """log p(sources, observed) of every possible separation: {tokens by source, then position}."""
    codec, prior, n = used.codec, used.priors["any"], len(graph.sources)
    length, k = codec.token_shape[0], codec.alphabet
    flat = {name: torch.zeros(k, dtype=torch.float64) for name in graph.sources}
    told = []
    for t in range(length):
        given = {}
        for name in graph.observed:
            evidence, signal = graph.evidence(name), observed[name][row : row + 1]
            if isinstance(evidence, Soft):
                log = (codec.log_weights(signal)[0, t] / evidence.temperature).log_softmax(-1)
                given[name] = log.double()
            elif isinstance(evidence, Feature):
                given[name] = codec.features(signal)[0, t]
            else:
                given[name] = codec.encode(signal)[0, t]
        told.append(brute_force(graph, used.card, flat, given).project(*graph.sources).log_joint)
    out = {}
    for tokens in product(product(range(k), repeat=length), repeat=n):
        total = sum(float(told[t][tuple(z[t] for z in tokens)]) for t in range(length))
        for z in tokens:
            for t in range(length):
                total += float(prior.table[z[t - 1] if t else k, z[t]].log())
        if total > -torch.inf:
            out[tokens] = total
    return out


def tokens_of(found: Separation, row: int, candidate: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(z[row, candidate].tolist()) for z in found.candidate_tokens.values())


PROGRAMS = [
    (compile_program(joint(2)), Exact(), 3, 2),
    (compile_program(joint(2)), BP(), 2, 3),
    (compile_program(joint(2)).with_evidence({"mixture": Soft(1.5)}), BP(), 2, 3),
    (compile_program(joint(2)).with_evidence({"mixture": Feature()}), BP(), 3, 2),
    (compile_program(joint(3)), BP(), 2, 2),
    (compile_program(chain(3)), BP(), 2, 2),
    (compile_program(chain(3)), Exact(), 2, 2),
    (compile_program(chain(3)).with_evidence({"mixture": Feature()}), Exact(), 2, 2),
    (compile_program(chain(4)), BP(), 2, 2),
    (compile_program(stereo), Exact(), 2, 3),
]


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize(("graph", "engine", "alphabet", "length"), PROGRAMS)
def test_full_width_lists_every_separation(graph, engine, alphabet, length, density):
    """The most probable one of all first, each with its exact log probability, none twice."""
    possible = 0
    for seed in range(3):
        used = toy(graph, seed, alphabet, length, density)
        observed = observe(graph, 3, length, seed)
        width = alphabet ** (length * len(graph.sources))
        options: dict[str, Any] = {"infer": engine, "on_unseen": "prior"}
        found = separate(observed, graph, used, search=Beam(width), **options)
        for row in range(3):
            if found.notices or not (expected := truth(used, graph, observed, row)):
                continue
            possible += 1
            weights = found.log_weights[row]
            count = int((weights > -torch.inf).sum())
            listed = {tokens_of(found, row, c): float(weights[c]) for c in range(count)}
            assert listed == pytest.approx(expected, abs=1e-5)
            assert len(listed) == count == len(expected)
            assert (weights.diff()[: count - 1] <= 1e-12).all()
            assert tokens_of(found, row, 0) == max(listed, key=listed.__getitem__)
            assert listed[tokens_of(found, row, 0)] == pytest.approx(max(expected.values()))
            copies = {tokens_of(found, row, c) for c in range(count, width)}
            assert copies <= {tokens_of(found, row, 0)}
    assert possible > 2


@pytest.mark.parametrize("program", [joint(2), chain(3)], ids=named)
def test_weights_of_a_narrow_beam_are_exact(program):
    graph = compile_program(program)
    used = toy(graph, 5, 3, 2, 1.0)
    observed = observe(graph, 2, 2, 5)
    for search in (Beam(7), Beam(8, groups=4), Beam(8, groups=2, diversity=3.0)):
        found = separate(observed, graph, used, search=search)
        for row in range(2):
            expected = truth(used, graph, observed, row)
            for c in range(search.width):
                key = tokens_of(found, row, c)
                assert float(found.log_weights[row, c]) == pytest.approx(expected[key], abs=1e-5)


def test_temperature_and_top_k_are_in_the_weights_and_not_in_the_log_prior():
    graph = compile_program(joint(2))
    used = toy(graph, 3, 3, 2, 1.0)
    observed = observe(graph, 1, 2, 3)
    search = Beam(81, temperature=(0.5, 2.0))
    found = separate(observed, graph, used, search=search)
    plain = separate(observed, graph, used, search=Beam(81))
    expected = truth(used, graph, observed, 0)
    table = used.priors["any"].table.log()
    for c in range(len(expected)):
        key = tokens_of(found, 0, c)
        weight, prior = expected[key], 0.0
        for z in key:
            for t, temperature in enumerate((0.5, 2.0)):
                log = table[z[t - 1] if t else 3]
                prior += float(log[z[t]])
                weight += float((log / temperature).log_softmax(-1)[z[t]] - log[z[t]])
        assert float(found.log_weights[0, c]) == pytest.approx(weight, abs=1e-5)
        assert float(found.log_prior[0, c]) == pytest.approx(prior, abs=1e-5)
    assert tokens_of(plain, 0, 5) != tokens_of(found, 0, 5)
    narrow = separate(observed, graph, used, search=Beam(81, top_k=1))
    assert int((narrow.log_weights > -torch.inf).sum()) == 1


@settings(max_examples=30)
@given(random_problem(random_graph(4, tree=True)), st.integers(1, 40), st.integers(0, 99))
def test_continuations_are_the_best_of_all_candidates_together(problem, count, seed):
    """On any tree, alphabets of any size, with zeros, and penalties on tokens."""
    graph, draws = problem.graph, Draws(seed)
    posterior = problem.posterior(BP())
    m, c = problem.shape
    weights = draws.log_weights((m * c,), 5.0, 0.2)
    sizes = [problem.sizes[name] for name in graph.sources]
    penalty = {name: draws.uniform(m, problem.sizes[name]) for name in graph.sources[:1]}
    rows = (weights > -torch.inf).nonzero()[:, 0]
    expander = Expander(posterior.plan, posterior.position)
    found = expander.best(rows, weights, torch.full((m,), count), penalty)
    exact = set(graph.latent) == set(graph.sources)
    for mixture in range(m):
        joints = torch.stack(
            [
                weights[mixture * c + i]
                + problem.brute_force(mixture, i).project(*graph.sources).log_joint
                for i in range(c)
            ]
        )
        first = penalty[graph.sources[0]][mixture]
        paid = joints - first.reshape(1, -1, *[1] * (len(sizes) - 1))
        mine = found.row // c == mixture
        index = (found.row[mine] % c, *found.tokens[mine].unbind(1))
        assert len(set(zip(*(i.tolist() for i in index), strict=True))) == int(mine.sum())
        torch.testing.assert_close(found.score[mine], joints[index], atol=1e-5, rtol=1e-5)
        possible = int((paid > -torch.inf).sum())
        assert int(mine.sum()) == min(count, possible)
        if exact or count >= possible:
            best = paid.flatten().sort(descending=True).values[: int(mine.sum())]
            torch.testing.assert_close(paid[index], best, atol=1e-5, rtol=1e-5)


# --- what beams do elsewhere ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle()


def test_a_beam_of_one_is_greedy(bundle):
    for program, engine in ((joint(2), BP()), (joint(2), Exact()), (chain(3), BP())):
        options: dict[str, Any] = {"infer": engine, "on_unseen": "prior"}
        greedy = separate(mixtures(4), program, bundle, search=Greedy(), **options)
        beam = separate(mixtures(4), program, bundle, search=Beam(1), **options)
        for name in greedy:
            if len(greedy.signals) == 2:  # with latent mixtures a beam looks at two
                assert torch.equal(greedy.tokens[name], beam.tokens[name])
        assert greedy.errors.shape == (4, 1)
        assert torch.allclose(greedy.log_weights, greedy.evidence.double().sum(2), atol=1e-5)


def test_greedy_takes_the_mode_of_each_position():
    graph = compile_program(joint(2))
    used = toy(graph, 2, 3, 3, 1.0)
    observed = observe(graph, 2, 3, 2)
    found = separate(observed, graph, used, search=Greedy())
    prior = used.priors["any"].table.log()
    for row in range(2):
        past = [3, 3]
        for t in range(3):
            given = {"mixture": used.codec.encode(observed["mixture"][row])[t]}
            priors = {f"source_{i + 1}": prior[past[i]] for i in range(2)}
            log = brute_force(graph, used.card, priors, given).log_joint
            past = [int(z) for z in torch.unravel_index(log.argmax(), log.shape)]
            assert past == [int(found.tokens[name][row, t]) for name in found]


@pytest.mark.parametrize("search", [Greedy(), Beam(6, groups=3)])
def test_nothing_is_drawn(bundle, search):
    """By no mixture, whatever is beside it. Not where the tables leave nothing, either: tokens that
    were never seen, and candidates that meet an observation which rules them out."""
    table = torch.full((7, 6), 1 / 6, dtype=torch.float64)
    table[1] = torch.eye(6, dtype=torch.float64)[1]
    for used in (
        bundle,
        without(bundle, int(bundle.codec.encode(mixtures(3))[1, 4])),
        make_bundle(mixtures=6),
        replace(bundle, priors={"blob": NGram(table)}),
    ):
        options: dict[str, Any] = {"search": search, "on_unseen": "prior"}
        one = separate(mixtures(3), chain(2), used, seed=1, **options)
        same(one, separate(mixtures(3), chain(2), used, seed=2, **options))
        same(separate(mixtures(3), chain(2), used, batch_size=1, **options), one)
        for tokens in one.candidate_tokens.values():
            assert int(tokens.min()) >= 0


def test_wider_beams_find_no_less(bundle):
    found = [
        separate(mixtures(6), joint(2), bundle, search=Beam(width)).log_weights[:, 0]
        for width in (1, 16, 64)
    ]
    assert (found[1] >= found[0]).float().mean() > 0.8
    assert float((found[2] - found[0]).mean()) > 0.1


def test_what_the_tables_rule_out_displaces_nothing_and_is_gone_on_from():
    """A prior that keeps its token. Of the first position's pairs only (2, 2), the least probable,
    makes the second observation; in the second mixture no pair does."""
    table = torch.zeros(3, 3, 3)
    table[..., 0] = torch.tensor([[3, 2, 2], [2, 2, 2], [2, 2, 1]]) / 4
    table[2, 2, 1], table[..., 2] = 0.5, 1 - table[..., :2].sum(-1)
    table[2, 2, 2] = 0.25
    table = table.clamp_min(0)
    found = Table.from_array(table / table.sum(-1, keepdim=True))
    prior = NGram(torch.cat([torch.eye(3), torch.full((1, 3), 1 / 3)]).double())
    used = Toy("toy", Numbers(3, 2), {"any": prior}, card={"mixture": found})
    signals = torch.tensor([[0.0, 0.5], [0.0, 0.0]])
    wide = separate(signals, joint(2), used, search=Beam(9))
    assert tokens_of(wide, 0, 0) == ((2, 2), (2, 2))
    assert (wide.log_weights[0] > -torch.inf).tolist() == [True] + [False] * 8
    assert (wide.evidence[0] > -torch.inf).all()
    assert (wide.log_weights[1] > -torch.inf).all()
    lost = separate(signals, joint(2), used, search=Beam(2))  # has not kept (2, 2)
    assert (lost.evidence[0, :, 1] == -torch.inf).all()
    assert torch.isfinite(lost.log_weights).all()  # nothing is preferred
    for z in lost.candidate_tokens.values():
        assert torch.equal(z[..., 0], z[..., 1])  # the priors go on


def test_groups_are_told_apart_and_swapped_sources_are_no_difference():
    """Each source alone says nothing; p(0 | a, b) is the larger the nearer a and b are to (0, 1) or
    (1, 0). A second group without a penalty takes the next best, one with a small penalty no mirror
    image, and the penalty is no part of its weight."""
    like = torch.tensor([[0.1, 0.9, 0.2], [0.9, 0.1, 0.3], [0.2, 0.3, 0.5]])
    found = Table.from_array(torch.stack([like, 1 - like], -1).double())
    prior = NGram.uniform(3)
    used = Toy("toy", Numbers(3, 1), {"any": prior}, card={"mixture": found})
    signal = torch.tensor([[0.0]])

    def firsts(**options: Any) -> list:
        out = separate(signal, joint(2), used, search=Beam(2, groups=2, **options))
        return [tokens_of(out, 0, c) for c in range(2)], out.log_weights[0]

    (one, two), _ = firsts(diversity=0.0)
    assert (one, two) == (((0,), (1,)), ((1,), (0,)))
    (one, two), weights = firsts(diversity=2.0)
    assert one == ((0,), (1,))
    assert two == ((2,), (2,))
    assert float(weights[1]) == pytest.approx(float(torch.tensor(0.5 / 9).log()), abs=1e-6)
    plain = separate(signal, joint(2), used, search=Beam(2))
    assert tokens_of(plain, 0, 1) == ((1,), (0,))


def test_sources_are_alike_by_prior_label_and_weights():
    def program():
        a, b, c, d = source("a"), source("b", prior="x"), source("c"), source("d", label=1)
        return mix("m", mix("p", a, b), mix("q", c, d))

    assert len(set(alike(compile_program(program)).values())) == 3
    assert len(set(alike(compile_program(stereo)).values())) == 2
    assert set(alike(compile_program(chain(5))).values()) == {0}


def test_a_group_that_is_ruled_out_begins_again():
    """Sources keep their token; the first group takes (0, 0), the second, kept away from 0, (1, 1),
    which cannot make the second observation."""
    table = torch.zeros(2, 2, 2)
    table[..., 0] = torch.tensor([[0.5, 0.1], [0.1, 0.3]])
    table[..., 1] = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    found = Table.from_array(torch.cat([table, 1 - table.sum(-1, keepdim=True)], -1).double())
    prior = NGram(torch.cat([torch.eye(2), torch.full((1, 2), 0.5)]).double())

    class Three(Numbers):
        def encode(self, signals: Tensor) -> Tensor:
            return (signals * 2).round().long()

    used = Toy("toy", Three(2, 2), {"any": prior}, card={"mixture": found})

    def search(last: float) -> Separation:
        signal = torch.tensor([[0.0, last]])
        return separate(signal, joint(2), used, search=Beam(4, groups=2, diversity=9.0))

    assert {((0, 0), (0, 0)), ((1, 1), (1, 1))} <= {tokens_of(search(0.0), 0, c) for c in range(4)}
    out = search(0.5)
    assert {tokens_of(out, 0, c) for c in range(4)} == {((0, 0), (0, 0))}
    assert (out.log_weights[0] > -torch.inf).tolist() == [True, False, False, False]


@pytest.mark.parametrize("diversity", [0.0, 0.1, 5.0])
@pytest.mark.parametrize("program", [joint(2), chain(3)], ids=named)
def test_no_separation_is_there_twice(program, diversity):
    """Whatever the groups, even where the tables rule many of them out on the way."""
    graph, lost = compile_program(program), 0
    for seed in range(4):
        used = toy(graph, seed, 2, 3, 0.4)
        observed = observe(graph, 3, 3, seed)
        options: dict[str, Any] = {"infer": BP(), "on_unseen": "prior"}
        for groups in (2, 4, 12):
            search = Beam(12, groups=groups, diversity=diversity)
            found = separate(observed, graph, used, search=search, **options)
            for row in range(3):
                kept = (found.log_weights[row] > -torch.inf).nonzero()[:, 0].tolist()
                listed = [tokens_of(found, row, c) for c in kept]
                assert len(set(listed)) == len(listed) >= 1
                lost += len(listed) < 12
    assert lost


def test_the_mean_counts_each_separation_of_a_beam_once():
    """Of groups and copies alike: the mean by log p(sources, observed) over distinct tokens."""
    graph = compile_program(joint(2))
    used = toy(graph, 5, 3, 2, 1.0)
    observed = observe(graph, 3, 2, 5)
    for search in (Beam(6), Beam(6, groups=3), Beam(6, groups=6, diversity=0.0), Beam(200)):
        found = separate(
            observed, graph, used, search=search, estimate=Mean(), keep_candidates=True
        )
        for row in range(3):
            expected = truth(used, graph, observed, row)
            distinct = {tokens_of(found, row, c) for c in range(search.width)}
            shares = torch.tensor([expected[key] for key in distinct]).softmax(0)
            signals = torch.tensor(list(distinct)) / 2  # [distinct, source, position]
            # the sources are interchangeable: each in the order nearest to the chosen one's
            first = signals[list(distinct).index(tokens_of(found, row, int(found.chosen[row])))]
            swapped = signals.flip(1)
            nearer = (signals * first).sum((1, 2)) >= (swapped * first).sum((1, 2))
            ordered = torch.where(nearer[:, None, None], signals, swapped)
            mean = torch.einsum("d,dst->st", shares, ordered.to(shares))
            for place, name in enumerate(found):
                torch.testing.assert_close(
                    found.signals[name][row].to(mean), mean[place], atol=1e-4, rtol=1e-4
                )


def test_engines_that_cannot_tell_are_refused_with_a_sentence(bundle):
    with pytest.raises(EngineError, match=r"Extractor\(\) cannot tell .* use BP\(\), Exact\(\)"):
        separate(mixtures(1), star(2), bundle, infer=Extractor(), search=Beam(2))
    separate(mixtures(1), star(2), bundle, infer=Extractor(), search=Greedy())
    separate(mixtures(1), star(2), bundle, infer=BP(), search=Beam(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, r"Beam\(width=...\) is a whole number, at least 1, got 0"),
        ({"width": 2.0}, "width"),
        ({"groups": 0}, "groups"),
        ({"width": 10, "groups": 4}, r"10\) cannot be parted into 4 .* take a width of 12"),
        ({"diversity": -1.0}, "diversity"),
        ({"diversity": float("nan")}, "diversity"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Beam(**options)


def test_a_beam_is_no_sample():
    assert Beam(8).candidates == 8
    assert Greedy().candidates == 1
    assert Beam(4, groups=2).start(2).tolist() == [[0.0, *[-torch.inf] * 3]] * 2
    assert Sample(2).start(1).tolist() == [[0.0, 0.0]]
    assert eval(repr(Beam(8, groups=2, temperature=(1.0, 0.5)))) == Beam(
        8, groups=2, temperature=(1.0, 0.5)
    )
