"""Evidence and tokens of a separation are of one past, whatever search, tables and priors do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import (
    ALPHABET,
    TOKENS,
    make_bundle,
    make_gpt2,
    mixtures,
    named,
    without,
)
from torch import Tensor

from mlass_ppl import BP, Exact, Extractor, Sample, Separation, separate
from mlass_ppl.bundle import Bundle
from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.errors import (
    UnseenToken,
)
from mlass_ppl.infer.base import Engine, Posterior
from mlass_ppl.infer.random import Random, draw, uniforms
from mlass_ppl.priors import NGram
from mlass_ppl.search import Search, Step
from mlass_ppl.shapes import chain, joint, star
from mlass_ppl.tables import Counts

SIX = Sample(6)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Counted often enough that every token of a mixture was seen; many pairs were not."""
    return make_bundle()


@pytest.fixture(scope="module")
def deep(bundle) -> Bundle:
    """The same with a language model for a prior."""
    return replace(bundle, priors={"blob": make_gpt2()})


# --- the evidence --------------------------------------------------------------------------------


def rescored(bundle: Bundle, found: Separation, engine: Engine) -> Tensor:
    """log p(observed token | past) of every candidate, from its tokens alone: [M, C, T]."""
    graph = found.graph
    plan = engine.plan(graph, bundle.tables(graph, engine.factors(graph)))
    observed = bundle.codec.encode(found.mixtures)
    m, c, length = found.evidence.shape
    steps: dict[str, list[Tensor]] = {}
    for name in graph.sources:
        prior, fed = bundle.priors[bundle.prior_key(graph, name)], None
        state, steps[name] = prior.start(m * c), []
        for t in range(length):
            log, state = prior.step(fed, state)
            steps[name].append(log.reshape(m, c, -1))
            fed = found.candidate_tokens[name][..., t].flatten()
    out = []
    for t in range(length):
        log_priors = {name: logs[t] for name, logs in steps.items()}
        evidence = dict.fromkeys(graph.observed, observed[:, t])
        out.append(plan.posterior(log_priors, evidence).log_evidence)
    return torch.stack(out, -1)


@pytest.mark.parametrize(
    ("program", "engine"),
    [(chain(3), BP()), (joint(2), Exact()), (star(2), Extractor())],
    ids=named,
)
def test_evidence_is_that_of_each_candidates_own_past(deep, program, engine):
    found = separate(mixtures(3), program, deep, infer=engine, search=SIX)
    expected = rescored(deep, found, engine)
    assert torch.allclose(found.evidence, expected.float(), atol=1e-4)
    assert found.evidence[..., 1:].std(1).min() > 1e-3  # the pasts do differ


def test_drawn_tokens_are_possible(bundle):
    found = separate(mixtures(4), joint(2), bundle, infer=Exact(), search=SIX)
    graph = found.graph
    table = bundle.tables(graph, graph.factors)["mixture"].dense()
    a, b = (found.candidate_tokens[name] for name in found)
    observed = bundle.codec.encode(found.mixtures)[:, None].expand_as(a)
    possible = found.evidence > float("-inf")
    assert possible.float().mean() > 0.9
    assert (table[a, b, observed][possible] > 0).all()


class Resample(Search):
    """A particle filter: candidates with more evidence are continued more often."""

    candidates = 6

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        m, c = posterior.log_evidence.shape
        share = posterior.log_evidence.exp()[:, None].expand(m, c, c).flatten(0, 1)
        parents = draw(share, uniforms(random, m, c, 1).flatten()).reshape(m, c)
        drawn = posterior.sample(random)
        tokens = {name: tokens.gather(1, parents) for name, tokens in drawn.items()}
        return Step(tokens, parents, weights)


@pytest.mark.parametrize("prior", ["bundle", "deep"])
def test_a_search_may_let_candidates_continue_others(prior, request):
    """After resampling, evidence, tokens and the prior's cache are still of one past."""
    used = request.getfixturevalue(prior)
    found = separate(mixtures(3), chain(3), used, search=Resample())
    assert torch.allclose(found.evidence, rescored(used, found, BP()).float(), atol=1e-4)
    first = found.candidate_tokens["source_1"][..., 0]
    assert any(len(row.unique()) < 6 for row in first)


