"""Mistakes of the published code, each as a test that fails when we make it too.

The published rule is written out beside ours wherever it is short, so that each test also shows
that it can tell the two apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from engines import ENGINES, ON_TREES, each
from tiny import count_tables, make_bundle, make_codec, make_gpt2, mixtures
from torch import Tensor

from mlass_ppl import (
    BP,
    Additive,
    Bundle,
    Counts,
    Exact,
    Extractor,
    NGram,
    Sample,
    Table,
    TableError,
    chain,
    compile_program,
    count,
    joint,
    posterior,
    separate,
    star,
)
from mlass_ppl.infer import Engine
from mlass_ppl.infer.random import draw, uniforms
from mlass_ppl.search import Search, Step
from mlass_ppl.tables import Recipe
from mlass_ppl.testing import Problem, brute_force, check_engine

EACH = each(ON_TREES)
MANY = pytest.mark.parametrize("n", [2, 3, 4, 5])


def normal(array: Tensor) -> Tensor:
    return array.double() / array.double().sum(-1, keepdim=True)


def random_tables(graph, size: int, seed: int = 0) -> dict[str, Table]:
    random = torch.Generator().manual_seed(seed)
    return {
        factor.name: Table.from_array(
            normal(torch.rand([size] * len(factor.scope), generator=random).double() ** 3)
        )
        for factor in graph.factors
    }


def random_priors(graph, size: int, m: int = 1, c: int = 1, seed: int = 1) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        name: (3 * torch.rand(m, c, size, generator=random, dtype=torch.float64)).log_softmax(-1)
        for name in graph.sources
    }


# --- counting -----------------------------------------------------------------------------------


def test_counts_drop_duplicates() -> None:
    """`sums[a, b, m] += 1` with index tensors counts a tuple once a batch, however often it is
    there, so background tuples are hugely under-counted."""
    a, b, m = torch.tensor([[1, 1, 1, 2], [0, 0, 0, 1], [2, 2, 2, 2]])
    published = torch.zeros(3, 3, 3, dtype=torch.long)
    published[a, b, m] += 1
    assert int(published[1, 0, 2]) == 1
    counts = Counts.from_tokens([a, b], m, (3, 3, 3))
    assert int(counts.dense()[1, 0, 2]) == 3
    assert counts.total == 4
    assert (counts + counts).dense().equal(2 * counts.dense())


@dataclass(frozen=True)
class Pixel:
    """One grey level as one token."""

    alphabet: int = 7
    signal_shape: tuple[int, ...] = (1, 1, 1)
    token_shape: tuple[int, ...] = (1, 1)

    def encode(self, signals: Tensor) -> Tensor:
        return (signals.flatten(1) * (self.alphabet - 1)).round().long()

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens.double() / (self.alphabet - 1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents.reshape(-1, 1, 1, 1)

    def decode(self, tokens: Tensor) -> Tensor:
        return self.decode_latents(self.embed(tokens))


def test_unequal_parents_are_symmetrised() -> None:
    """The audio code adds the counts of (m_2, z_3) and (z_3, m_2); the weights are 2/3 and 1/3."""
    graph = compile_program(chain(3))
    signals = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    recipes = count(graph, Pixel(), signals, mixtures=500)
    last = recipes[Recipe.of(graph, graph.factors[1], lambda _: "signal")].dense()
    assert last[6, 0].argmax() == 4  # 2/3 of full scale
    assert last[0, 6].argmax() == 2  # 1/3 of it
    assert not last.equal(last.transpose(0, 1))


def test_two_sources_run_with_the_statistics_of_three() -> None:
    """The published extractors of two sources read the table counted on mixtures of three."""

    def recipes(shape: Callable[[int], object], n: int) -> list[Recipe]:
        graph = compile_program(shape(n))
        return [Recipe.of(graph, factor, lambda _: "digit") for factor in graph.factors]

    assert not set(recipes(star, 2)) & set(recipes(star, 3))
    assert len(set(recipes(star, 3))) == 1  # while sources of one kind share theirs
    assert recipes(chain, 2) == recipes(joint, 2)
    assert set(recipes(chain, 3)) & set(recipes(chain, 2)) == set(recipes(chain, 2))
    other = dict.fromkeys(recipes(star, 3), Counts.from_dense(torch.eye(4)))
    bundle = Bundle("threes", Pixel(4), {"digit": NGram.uniform(4)}, other)
    graph = compile_program(star(3))
    assert len(bundle.tables(graph, graph.factors)) == 3
    graph = compile_program(star(2))
    with pytest.raises(TableError, match=r"'threes' has no table for 'mixture_1' of 'star\(2\)'"):
        bundle.tables(graph, graph.factors)


# --- tables --------------------------------------------------------------------------------------


def test_smoothing_gives_unseen_pairs_more_than_seen_ones() -> None:
    """1e-12 added before normalising makes a pair that was never met uniform, and so any token
    likelier after it than an unseen token after a well-known pair: mass leaks to every pair that
    training never met. Here what was never counted has no mass at all."""
    size = 6
    counts = torch.zeros(size, size, size, dtype=torch.long)
    counts[:3, :3, 1] = 1000  # well-known pairs make token 1, and twice they made token 2
    counts[0, 0, 2] = counts[1, 2, 2] = 2
    published = normal(counts + 1e-12)
    flat = dict.fromkeys(("source_1", "source_2"), torch.full((size,), 1 / size))
    table = Table.from_counts(Counts.from_dense(counts))
    never = counts.sum(-1) == 0
    share = published[..., 2] / published[..., 2].sum()
    assert float(share[never].sum()) > 0.99  # nearly all of the published posterior
    for engine in map(ENGINES.__getitem__, ON_TREES):
        found = posterior(joint(2), {"mixture": table}, flat, {"mixture": 2}, infer=engine)
        both = {name: m[0, 0] for name, m in found.marginals().items()}
        assert both["source_1"].tolist() == pytest.approx([0.5, 0.5, 0, 0, 0, 0])
        assert both["source_2"].tolist() == pytest.approx([0.5, 0, 0.5, 0, 0, 0])


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 10.0])
def test_dense_and_sparse_smooth_differently(alpha: float) -> None:
    """The dense class smooths before normalising, the sparse one after, so that they disagree and
    the latter's rows no longer sum to one."""
    random = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 5, (4, 5, 6), generator=random)
    counts[1, 2] = 0
    table = Table.from_counts(Counts.from_dense(counts), Additive(alpha))
    wanted = (counts + alpha) / (counts.sum(-1, keepdim=True) + 6 * alpha)
    torch.testing.assert_close(table.dense(), wanted.double())
    torch.testing.assert_close(table.dense().sum(-1), torch.ones(4, 5, dtype=torch.float64))
    index, values = table.entries()
    torch.testing.assert_close(values, table.dense()[tuple(index)])
    assert (table.dense()[1, 2] == 1 / 6).all()  # declared, not an accident of 0 / 0
    priors = {"source_1": normal(torch.rand(4)), "source_2": normal(torch.rand(5))}
    answers = [
        posterior(joint(2), {"mixture": table}, priors, {"mixture": 3}, infer=engine)
        for engine in map(ENGINES.__getitem__, ON_TREES)
    ]
    for other in answers[1:]:
        torch.testing.assert_close(other.log_evidence, answers[0].log_evidence)
        torch.testing.assert_close(other.marginals(), answers[0].marginals())


