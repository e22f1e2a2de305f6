"""Belief propagation between the promising tokens: equal to brute force between them, within the
promised distance of that of all, and between the tokens that explain what is heard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import TYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_problems import WIDTH, linear, problem
from torch import Tensor

from mlass_ppl import (
    BP,
    Counts,
    Feature,
    MixingGraph,
    OptionError,
    Soft,
    Table,
    Token,
    balanced,
    chain,
    compile_program,
    joint,
    star,
)
from mlass_ppl.infer.covered import CoverPosterior
from mlass_ppl.infer.promising import Promising, _shared
from mlass_ppl.tables import LinearGaussianTable
from mlass_ppl.testing import Problem, check_engine, random_graph, random_problem

KINDS = st.sampled_from([Token(), Soft(), Feature(), Token(0.5), Token(2.0), Feature(2.0)])
NEVER = float("-inf")


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def trees(draw: Any) -> MixingGraph:
    if draw(st.booleans()):
        return draw(random_graph(5))
    shape = draw(st.sampled_from([chain, balanced, joint, star]))
    return compile_program(shape(draw(st.integers(2, 4)), evidence=draw(KINDS)))


def posterior(here: Problem, keep: int, dtype: torch.dtype = torch.float64) -> CoverPosterior:
    answer = here.posterior(BP(keep=keep), dtype)
    assert isinstance(answer, CoverPosterior)
    return answer


def voices(
    sizes: tuple[int, ...] = (9, 7, 8),
    *,
    m: int = 2,
    c: int = 3,
    power: float = 1.0,
    seed: int = 0,
    far: float = 1.0,
) -> Problem:
    """A chain under a linear feature. A partial mixture's token tells both of its parents, so that
    its part of the feature is the sum of theirs. far: how far apart tokens lie, in cells of
    unchanged width."""
    g = random(seed)
    graph = compile_program(chain(len(sizes), evidence=Feature(power=power, linear=True)))
    alone = linear(sizes, power=power)
    means, spreads = [far * own for own in alone.means], list(alone.covariances)
    tables: dict[str, Any] = {}
    mean, spread, size = means[0], spreads[0], sizes[0]
    for place, name in enumerate(graph.mixtures[:-1], 1):
        mean = (mean[:, None] + means[place]).flatten(0, 1)
        spread = (spread[:, None] + spreads[place]).flatten(0, 1)
        tables[name] = Table.from_array(torch.eye(len(mean)).reshape(size, sizes[place], -1))
        size = len(mean)
    tables["mixture"] = LinearGaussianTable(
        (mean, means[-1]), (spread, spreads[-1]), 0.01, alone.axes, True, power
    )
    priors = {
        name: torch.randn(m, c, k, generator=g, dtype=torch.float64).log_softmax(-1)
        for name, k in zip(graph.sources, sizes, strict=True)
    }
    feature = 0.1 * torch.randn(m, WIDTH, generator=g, dtype=torch.float64)
    for own, k in zip(means, sizes, strict=True):
        feature += own[torch.randint(k, (m,), generator=g)]
    return Problem(graph, tables, priors, {"mixture": feature})


def restricted(here: Problem, answer: CoverPosterior) -> Problem:
    """With priors of zero for the tokens that were dropped."""
    priors = {}
    for name, log in here.log_priors.items():
        priors[name] = torch.full_like(log, NEVER)
        for mixture, part in enumerate(answer._parts):
            kept = part.kept[name]
            priors[name][mixture][:, kept] = log[mixture][:, kept]
    return replace(here, log_priors=priors)


def check(here: Problem, keep: int) -> None:
    """Bounds and answers of every row against brute force."""
    answer = posterior(here, keep)
    small, marginals, mode = restricted(here, answer), answer.marginals(), answer.mode()
    drawn, (tokens, told) = answer.sample(random(0)), answer.topk(3)
    first, last = here.graph.latent[0], here.graph.latent[-1]
    pairs = answer.pairwise(first, last)
    for row in here.rows:
        log, every = float(answer.log_evidence[row]), here.brute_force(*row)
        slack = 1e-8 * max(1.0, abs(every.log_evidence)) if every.log_evidence > NEVER else 0.0
        above = torch.logaddexp(answer.log_evidence[row].double(), answer.log_lost[row])
        assert log - slack <= every.log_evidence <= float(above) + slack
        assert (log == NEVER) == (every.log_evidence == NEVER)  # no row dies of what was dropped
        truth = small.brute_force(*row)
        assert log == truth.log_evidence or abs(log - truth.log_evidence) <= slack
        if log == NEVER:
            continue
        close = {"rtol": 0.0, "atol": 1e-6}
        for name in here.graph.latent:
            torch.testing.assert_close(marginals[name][row], truth.marginal(name), **close)
        torch.testing.assert_close(pairs[row], truth.pairwise(first, last), **close)
        torch.testing.assert_close(told[row], truth.topk(3), **close)
        best = {name: int(values[row]) for name, values in mode.items()}
        assert abs(truth.log_probability(best) - float(truth.log_joint.max())) <= slack + 1e-9
        for state in ({name: int(values[row]) for name, values in drawn.items()}, best):
            assert truth.log_probability(state) > NEVER
        assert {name: int(values[row][0]) for name, values in tokens.items()}


# --- any tree -------------------------------------------------------------------------------------


@TYPES
@settings(max_examples=15, deadline=None)
@given(here=random_problem(trees()))
def test_all_tokens_are_exact(dtype: torch.dtype, tolerance: float, here: Problem) -> None:
    """Any tree, mixed alphabets, zeros, soft evidence, features, powers, smoothing."""
    engine = BP(keep=max(here.sizes.values()))
    answer = posterior(here, max(here.sizes.values()), dtype)
    assert answer.exact
    assert (answer.lost == 0).all()
    wanted = here.posterior(BP(), dtype)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(answer.log_evidence, wanted.log_evidence, **close)
    torch.testing.assert_close(answer.marginals(), wanted.marginals(), **close)
    check_engine(engine, here, dtype=dtype, tolerance=tolerance)


@settings(max_examples=50, deadline=None)
@given(here=random_problem(trees(), max_depth=10), keep=st.integers(1, 4))
def test_evidence_within_its_bounds_and_answers_of_what_is_kept(here: Problem, keep: int) -> None:
    check(here, keep)


# --- linear features ------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 5), min_size=2, max_size=3).map(tuple),
    power=st.sampled_from([0.5, 1.0, 2.0]),
    keep=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_under_a_linear_feature(sizes: tuple[int, ...], power: float, keep: int, seed: int) -> None:
    """Densities above 1, which the bound has to know of."""
    check(voices(sizes, m=2, c=2, power=power, seed=seed), keep)


def test_all_tokens_under_a_linear_feature_are_exact() -> None:
    for here in (voices(), problem((9, 7)), problem((5, 4, 3)), problem((9, 7), diagonal=False)):
        keep = max(len(log[0, 0]) for log in here.log_priors.values())
        answer, wanted = posterior(here, keep), here.posterior(BP())
        assert answer.exact
        torch.testing.assert_close(answer.log_evidence, wanted.log_evidence)
        torch.testing.assert_close(answer.marginals(), wanted.marginals())
        assert not posterior(here, keep - 1).exact


def test_what_is_heard_is_kept_though_no_prior_expects_it() -> None:
    """An onset beside voices that go on: no candidate expects it less than any other token."""
    sizes, alone = (40, 30, 20), linear((40, 30, 20))
    here = voices(sizes, m=4, far=4.0)
    tokens = torch.tensor([[3, 7, 1], [11, 2, 5], [20, 29, 19], [39, 0, 8]])
    priors = {}
    for place, name in enumerate(here.graph.sources):
        own = tokens[:, place, None, None].expand(4, 3, 1)
        log = here.log_priors[name].scatter(2, own, 6.0 if place else -9.0)
        priors[name] = log.log_softmax(-1)
    feature = 4 * sum(alone.means[place][tokens[:, place]] for place in range(3))
    here = replace(here, log_priors=priors, evidence={"mixture": feature})
    answer, wanted = posterior(here, 12), here.posterior(BP())
    assert (wanted.marginals()["source_1"][range(4), :, tokens[:, 0]] > 0.5).sum() > 6
    for mixture, part in enumerate(answer._parts):
        assert tokens[mixture, 0] in part.kept["source_1"]
        assert len(part.kept["source_1"]) == 12
    # By the priors alone it is the last one to be taken, after many more than that.
    by_prior = here.posterior(BP(cover=0.99))
    assert isinstance(by_prior, CoverPosterior)
    assert (by_prior.kept["source_1"] > 24).all()
    for mixture, part in enumerate(by_prior._parts):
        assert tokens[mixture, 0] not in part.kept["source_1"]
    short = (wanted.log_evidence - answer.log_evidence).mean()
    assert short < (wanted.log_evidence - by_prior.log_evidence).mean() / 4


def test_the_more_is_kept_the_less_is_missing() -> None:
    here = voices((16, 12, 10), m=3)
    wanted, last = here.posterior(BP()).log_evidence, torch.full(here.shape, NEVER).double()
    for keep in (1, 3, 6, 9, 12, 16):
        answer = posterior(here, keep)
        assert (answer.log_evidence >= last - 1e-9).all()
        assert (wanted <= torch.logaddexp(answer.log_evidence, answer.log_lost) + 1e-9).all()
        last = answer.log_evidence
        for name in here.graph.sources:
            wide = here.log_priors[name].shape[-1]
            assert (answer.kept[name] == min(keep, wide)).all()
    torch.testing.assert_close(last, wanted)


def test_densities_between_some_tokens() -> None:
    for table in (linear((7, 5)), linear((7, 5), power=0.5), linear((6, 6))):
        features = 2 * torch.randn(4, WIDTH, generator=random(0), dtype=torch.float64)
        all_ = table.log_likelihood(features)
        tokens = [torch.tensor([4, 0, 2]), torch.tensor([1, 3])]
        found = table.between(features, tokens)
        torch.testing.assert_close(found, all_[:, tokens[0]][:, :, tokens[1]])
        assert (all_ <= table.log_highest + 1e-12).all()
        alone = table.between(features[2:3], tokens)
        assert torch.equal(alone[0], found[2])


def test_the_highest_density_is_no_empty_bound() -> None:
    """Of a table whose narrowest cells meet, it is reached."""
    table = linear((7, 5))
    flat = tuple(torch.zeros_like(part) for part in table.covariances)
    same = replace(table, covariances=flat)
    top = same.log_likelihood(same.means[0][3:4] + same.means[1][2:3])
    assert float(top.max()) == pytest.approx(same.log_highest)
    assert float(top.max()) > 0  # a density above 1


def test_what_is_lost_counts_densities_above_one() -> None:
    """Of a dropped tuple that meets the feature: its density is as high as the bound says."""
    here = problem((7, 5), m=1, c=1)
    table = here.tables["mixture"]
    assert isinstance(table, LinearGaussianTable)
    flat = tuple(torch.zeros_like(own) for own in table.covariances)
    table = replace(table, covariances=flat, noise=1e-6)
    mode = {name: int(log.argmax()) for name, log in here.log_priors.items()}
    other = [(token + 1) % size for token, size in zip(mode.values(), (7, 5), strict=True)]
    heard = table.means[0][other[0]] + table.means[1][other[1]]
    here = replace(here, tables={"mixture": table}, evidence={"mixture": heard[None]})
    answer = here.posterior(BP(cover=0.01))
    assert isinstance(answer, CoverPosterior)
    assert answer.kept["source_1"].tolist() == [1]
    lacks = float(here.posterior(BP()).log_evidence)
    assert lacks > float(answer.log_evidence) + 1
    assert float(answer.log_lost) >= lacks - 1e-9


# --- what partial mixtures are made of ------------------------------------------------------------


def test_parts_of_sums_are_found_again() -> None:
    """Where a mixture's centre is the sum of its parents', up to what one gains and the other
    loses."""
    g = random(3)
    first, second = torch.randn(4, WIDTH, generator=g), torch.randn(3, WIDTH, generator=g)
    centre = (first[:, None] + second).flatten(0, 1).double()
    spread = torch.rand(12, WIDTH, generator=g).double()
    table = Table.from_array(torch.eye(12).reshape(4, 3, 12))
    (one, its), (two, other) = _shared(table, centre, spread)
    torch.testing.assert_close((one[:, None] + two).flatten(0, 1), centre, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one - one[0], (first - first[0]).double(), rtol=1e-5, atol=1e-5)
    # and each parent carries half of what its cells spread
    torch.testing.assert_close(its, spread.reshape(4, 3, WIDTH).mean(1) / 2, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other, spread.reshape(4, 3, WIDTH).mean(0) / 2, rtol=1e-5, atol=1e-6)


def test_parts_of_what_was_seen_only() -> None:
    """Some pairs were never seen, and a token of the mixture stands for several of them."""
    g = random(4)
    counts = torch.randint(0, 4, (6, 5, 8), generator=g) * (torch.rand(6, 5, 1, generator=g) < 0.6)
    counts[5] = 0  # a token that never was
    table = Table.from_counts(Counts.from_dense(counts))
    centre = torch.randn(8, WIDTH, generator=g).double()
    spread = torch.rand(8, WIDTH, generator=g).double()
    (one, its), (two, other) = _shared(table, centre, spread)
    for part in (one, two, its, other):
        assert part.isfinite().all()
        assert part.shape[1] == WIDTH
    assert (its >= 0).all()
    assert (other >= 0).all()
    assert (one[5] == 0).all()
    # least squares over the rows that were seen, after a few turns almost so
    share = table.dense().double()
    rows = share.sum(-1) > 0
    wanted = (share @ centre)[rows]
    a, b = rows.nonzero().T
    design = torch.cat([torch.eye(6)[a], torch.eye(5)[b]], 1).double()
    best = wanted - design @ torch.linalg.lstsq(design, wanted, driver="gelsd").solution
    ours = wanted - one[a] - two[b]
    assert ours.square().sum() <= 1.2 * best.square().sum() + 1e-9


def test_tables_that_say_nothing_of_parts_leave_it_to_the_priors() -> None:
    """Smoothed ones: every source is then ranked by its average prior alone, as under tokens."""
    from mlass_ppl import Additive

    here = voices((6, 5, 4))
    dense = here.tables["mix_2"].dense()  # type: ignore[union-attr]
    smooth = Table.from_counts(Counts.from_dense(dense.long()), Additive(0.1))
    here = replace(here, tables={**here.tables, "mix_2": smooth})
    table = here.tables["mixture"]
    assert isinstance(table, LinearGaussianTable)
    own = Promising(here.graph, here.tables, {"mixture": table})
    logs = {name: log[0] for name, log in here.log_priors.items()}
    masks = own.masks(logs, {"mixture": here.evidence["mixture"][:1]}, 2)
    for name in ("source_1", "source_2"):
        best = logs[name].exp().mean(0).topk(2).indices
        assert masks[name].nonzero()[:, 0].tolist() == sorted(best.tolist())
    check(here, 2)


# --- batches, draws, words ------------------------------------------------------------------------


@TYPES
@pytest.mark.parametrize("make", [voices, lambda **size: problem((30, 20), **size)])
def test_a_mixture_is_answered_alike_in_any_batch(
    make: Any, dtype: torch.dtype, tolerance: float
) -> None:
    here = make(m=4, c=5)
    together = posterior(here, 5, dtype)
    drawn = together.sample([random(m) for m in range(4)])
    for m in (3, 0, 2):
        alone = posterior(here.select([m], range(5)), 5, dtype)
        assert torch.equal(alone.log_evidence[0], together.log_evidence[m])
        assert torch.equal(alone.log_lost[0], together.log_lost[m])
        for name, tokens in alone.sample([random(m)]).items():
            assert torch.equal(tokens[0], drawn[name][m])


def test_draws_follow_the_posterior_of_what_is_kept() -> None:
    from mlass_ppl.testing._chi_square import chi_square

    whole = voices((9, 7, 8), c=1)
    here = whole.select([0], [0] * 20_000)
    answer = posterior(here, 4)
    assert (answer.lost > 0).all()
    truth = restricted(whole.select([0], [0]), answer).brute_force(0, 0)
    drawn = answer.sample(random(0))
    cells = drawn["source_1"][0] * 8 + drawn["source_3"][0]
    wanted = truth.pairwise("source_1", "source_3")
    assert chi_square(cells.bincount(minlength=72).reshape(9, 8), wanted) > 1e-3
    assert ((wanted > 0.01).sum() > 3).item()  # several tuples to tell apart


@pytest.mark.parametrize("keep", [0, -1, 1.5, 64.0, True, "64", float("nan")])
def test_a_number_that_is_none_is_refused(keep: Any) -> None:
    with pytest.raises(OptionError, match=r"BP\(keep=...\) is how many tokens .* at least 1"):
        BP(keep=keep)


def test_what_the_engine_says_of_itself() -> None:
    with pytest.raises(OptionError, match=r"cover=... or keep=..., not both; got cover=0.9 and"):
        BP(cover=0.9, keep=5)
    for engine in (BP(keep=5), BP(draw="marginals", dense_limit=0, keep=1)):
        assert eval(repr(engine)) == engine
    assert "keep" not in repr(BP())
    here = voices()
    assert not BP(keep=5).is_exact(here.graph)
    plan = BP(keep=5).plan(here.graph, here.tables)
    for words in ("keep=5", "lower bound", "the 5 most promising of each source"):
        assert words in str(plan)


def test_a_feature_that_is_none_is_refused() -> None:
    from mlass_ppl import EngineError

    here = voices()
    for wrong in (torch.full((2, WIDTH), float("nan")), torch.zeros(2, WIDTH + 1), Tensor([1.0])):
        with pytest.raises(EngineError, match="mixture"):
            posterior(replace(here, evidence={"mixture": wrong.double()}), 3)