class Rotate(Resample):
    """Candidate c goes on from candidate c + 1."""

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        m, c = posterior.log_evidence.shape
        parents = torch.arange(c).roll(-1).expand(m, c)
        drawn = posterior.sample(random)
        tokens = {name: tokens.gather(1, parents) for name, tokens in drawn.items()}
        return Step(tokens, parents, weights)


def test_candidates_that_go_on_from_their_priors_keep_to_their_past(bundle):
    """Under a prior in which token k is followed by k + 1 alone, every candidate counts upwards,
    also where its tables or the observation leave it nothing else to go by."""
    table = torch.eye(ALPHABET, dtype=torch.float64).roll(1, 1)
    first = torch.full((1, ALPHABET), 1 / ALPHABET, dtype=torch.float64)
    ruled = replace(bundle, priors={"blob": NGram(torch.cat([table, first]))})
    ruled = without(ruled, int(bundle.codec.encode(mixtures(1))[0, 4]))
    found = separate(mixtures(3), chain(2), ruled, search=Rotate(), on_unseen="prior")
    assert (found.evidence == float("-inf")).any()
    assert (found.evidence == 0).any()
    for tokens in found.candidate_tokens.values():
        assert torch.equal(tokens[..., 1:], (tokens[..., :-1] + 1) % ALPHABET)
        assert len(tokens[..., 0].unique()) > 1


# --- tokens that no table explains ---------------------------------------------------------------


CASES = [(chain(3), BP()), (joint(2), Exact()), (star(2), Extractor())]


@pytest.mark.parametrize(("program", "engine"), CASES, ids=named)
def test_an_unseen_token_is_an_error_that_says_where(bundle, program, engine):
    given = mixtures(1)
    tokens = bundle.codec.encode(given)[0].tolist()
    blind = without(bundle, tokens[4])
    place = tokens.index(tokens[4])
    message = rf"(?s)position {place} of 9: token {tokens[4]} of 'mixture.*on_unseen='prior'"
    with pytest.raises(UnseenToken, match=message):
        separate(given, program, blind, infer=engine, search=SIX)


@pytest.mark.parametrize(("program", "engine"), CASES, ids=named)
def test_an_unseen_token_may_be_skipped(bundle, program, engine):
    given = mixtures(3)
    observed = bundle.codec.encode(given)
    blind = without(bundle, int(observed[0, 4]))
    skipped = observed == observed[0, 4]
    found = separate(given, program, blind, infer=engine, search=SIX, on_unseen="prior")
    assert (found.evidence.movedim(1, 2)[skipped] == 0).all()
    assert (found.evidence.movedim(1, 2)[~skipped] != 0).all()
    assert all(int(tokens.min()) >= 0 for tokens in found.candidate_tokens.values())
    assert found.notices == (
        f"{int(skipped.sum())} observed tokens never occur in the tables and were skipped.",
    )
    assert found.notices[0] in repr(found)


def test_several_observed_sites_may_know_different_tokens(bundle):
    """Two extractors of different kinds: what one has seen, the other may not have."""

    def program():
        a, b = source("a", prior="a"), source("b", prior="b")
        return mix("m_a", a, hidden=[b]), mix("m_b", b, hidden=[a])

    prior = bundle.priors["blob"]
    used = replace(bundle, priors={"a": prior, "b": prior})
    graph = compile_program(program)
    first = torch.eye(ALPHABET, dtype=torch.int64)[0].expand(ALPHABET, -1)
    tables = {
        used.recipe(graph, factor): Counts.from_dense(array)
        for factor, array in zip(graph.factors, (first, 1 - first), strict=True)
    }
    used = replace(used, counts=tables)  # one site knows only token 0, the other all but 0
    found = separate(mixtures(2), program, used, infer=Extractor(), search=SIX, on_unseen="prior")
    assert (found.evidence == 0).all()
    assert found.notices[0].startswith(f"{2 * TOKENS} observed tokens")