def test_the_callers_counts_are_normalised_in_place() -> None:
    array = torch.randint(1, 9, (3, 4, 5))
    kept = array.clone()
    counts = Counts.from_dense(array)
    Table.from_counts(counts, Additive(0.5)).dense().mul_(0)
    assert array.equal(kept)
    assert counts.dense().equal(kept)


def test_extractors_normalise_over_the_source() -> None:
    """Counts divided by their sum over z are p(z | m): times the prior of z, that prior counts
    twice. The axis is m."""
    random = torch.Generator().manual_seed(0)
    prior = torch.tensor([0.9, 0.06, 0.03, 0.01])
    table = normal(torch.rand(4, 5, generator=random))
    counts = (prior[:, None] * table * 10_000_000).long()
    graph = compile_program(star(2))
    tables = dict.fromkeys(graph.mixtures, Table.from_counts(Counts.from_dense(counts)))
    priors = {name: prior.log().expand(1, 1, -1) for name in graph.sources}
    tokens = dict.fromkeys(graph.mixtures, torch.tensor([2]))
    answer = Extractor().plan(graph, tables).posterior(priors, tokens)
    found = answer.marginals()["source_1"][0, 0]
    bayes = normal(counts[:, 2])
    evidence = float((prior @ table[:, 2].float()) ** 2)  # of both sources
    assert float(answer.log_evidence.exp()) == pytest.approx(evidence, rel=1e-4)
    torch.testing.assert_close(found.double(), bayes, atol=1e-4, rtol=0)
    published = normal(prior * bayes)
    assert float((published - bayes).abs().max()) > 0.05


# --- messages -------------------------------------------------------------------------------------


