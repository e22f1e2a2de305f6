"""The ancestral search: how it changes priors, and what it asks of a posterior."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl.errors import OptionError
from mlass_ppl.search import Sample


def priors(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)


def test_the_default_leaves_priors_as_they_are():
    log = priors(3, 4, 9)
    assert Sample().temper(log) is log
    assert (Sample().candidates, Sample().temperature, Sample().top_k) == (64, 1.0, None)


@given(st.floats(0.05, 20), st.integers(1, 12), st.integers(0, 1000))
def test_rows_stay_distributions(temperature, top_k, seed):
    log = priors(5, 9, seed=seed)
    tempered = Sample(temperature=temperature, top_k=top_k).temper(log)
    assert torch.allclose(tempered.exp().sum(-1), torch.ones(5, dtype=torch.float64))
    assert not tempered.isnan().any()


def test_temperature_raises_to_a_power():
    log = priors(2, 3, 5)
    cold = Sample(temperature=0.5).temper(log).exp()
    expected = log.exp() ** 2 / (log.exp() ** 2).sum(-1, keepdim=True)
    assert torch.allclose(cold, expected)
    assert torch.allclose(Sample(temperature=1e6).temper(log).exp(), torch.tensor(0.2).double())
    frozen = Sample(temperature=1e-4).temper(log).exp()
    assert torch.allclose(frozen.amax(-1), torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(frozen.argmax(-1), log.argmax(-1))


def test_impossible_tokens_stay_impossible():
    log = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
    tempered = Sample(temperature=3.0).temper(log).exp()
    assert tempered.tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    # fewer possible tokens than k: what is impossible is not made up
    assert Sample(top_k=2).temper(log).exp().tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize("k", [1, 3, 8])
def test_top_k_keeps_exactly_the_k_best_of_each_row(k):
    log = priors(20, 8)
    kept = Sample(top_k=k).temper(log).exp()
    for row, after in zip(log, kept, strict=True):
        best = row.argsort(descending=True)[:k]
        expected = torch.zeros(8, dtype=torch.float64)
        expected[best] = row[best].exp() / row[best].exp().sum()
        assert torch.allclose(after, expected)


def test_ties_do_not_let_more_than_k_through():
    flat = torch.full((4, 10), -math.log(10))
    assert ((Sample(top_k=3).temper(flat) > -math.inf).sum(-1) == 3).all()


def test_a_k_beyond_the_alphabet_keeps_all():
    log = priors(4, 6)
    assert torch.allclose(Sample(top_k=6).temper(log), log)
    assert torch.allclose(Sample(top_k=100).temper(log), log)


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
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"top_k": 0}, "top_k must be None or a whole number, at least 1, got 0"),
        ({"top_k": 1.0}, "top_k"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Sample(**options)
