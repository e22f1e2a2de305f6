"""The language model's cache: pasts shared, branched and chunked change no answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import make_gpt2
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM, MistralConfig, MistralForCausalLM

from mlass_ppl import SMC, separate
from mlass_ppl.priors import CausalLM, NGram, _cache
from mlass_ppl.shapes import chain
from mlass_ppl.testing import check_prior

K, LENGTH = 5, 12


def bloom() -> CausalLM:
    """A model that knows no longest sequence."""
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=K + 1, hidden_size=16, n_layer=2, n_head=2, bos_token_id=K, initializer_range=0.5
    )
    return CausalLM(BloomForCausalLM(config), K).eval().requires_grad_(False)


def mistral() -> CausalLM:
    """A model whose cache slides: it sees four positions alone."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=K + 1, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, bos_token_id=K,
        sliding_window=4, max_position_embeddings=LENGTH, initializer_range=0.5,
    )  # fmt: skip
    return CausalLM(MistralForCausalLM(config), K).eval().requires_grad_(False)


def labelled() -> CausalLM:
    prior = CausalLM(make_gpt2(K, LENGTH).model, K, 3).eval().requires_grad_(False)
    torch.nn.init.normal_(prior.classes.weight, generator=torch.Generator().manual_seed(1))
    return prior


PRIORS = {"gpt2": lambda: make_gpt2(K, LENGTH), "bloom": bloom, "mistral": mistral}


@pytest.fixture(params=PRIORS)
def prior(request) -> CausalLM:
    return PRIORS[request.param]()


def walk(
    prior: Any, indices: dict[int, Tensor], rows: int, labels: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Step through random tokens, reordering before the positions in `indices`: the last log p
    [rows', K], the tokens [rows', LENGTH] that they follow on and the labels."""
    random = torch.Generator().manual_seed(seed)
    state, fed, past = prior.start(rows, labels), None, torch.zeros(rows, 0, dtype=torch.int64)
    for place in range(LENGTH):
        if place in indices:
            index = indices[place]
            state, past = prior.reorder(state, index), past[index]
            fed = None if fed is None else fed[index]
            labels = None if labels is None else labels[index]
        log, state = prior.step(fed, state)
        # of two tokens alone, so that many rows stay the same for long
        fed = torch.randint(2, (len(past),), generator=random)
        past = torch.cat([past, fed[:, None]], 1)
    return log, past, labels


def indices(rows: int) -> dict[int, Tensor]:
    random = torch.Generator().manual_seed(2)
    return {
        3: torch.randint(rows, (rows,), generator=random),  # in no order, with repetitions
        4: torch.arange(rows).flip(0),
        6: torch.randint(rows, (2 * rows + 3,), generator=random),  # more rows than ever
        9: torch.randint(rows, (rows // 2 + 1,), generator=random),  # and few
        10: torch.full((rows,), 1),
    }


@pytest.mark.parametrize("chunk", [8, 11, 512])
@pytest.mark.parametrize("rows", [2, 40])
def test_branching_pasts_equal_those_computed_anew(prior, rows, chunk, monkeypatch):
    monkeypatch.setattr(_cache, "_CHUNK", chunk)
    log, past, _ = walk(prior, indices(rows), rows)
    assert len(past.unique(dim=0)) > 1
    assert torch.allclose(log, prior(past)[:, -1], atol=1e-5)
    assert torch.allclose(log.exp().sum(1), torch.ones(len(log)), atol=1e-5)


def test_labelled_pasts_stay_apart():
    prior, labels = labelled(), torch.arange(40) % 4 - 1
    log, past, labels = walk(prior, indices(40), 40, labels)
    assert torch.allclose(log, prior(past, labels)[:, -1], atol=1e-5)
    assert not torch.allclose(log, prior(past)[:, -1], atol=1e-3)
    moved = prior.reorder(prior.start(2, torch.tensor([0, 2])), torch.tensor([1, 1, 0]))
    first, _ = prior.step(None, moved)
    wanted = prior(torch.zeros(3, 1, dtype=torch.int64), torch.tensor([2, 2, 0]))[:, 0]
    assert torch.allclose(first, wanted, atol=1e-5)


def test_buffers_grow(prior, monkeypatch):
    wanted = walk(prior, indices(9), 9)[0]
    monkeypatch.setattr(_cache, "_FIRST", 1)
    monkeypatch.setattr(_cache, "_BLOCK", 3)
    assert torch.equal(walk(prior, indices(9), 9)[0], wanted)


def test_a_row_does_not_tell_how_many_others_there_are():
    """To the bit: no answer may depend on the mixtures that share a batch."""
    prior, random = make_gpt2(K, LENGTH), torch.Generator().manual_seed(3)
    tokens = torch.randint(K, (50, LENGTH), generator=random)

    def read(rows: Tensor) -> Tensor:
        state, fed, out = prior.start(len(rows)), None, []
        for column in rows.unbind(1):
            log, state = prior.step(fed, state)
            out.append(log)
            fed = column
        return torch.stack(out, 1)

    whole = read(tokens)
    for rows in (slice(0, 1), slice(7, 10), slice(20, 50)):
        assert torch.equal(read(tokens[rows]), whole[rows])
    assert torch.equal(read(tokens.flip(0)).flip(0), whole)


def test_rows_of_one_past_are_computed_once(monkeypatch):
    prior, sizes = make_gpt2(K, LENGTH), []
    model = type(prior.model)
    forward = model.forward

    def counted(self, input_ids, **options):
        sizes.append(len(input_ids))
        return forward(self, input_ids, **options)

    monkeypatch.setattr(model, "forward", counted)
    _, state = prior.step(None, prior.start(1000))
    _, state = prior.step(torch.arange(1000) % 2, state)
    _, state = prior.step(torch.arange(1000) % 5, state)
    state = prior.reorder(state, torch.arange(1000) % 100)
    prior.step(torch.arange(1000) // 100 % 5, state)
    assert sizes == [_cache.LEAST, _cache.LEAST, 10, 50]


def test_no_rows(prior):
    _, state = prior.step(None, prior.start(0))
    log, _ = prior.step(torch.zeros(0, dtype=torch.int64), state)
    assert log.shape == (0, K)


def test_priors_keep_their_protocol(prior):
    check_prior(prior, rows=5, length=LENGTH)


def test_an_ngram_has_no_cache():
    prior = NGram.fit(torch.randint(K, (50, LENGTH)), K, order=2)
    log, past, _ = walk(prior, indices(40), 40)
    assert torch.equal(log, prior.table[past[:, -2]].log().to(log))


def test_a_separation_is_the_same_in_any_chunks(monkeypatch):
    from tiny import make_bundle, mixtures

    bundle = replace(make_bundle(), priors={"blob": make_gpt2()})
    found = []
    for chunk in (8, 512):
        monkeypatch.setattr(_cache, "_CHUNK", chunk)
        found.append(separate(mixtures(3), chain(2), bundle, search=SMC(8), on_unseen="prior"))
    for name, tokens in found[0].candidate_tokens.items():
        assert torch.equal(tokens, found[1].candidate_tokens[name])