@EACH
@MANY
def test_every_factor_is_conditioned_on_the_final_token(n: int, engine: Engine) -> None:
    """The published messages read `p_mmzs[i, token]` for every i: partial mixtures, which are
    latent, are clamped to the token of the whole mixture."""
    graph, size, token = compile_program(chain(n)), 3, 1
    tables = random_tables(graph, size)
    priors = random_priors(graph, size)
    here = Problem(graph, tables, priors, {"mixture": torch.tensor([token])})
    check_engine(engine, here)
    truth = brute_force(
        graph, tables, {name: log[0, 0] for name, log in priors.items()}, {"mixture": token}
    )
    index = tuple(token if name in graph.mixtures else slice(None) for name in truth.sites)
    clamped = truth.joint[index].reshape(size, -1).sum(1)
    error = float((clamped / clamped.sum() - truth.marginal("source_1")).abs().max())
    assert (error > 0.01) == (n > 2)


@EACH
@MANY
def test_source_1_gets_its_prior_only_at_three_sources(n: int, engine: Engine) -> None:
    """A mixture that tells nothing leaves every source its own prior, the first and last too."""
    graph, size = compile_program(chain(n)), 4
    nothing = Table.from_array(torch.full((size, size, size), 1 / size))
    priors = random_priors(graph, size)
    here = Problem(
        graph, dict.fromkeys(graph.mixtures, nothing), priors, {"mixture": torch.tensor([2])}
    )
    found = here.posterior(engine).marginals()
    for name in graph.sources:
        torch.testing.assert_close(found[name], priors[name].exp())


@EACH
@MANY
def test_axes_are_swapped(n: int, engine: Engine) -> None:
    """The published forward message adds the prior of z1 on the axis of z2. Tables that copy one
    of their parents tell the axes apart: the observed token must come back at that source, and all
    others keep their priors."""
    graph, size = compile_program(chain(n)), 4
    left = torch.eye(size)[:, None].expand(size, size, size)  # the child repeats its first parent
    right = left.transpose(0, 1)
    priors = random_priors(graph, size)
    for place in range(n):
        tables = {}
        for step, name in enumerate(graph.mixtures, 1):  # mixture site `step` adds source step + 1
            tables[name] = Table.from_array(right if step == place else left)
        here = Problem(graph, tables, priors, {"mixture": torch.tensor([3])})
        found = here.posterior(engine).marginals()
        for number, name in enumerate(graph.sources):
            wanted = torch.eye(size).double()[3] if number == place else priors[name][0, 0].exp()
            torch.testing.assert_close(found[name][0, 0], wanted)


@EACH
def test_the_prior_is_mixed_over_the_candidates(engine: Engine) -> None:
    """`logsumexp(p_zs[i], dim=0)` runs over the candidates, so each is conditioned on the average
    of everybody's past."""
    graph, size = compile_program(chain(3)), 3
    tables, priors = random_tables(graph, size), random_priors(graph, size, c=4)
    tokens = {"mixture": torch.tensor([1])}
    together = Problem(graph, tables, priors, tokens)
    check_engine(engine, together)
    found = together.posterior(engine).marginals()["source_1"]
    averaged = {
        name: (log.logsumexp(1, keepdim=True) - log.new_tensor(4).log()).expand_as(log)
        for name, log in priors.items()
    }
    other = Problem(graph, tables, averaged, tokens).posterior(engine).marginals()["source_1"]
    assert float((found - other).abs().max()) > 0.01


# --- drawing --------------------------------------------------------------------------------------


@EACH
def test_samples_are_products_of_marginals(engine: Engine) -> None:
    """Two sources of one prior whose mixture says that they differ: their marginals are the same,
    so drawn one by one they take the same token in half of all cases, which is impossible."""
    differ = torch.zeros(2, 2, 2)
    differ[..., 1] = 1 - torch.eye(2)
    differ[..., 0] = torch.eye(2)
    graph = compile_program(joint(2))
    flat = torch.zeros(1, 2000, 2)
    here = Problem(
        graph,
        {"mixture": Table.from_array(differ)},
        dict.fromkeys(graph.sources, flat),
        {"mixture": torch.tensor([1])},
    )
    drawn = here.posterior(engine).sample(torch.Generator().manual_seed(0))
    assert (drawn["source_1"] != drawn["source_2"]).all()
    assert float(drawn["source_1"].double().mean()) == pytest.approx(0.5, abs=0.05)
    paper = here.posterior(BP(draw="marginals")).sample(torch.Generator().manual_seed(0))
    same = (paper["source_1"] == paper["source_2"]).double().mean()
    assert float(same) == pytest.approx(0.5, abs=0.05)


