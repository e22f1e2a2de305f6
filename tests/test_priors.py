"""Priors: n-grams by hand, and a causal language model whose cache changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import make_gpt2
from torch import Tensor
from transformers import GPT2LMHeadModel

from mlass_ppl.errors import PriorError
from mlass_ppl.priors import CausalLM, NGram, Prior, gpt2_config, score

K, LENGTH = 5, 8


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    return make_gpt2(K, LENGTH)


def bigram() -> NGram:
    """Two tokens; row 2 is the beginning."""
    table = torch.tensor([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]], dtype=torch.float64)
    return NGram(table)


def tokens(rows: int, alphabet: int = K, length: int = LENGTH, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(alphabet, (rows, length), generator=generator)


def stepped(prior: Prior, sequences: Tensor) -> Tensor:
    """log p of every next token after each prefix of `sequences`, [rows, T, K]."""
    state, fed, out = prior.start(len(sequences)), None, []
    for column in sequences.unbind(1):
        log_probs, state = prior.step(fed, state)
        out.append(log_probs)
        fed = column
    return torch.stack(out, 1)


# --- n-grams -------------------------------------------------------------------------------------


def test_ngram_counts_by_hand():
    # begin->0 twice; 0->1 twice, 0->0 once; 1->1 once; alpha 1 on each of the 2 tokens
    prior = NGram.fit(torch.tensor([[0, 1, 1], [0, 0, 1]]), 2, order=2, alpha=1.0)
    expected = [[2 / 5, 3 / 5], [1 / 3, 2 / 3], [3 / 4, 1 / 4]]
    assert torch.allclose(prior.table, torch.tensor(expected, dtype=torch.float64))
    unigram = NGram.fit(torch.tensor([[0, 1, 1], [0, 0, 1]]), 2, order=1, alpha=1.0)
    assert unigram.table.tolist() == [0.5, 0.5]
    trigram = NGram.fit(torch.tensor([[0, 1, 0]]), 2, order=3, alpha=0.5)
    assert trigram.table.shape == (3, 3, 2)
    assert trigram.table[2, 2].tolist() == [0.75, 0.25]  # nothing before
    assert trigram.table[2, 0].tolist() == [0.25, 0.75]  # only 0 before
    assert trigram.table[0, 1].tolist() == [0.75, 0.25]
    assert trigram.table[1, 1].tolist() == [0.5, 0.5]  # never seen


def test_ngram_scores_sequences_by_hand():
    sequences = torch.tensor([[0, 0, 1], [1, 1, 0]])
    expected = torch.tensor([[0.5, 0.9, 0.1], [0.5, 0.75, 0.25]], dtype=torch.float64)
    assert torch.allclose(score(bigram(), sequences).exp(), expected)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ngram_learns_its_own_samples(order, random):
    table = torch.rand((4,) * (order - 1) + (3,), generator=random, dtype=torch.float64)
    truth = NGram(table / table.sum(-1, keepdim=True))
    state, fed, drawn = truth.start(4000), None, []
    for _ in range(12):
        log_probs, state = truth.step(fed, state)
        fed = torch.multinomial(log_probs.exp(), 1, generator=random)[:, 0]
        drawn.append(fed)
    fitted = NGram.fit(torch.stack(drawn, 1), 3, order=order, alpha=0.1)
    context = (3,) * (order - 1)
    assert torch.allclose(fitted.table[context], truth.table[context], atol=0.04)
    if order < 4:
        inner = (slice(0, 3),) * (order - 1)
        assert torch.allclose(fitted.table[inner], truth.table[inner], atol=0.08)


def test_uniform_knows_nothing():
    log_probs = stepped(NGram.uniform(7), tokens(3, 7))
    assert torch.allclose(log_probs, torch.full_like(log_probs, -math.log(7)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NGram(torch.full((2, 2), 0.5)), r"context axes of 3 .*\[2, 2\]"),
        (lambda: NGram(torch.tensor(1.0)), "single number"),
        (lambda: NGram(torch.tensor([0.6, 0.6])), "probability vector"),
        (lambda: NGram(torch.tensor([1.5, -0.5])), "probability vector"),
        (lambda: NGram(torch.tensor([0.5, float("nan")])), "probability vector"),
        (lambda: NGram.fit(tokens(2), K, alpha=0.0), "alpha must be positive"),
        (lambda: NGram.fit(tokens(2), K, order=0), "order at least 1"),
        (lambda: NGram.fit(tokens(2), K - 1), r"\[0, 4\)"),
        (lambda: NGram.fit(tokens(2)[0], K), r"\[N, T\], got \[8\]"),
    ],
)
def test_malformed_ngrams_are_refused(make, message):
    with pytest.raises(PriorError, match=message):
        make()


# --- causal language models ----------------------------------------------------------------------


def test_cached_steps_equal_the_full_forward_pass(lm):
    sequences = tokens(6)
    full = lm(sequences)
    cached = stepped(lm, sequences)
    assert torch.allclose(cached, full, atol=1e-5)
    assert full.std() > 0.3  # the model is far from uniform, so the comparison says something
    assert (full[:, 3] - full[:, 4]).abs().max() > 0.1
    picked = full.gather(2, sequences[..., None])[..., 0]
    assert torch.allclose(score(lm, sequences), picked, atol=1e-5)


def test_rows_are_distributions_over_the_alphabet_alone(lm):
    full = lm(tokens(6))
    assert full.shape == (6, LENGTH, K)  # without the begin token
    assert torch.allclose(full.exp().sum(-1), torch.ones(6, LENGTH), atol=1e-5)


def test_the_future_is_not_seen(lm):
    one, other = tokens(4), tokens(4)
    other[:, 5:] = (other[:, 5:] + 1) % K
    assert torch.allclose(lm(one)[:, :6], lm(other)[:, :6], atol=1e-6)
    assert not torch.allclose(lm(one)[:, 6:], lm(other)[:, 6:], atol=1e-3)


def test_position_zero_reads_a_begin_token_that_is_no_code(lm):
    assert lm.model.config.bos_token_id == K
    assert lm.model.config.vocab_size == K + 1
    begin = torch.full((1, 1), K)
    logits = lm.model(begin).logits[0, 0, :K].log_softmax(-1)
    first, _ = lm.step(None, lm.start(3))
    assert torch.allclose(first, logits.expand(3, -1), atol=1e-6)
    code = lm.model(torch.zeros(1, 1, dtype=torch.long)).logits[0, 0, :K].log_softmax(-1)
    assert not torch.allclose(logits, code, atol=1e-3)


PRIORS = {"lm": lambda: make_gpt2(K, LENGTH), "bigram": lambda: NGram.fit(tokens(50), K)}


@pytest.fixture(params=PRIORS)
def prior(request) -> Prior:
    return PRIORS[request.param]()


def test_rows_do_not_know_of_each_other(prior):
    sequences = tokens(5)
    whole = stepped(prior, sequences)
    for row in range(5):
        assert torch.allclose(stepped(prior, sequences[row : row + 1])[0], whole[row], atol=1e-5)
    changed = sequences.clone()
    changed[2] = (changed[2] + 1) % K
    others = [0, 1, 3, 4]
    again = stepped(prior, changed)
    assert torch.allclose(again[others], whole[others], atol=1e-6)
    assert not torch.allclose(again[2], whole[2], atol=1e-3)


@pytest.mark.parametrize("index", [[2, 0, 1], [1, 1, 1], [0, 2], [2, 2, 0, 1, 0]])
def test_reorder_moves_whole_pasts(prior, index):
    sequences, index = tokens(3), torch.tensor(index)
    state, fed = prior.start(3), None
    for column in sequences[:, :4].unbind(1):
        _, state = prior.step(fed, state)
        fed = column
    state = prior.reorder(state, index)
    moved, _ = prior.step(fed[index], state)
    expected = stepped(prior, sequences)[:, 4]
    assert torch.allclose(moved, expected[index], atol=1e-5)
    assert not torch.allclose(expected[0], expected[2], atol=1e-3)


def test_reorder_before_the_first_step(prior):
    state = prior.reorder(prior.start(2), torch.tensor([0, 0, 1]))
    first, _ = prior.step(None, state)
    assert first.shape == (3, K)


def test_priors_follow_the_protocol(prior):
    assert isinstance(prior, Prior)
    assert prior.alphabet == K
    assert prior.length in (None, LENGTH)


def test_wrong_tokens_are_refused(prior):
    _, state = prior.step(None, prior.start(3))
    for wrong in ([0, 1, K], [-1, 0, 0]):
        with pytest.raises(PriorError, match=rf"\[0, {K}\)"):
            prior.step(torch.tensor(wrong), state)
    for wrong in ([0, 1], [0, 1, 2, 3]):
        with pytest.raises(PriorError, match="expected 3 tokens, one a row"):
            prior.step(torch.tensor(wrong), state)


def test_sequences_beyond_its_length_are_refused(lm):
    state, fed = lm.start(1), None
    for _ in range(LENGTH):
        _, state = lm.step(fed, state)
        fed = torch.zeros(1, dtype=torch.long)
    with pytest.raises(PriorError, match=f"at most {LENGTH} tokens"):
        lm.step(fed, state)
    with pytest.raises(PriorError, match=f"at most {LENGTH} tokens, got {LENGTH + 1}"):
        lm(tokens(2, length=LENGTH + 1))
    assert lm(tokens(2, length=LENGTH)).shape == (2, LENGTH, K)


def test_only_the_first_step_goes_without_tokens(lm):
    _, state = lm.step(None, lm.start(2))
    with pytest.raises(PriorError, match="got None at position 1"):
        lm.step(None, state)
    with pytest.raises(PriorError, match="got tokens at position 0"):
        lm.step(torch.zeros(2, dtype=torch.long), lm.start(2))


def test_a_begin_token_inside_the_alphabet_is_refused():
    model = GPT2LMHeadModel(gpt2_config(K, LENGTH, width=8, layers=1, heads=1))
    with pytest.raises(PriorError, match="outside the alphabet"):
        CausalLM(model, K + 1)
    model.config.bos_token_id = K + 4
    with pytest.raises(PriorError, match=rf"vocabulary \({K + 1}\) does not hold"):
        CausalLM(model, K)


def test_stepping_needs_evaluation_mode():
    model = GPT2LMHeadModel(gpt2_config(K, LENGTH, width=8, layers=1, heads=1))
    prior = CausalLM(model, K)
    with pytest.raises(PriorError, match="training mode"):
        prior.start(2)
    prior.eval().step(None, prior.start(2))
