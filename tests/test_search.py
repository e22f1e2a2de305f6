"""The ancestral search: how it changes priors, and what it asks of a posterior."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_bundle, make_gpt2, mixtures
from torch import Tensor

from mlass_ppl import SMC, Beam, Greedy, Sample, chain, separate
from mlass_ppl.errors import OptionError
from mlass_ppl.priors.base import score


def priors(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)


def test_the_default_leaves_priors_as_they_are():
    log = priors(3, 4, 9)
    assert Sample().temper(log, 0, 1) is log
    assert (Sample().candidates, Sample().temperature, Sample().top_k) == (64, 1.0, None)


@given(st.floats(0.05, 20), st.integers(1, 12), st.integers(0, 1000))
def test_rows_stay_distributions(temperature, top_k, seed):
    log = priors(5, 9, seed=seed)
    tempered = Sample(temperature=temperature, top_k=top_k).temper(log, 0, 1)
    assert torch.allclose(tempered.exp().sum(-1), torch.ones(5, dtype=torch.float64))
    assert not tempered.isnan().any()


def test_temperature_raises_to_a_power():
    log = priors(2, 3, 5)
    cold = Sample(temperature=0.5).temper(log, 0, 1).exp()
    expected = log.exp() ** 2 / (log.exp() ** 2).sum(-1, keepdim=True)
    assert torch.allclose(cold, expected)
    assert torch.allclose(
        Sample(temperature=1e6).temper(log, 0, 1).exp(), torch.tensor(0.2).double()
    )
    frozen = Sample(temperature=1e-4).temper(log, 0, 1).exp()
    assert torch.allclose(frozen.amax(-1), torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(frozen.argmax(-1), log.argmax(-1))


def test_impossible_tokens_stay_impossible():
    log = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
    tempered = Sample(temperature=3.0).temper(log, 0, 1).exp()
    assert tempered.tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    # fewer possible tokens than k: what is impossible is not made up
    assert Sample(top_k=2).temper(log, 0, 1).exp().tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize("k", [1, 3, 8])
def test_top_k_keeps_exactly_the_k_best_of_each_row(k):
    log = priors(20, 8)
    kept = Sample(top_k=k).temper(log, 0, 1).exp()
    for row, after in zip(log, kept, strict=True):
        best = row.argsort(descending=True)[:k]
        expected = torch.zeros(8, dtype=torch.float64)
        expected[best] = row[best].exp() / row[best].exp().sum()
        assert torch.allclose(after, expected)


def test_ties_do_not_let_more_than_k_through():
    flat = torch.full((4, 10), -math.log(10))
    assert ((Sample(top_k=3).temper(flat, 0, 1) > -math.inf).sum(-1) == 3).all()


def flat_prior(*shares: float) -> Tensor:
    return torch.tensor([shares], dtype=torch.float64).log()


@given(st.floats(0.01, 1.0), st.integers(0, 1000))
def test_top_p_keeps_the_fewest_tokens_that_hold_the_mass(top_p, seed):
    log = priors(6, 9, seed=seed)
    after = Sample(top_p=top_p).temper(log, 0, 1).exp()
    for row, found in zip(log.exp(), after, strict=True):
        kept = found > 0
        mass = float(row[kept].sum())
        assert mass >= top_p - 1e-5
        assert int(kept.sum()) == 1 or mass - float(row[kept].min()) < top_p
        assert int(kept.sum()) == 9 or float(row[kept].min()) >= float(row[~kept].max())
        assert torch.allclose(found[kept], row[kept] / mass)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, [1]), (0.4, [1]), (0.41, [1, 0]), (0.7, [1, 0]), (0.71, [1, 0, 2]),
                        (0.95, [1, 0, 2, 3]), (1.0, [1, 0, 2, 3])],
)  # fmt: skip
def test_ties_of_a_nucleus_go_to_the_lower_token(top_p, kept):
    """0.3, 0.4, 0.2, 0.1: mass that is reached exactly is reached."""
    for dtype in (torch.float64, torch.float32):
        log = flat_prior(0.3, 0.4, 0.2, 0.1, 0.0).to(dtype)
        found = Sample(top_p=top_p).temper(log, 0, 1)[0]
        assert (found > -math.inf).nonzero()[:, 0].tolist() == sorted(kept)
    even = Sample(top_p=0.5).temper(flat_prior(*[0.25] * 4), 0, 1)[0]
    assert (even > -math.inf).tolist() == [True, True, False, False]
    even = Sample(top_k=3).temper(flat_prior(*[0.25] * 4), 0, 1)[0]
    assert (even > -math.inf).tolist() == [True, True, True, False]


def test_the_nucleus_is_of_what_temperature_and_top_k_leave():
    log = flat_prior(0.4, 0.3, 0.2, 0.1)
    both = Sample(top_k=2, top_p=0.57).temper(log, 0, 1)[0].exp()  # 4/7 = 0.571
    assert both.tolist() == pytest.approx([1.0, 0, 0, 0])
    hot = Sample(temperature=1e6, top_p=0.57).temper(log, 0, 1)[0]
    assert int((hot > -math.inf).sum()) == 3


def test_a_schedule_goes_from_the_first_position_to_the_last():
    log, search = priors(4, 6), Sample(temperature=(2.0, 0.5))
    for position, temperature in ((0, 2.0), (1, 1.5), (2, 1.0), (3, 0.5)):
        assert search.temperature_at(position, 4) == temperature
        expected = (log / temperature).log_softmax(-1)
        assert torch.allclose(search.temper(log, position, 4), expected)
    assert search.temper(log, 2, 4) is log
    assert search.temperature_at(0, 1) == 2.0


def test_every_position_of_a_separation_has_its_own_temperature(monkeypatch):
    asked = []

    def temper(self, log_priors, position, length):
        asked.append((position, length))
        return log_priors

    monkeypatch.setattr(Sample, "temper", temper)
    separate(mixtures(1), chain(2), make_bundle(), search=Sample(1))
    assert asked == [(t, 9) for t in range(9)]


@pytest.mark.parametrize("search", [Sample(5, temperature=0.7), SMC(5, threshold=1.0, top_p=0.9),
                                    Greedy(), Beam(5), Beam(6, groups=2)])  # fmt: skip
def test_log_prior_is_that_of_the_candidates_tokens(search):
    """Under the prior as it is, whoever continued whom."""
    used = replace(make_bundle(), priors={"blob": make_gpt2()})
    for program in (chain(2), chain(3)):
        found = separate(mixtures(3), program, used, search=search, on_unseen="prior")
        expected = sum(
            score(used.priors["blob"], tokens.flatten(0, 1)).double().sum(1)
            for tokens in found.candidate_tokens.values()
        )
        assert found.log_prior.dtype == found.log_weights.dtype == torch.float64
        assert torch.allclose(found.log_prior, expected.reshape(3, -1), atol=1e-4)


def test_log_weights_are_the_evidence_since_the_last_resampling():
    used = make_bundle()
    found = separate(mixtures(3), chain(2), used, search=Sample(5))
    assert torch.allclose(found.log_weights, found.evidence.double().sum(2), atol=1e-4)
    found = separate(mixtures(3), chain(2), used, search=SMC(5, threshold=0.0))
    assert torch.allclose(found.log_weights, found.evidence.double().sum(2), atol=1e-4)
    found = separate(mixtures(3), chain(2), used, search=SMC(5, threshold=1.0))
    assert (found.log_weights == 0).all()


def test_searches_print_what_makes_them_again():
    for search in (Sample(3, top_p=0.5), SMC(4, threshold=0.2, temperature=(1.0, 0.5)), Greedy()):
        assert eval(repr(search)) == search
    assert repr(Sample(3)) == "Sample(candidates=3, temperature=1.0, top_k=None, top_p=None)"


def test_a_k_beyond_the_alphabet_keeps_all():
    log = priors(4, 6)
    assert torch.allclose(Sample(top_k=6).temper(log, 0, 1), log)
    assert torch.allclose(Sample(top_k=100).temper(log, 0, 1), log)


class Recorder:
    """A posterior that tells with what it was asked to draw."""

    log_evidence = torch.tensor([[-1.0, -2.0]])

    def sample(self, random):
        self.random = random
        return {"a": torch.zeros(1, 2, dtype=torch.long)}


def test_each_candidate_draws_and_continues_itself():
    posterior, random = Recorder(), [torch.Generator()]
    tokens, parents, weights = Sample(2).step(posterior, random, torch.ones(1, 2))
    assert posterior.random is random
    assert list(tokens) == ["a"]
    assert parents is None
    assert weights.tolist() == [[0.0, -1.0]]  # the evidence so far


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "candidates must be a whole number, at least 1, got 0"),
        ({"candidates": 2.5}, r"got 2\.5"),
        ({"candidates": "many"}, "got 'many'"),
        ({"temperature": 0}, "temperature must be positive, or a pair .* got 0"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"top_k": 0}, "top_k must be None or a whole number, at least 1, got 0"),
        ({"top_k": 1.0}, "top_k"),
        ({"temperature": (1.0, 0.0)}, r"pair of such numbers .* got \(1.0, 0.0\)"),
        ({"temperature": (1.0, 1.0, 1.0)}, "temperature must be positive"),
        ({"temperature": "hot"}, "temperature must be positive"),
        ({"top_p": 0.0}, r"top_p must be None or a share of the mass, in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Sample(**options)