def test_top_k_keeps_the_union_over_all_rows() -> None:
    """`m[:, :, topk_indices] = ...` writes every row's indices into every row."""
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 20, 16, generator=random).log_softmax(-1)
    published = torch.zeros_like(scores)
    published[..., scores.topk(2, -1).indices.flatten()] = 1
    assert int(published.sum(-1).max()) > 10
    kept = Sample(top_k=2).temper(scores, 0, 1)
    assert ((kept > float("-inf")).sum(-1) == 2).all()
    best = scores.topk(2, -1)
    torch.testing.assert_close(kept.gather(-1, best.indices), best.values.log_softmax(-1))


# --- state ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lm_bundle() -> Bundle:
    codec = make_codec()
    return count_tables(Bundle("tiny", codec, {"blob": make_gpt2()}, smoothing=Additive(0.1)))


@pytest.mark.parametrize(
    ("program", "engine"),
    [(chain(3), BP()), (joint(2), Exact()), (star(2), Extractor())],
    ids=["chain", "joint", "star"],
)
def test_the_second_mixture_attends_to_the_first(
    lm_bundle: Bundle, program: Callable[[], object], engine: Engine
) -> None:
    """The published cache is dropped only when the batch holds one row, so from the second mixture
    on the priors have read the mixtures before it."""
    signals = mixtures(2, 3)
    options = {"infer": engine, "search": Sample(candidates=4)}
    both = separate(signals, program, lm_bundle, **options)
    separate(signals[:1], program, lm_bundle, **options)  # leaves nothing behind, either
    alone = separate(signals[1:], program, lm_bundle, streams=[1], **options)
    for name, tokens in both.candidate_tokens.items():
        assert torch.equal(tokens[1:], alone.candidate_tokens[name])
    torch.testing.assert_close(both.evidence[1:], alone.evidence)


def test_the_cache_does_not_follow_the_beams() -> None:
    """Candidates that continue others carry over the whole past of those."""
    prior = make_gpt2()
    past = torch.randint(6, (5, 4), generator=torch.Generator().manual_seed(0))
    index = torch.tensor([3, 3, 0, 4, 1])

    def read(tokens: Tensor, reorder: Tensor | None = None) -> Tensor:
        state = prior.start(len(tokens))
        _, state = prior.step(None, state)
        for column in tokens[:, :-1].unbind(1):
            _, state = prior.step(column, state)
        if reorder is not None:
            state = prior.reorder(state, reorder)
            tokens = tokens[reorder]
        return prior.step(tokens[:, -1], state)[0]

    torch.testing.assert_close(read(past, index), read(past[index]))
    assert float((read(past, index) - read(past)).abs().max()) > 0.01


@dataclass(frozen=True)
class Resample(Search):
    """Each candidate goes on from one drawn in proportion to the evidence."""

    candidates: int = 6

    def step(self, found, random, weights):
        tokens = found.sample(random)
        share = found.log_evidence.softmax(-1)[:, None].expand(-1, self.candidates, -1)
        uniform = uniforms(random, *found.log_evidence.shape, 1).flatten()
        parents = draw(share.flatten(0, 1), uniform).reshape(found.log_evidence.shape)
        tokens = {name: drawn.gather(1, parents) for name, drawn in tokens.items()}
        return Step(tokens, parents, weights)


def test_beam_scores_are_those_of_other_beams() -> None:
    """`log_post_sum[beams]` re-indexes scores that are in the children's order already: after the
    first token every beam has another one's score. Here the evidence of every candidate is that of
    its own tokens, read again from the start."""
    bundle = make_bundle(Additive(0.1))
    program, signals = chain(3), mixtures(2, 3)
    found = separate(signals, program, bundle, search=Resample(), infer=BP())
    graph = found.graph
    plan = BP().plan(graph, bundle.tables(graph, graph.factors))
    observed = bundle.codec.encode(signals)
    prior = bundle.priors["blob"]
    m, c, length = found.evidence.shape
    states = {name: prior.start(m * c) for name in graph.sources}
    fed: dict[str, Tensor | None] = dict.fromkeys(graph.sources)
    for t in range(length):
        log_priors = {}
        for name in graph.sources:
            log, states[name] = prior.step(fed[name], states[name])
            log_priors[name] = log.reshape(m, c, -1)
            fed[name] = found.candidate_tokens[name][..., t].flatten()
        again = plan.posterior(log_priors, {"mixture": observed[:, t]}).log_evidence
        torch.testing.assert_close(found.evidence[..., t], again.float(), atol=1e-4, rtol=1e-4)
    firsts = torch.stack([found.candidate_tokens[name][..., 0] for name in graph.sources], -1)
    assert len(torch.unique(firsts[0], dim=0)) < c  # some candidates did share a parent
