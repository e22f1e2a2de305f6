"""Class-conditional priors: begin tokens for classes, how they are learned, stored and used."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from tiny import ALPHABET, TOKENS, make_bundle, make_gpt2, mixtures
from torch import Tensor
from transformers import GPT2LMHeadModel

from mlass_ppl import Sample, separate
from mlass_ppl.bundle import Bundle, load
from mlass_ppl.declare import mix, source
from mlass_ppl.errors import DataError, OptionError, PriorError
from mlass_ppl.priors import CausalLM, NGram, gpt2_config, score
from mlass_ppl.train import add_labels, nats_of

CLASSES = 3


def labelled(alphabet: int = ALPHABET, length: int = TOKENS, seed: int = 0) -> CausalLM:
    """The prior of `make_gpt2` with classes that have nothing to do with each other."""
    prior = CausalLM(make_gpt2(alphabet, length, seed).model, alphabet, CLASSES)
    random = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(prior.classes.weight, generator=random)
    return prior.requires_grad_(False)


def sequences(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(ALPHABET, (rows, TOKENS), generator=torch.Generator().manual_seed(seed))


# --- the prior -----------------------------------------------------------------------------------


def test_each_class_has_its_own_begin_token():
    prior, tokens = labelled(), sequences(4)
    labels = torch.tensor([0, 2, -1, 1])
    full = prior(tokens, labels)
    assert full.shape == (4, TOKENS, ALPHABET)
    table, classes = prior.model.transformer.wte.weight, prior.classes.weight
    begins = [classes[0], classes[2], table[ALPHABET], classes[1]]  # -1 is no class
    for row, begin in enumerate(begins):
        fed = torch.cat([begin[None], table[tokens[row, :-1]]])[None]
        expected = prior.model(inputs_embeds=fed).logits[0, :, :ALPHABET].log_softmax(-1)
        assert torch.allclose(full[row], expected, atol=1e-5)
    assert not torch.allclose(full[0], prior(tokens)[0], atol=1e-2)
    assert torch.allclose(full[2], prior(tokens)[2], atol=1e-5)


def test_new_classes_begin_as_the_unconditional_prior():
    prior, tokens = CausalLM(make_gpt2().model, ALPHABET, CLASSES), sequences(3)
    assert torch.allclose(prior(tokens, torch.tensor([0, 1, 2])), prior(tokens), atol=1e-6)


def test_cached_steps_with_labels_equal_the_full_forward_pass():
    prior, tokens, labels = labelled(), sequences(5), torch.tensor([0, 1, 2, -1, 1])
    picked = prior(tokens, labels).gather(2, tokens[..., None])[..., 0]
    assert torch.allclose(score(prior, tokens, labels), picked, atol=1e-5)
    assert not torch.allclose(score(prior, tokens), picked, atol=1e-2)


def test_labels_are_reordered_before_the_first_step():
    prior, index = labelled(), torch.tensor([2, 2, 0])
    labels = torch.tensor([0, 1, 2])
    moved, _ = prior.step(None, prior.reorder(prior.start(3, labels), index))
    expected, _ = prior.step(None, prior.start(3, labels[index]))
    assert torch.equal(moved, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labelled().start(2, torch.tensor([0, 3])), r"classes 0 to 2, got .* \[0, 3\]"),
        (lambda: labelled().start(2, torch.tensor([0, -2])), r"labels in \[-2, 0\]"),
        (lambda: labelled().start(2, torch.tensor([0])), r"2 integer labels.*\[1\]"),
        (lambda: labelled().start(1, torch.tensor([0.0])), "integer labels.*float32"),
        (lambda: make_gpt2().start(1, torch.tensor([0])), "classes none.*train.add_labels"),
        (lambda: NGram.uniform(2).start(1, torch.tensor([0])), "Fit one NGram for each class"),
        (lambda: CausalLM(make_gpt2().model, ALPHABET, -1), "number of classes, .* got -1"),
    ],
)
def test_labels_that_a_prior_does_not_know_are_refused(call, message):
    with pytest.raises(PriorError, match=message):
        call()


def test_labels_are_stored_and_old_cards_have_none(tmp_path):
    made = make_bundle()
    bundle = replace(made, priors={"plain": make_gpt2(), "classes": labelled()}, counts={})
    back = load(bundle.save(tmp_path / "b"))
    assert "labels" not in back.card["priors"]["plain"]
    assert back.card["priors"]["classes"]["labels"] == CLASSES
    plain, classes = back.priors["plain"], back.priors["classes"]
    assert isinstance(plain, CausalLM)
    assert isinstance(classes, CausalLM)
    assert (plain.labels, classes.labels) == (0, CLASSES)
    tokens, labels = sequences(3), torch.tensor([2, 0, -1])
    assert torch.allclose(classes(tokens, labels), labelled()(tokens, labels), atol=2e-2)


# --- learning classes ----------------------------------------------------------------------------


def of_classes(number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sequences of one token repeated, which their class tells."""
    labels = torch.arange(number) % CLASSES
    noise = torch.rand(number, TOKENS, generator=torch.Generator().manual_seed(seed)) < 0.1
    return torch.where(noise, ALPHABET - 1, labels[:, None].expand(-1, TOKENS)), labels


@pytest.fixture(scope="module")
def trained() -> CausalLM:
    """An unconditional prior of all classes together, trained for a moment."""
    torch.manual_seed(0)
    config = gpt2_config(ALPHABET, TOKENS, width=16, layers=1, heads=2)
    prior = CausalLM(GPT2LMHeadModel(config), ALPHABET).eval()
    tokens, _ = of_classes(300)
    optimiser = torch.optim.Adam(prior.parameters(), 1e-2)
    for _ in range(60):
        loss = -prior(tokens).gather(2, tokens[..., None]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return prior.requires_grad_(False)


def test_classes_are_learned_and_all_else_stays(trained):
    before = copy.deepcopy(trained.model.state_dict())
    tokens, labels = of_classes(300, 1)
    held, own = of_classes(60, 2)
    said: list[tuple[int, float, float]] = []
    steps: list[tuple[int, int]] = []
    random = torch.get_rng_state()
    prior = add_labels(
        trained, tokens, labels, (held, own), epochs=6, batch_size=20, rate=0.05,
        progress=lambda *call: steps.append(call), report=lambda *call: said.append(call),
    )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), random)
    assert steps == [(step + 1, 90) for step in range(90)]
    assert [epoch for epoch, _, _ in said] == list(range(7))
    # before training a label says nothing; then it saves most of the first token's log 3 nats
    assert said[0][1] == pytest.approx(said[0][2], abs=1e-6)
    saved = nats_of(prior, held) - nats_of(prior, held, own)
    assert saved > 0.7 * math.log(CLASSES) / TOKENS
    assert nats_of(prior, held, own) == pytest.approx(min(nats for _, nats, _ in said))
    wrong = nats_of(prior, held, (own + 1) % CLASSES)
    assert wrong > nats_of(prior, held) + 0.05
    # the prior that was given, and every weight but the new rows, are bit-identical
    assert (prior.labels, trained.labels) == (CLASSES, 0)
    for name, value in before.items():
        assert torch.equal(trained.model.state_dict()[name], value), name
        assert torch.equal(prior.model.state_dict()[name], value), name
    assert torch.equal(prior(held), trained(held))
    assert torch.equal(score(prior, held), score(trained, held))
    assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_the_best_epoch_is_returned(trained):
    """A step that is far too large is not taken."""
    data = of_classes(60)
    prior = add_labels(trained, *data, data, epochs=1, batch_size=20, rate=1e4)
    tokens, labels = data
    assert nats_of(prior, tokens, labels) <= nats_of(trained, tokens) + 1e-6


def test_a_seed_decides_the_training(trained):
    data = of_classes(60)
    one, again, other = (
        add_labels(trained, *data, data, batch_size=20, rate=0.05, seed=seed) for seed in (0, 0, 1)
    )
    tokens, labels = data
    assert torch.equal(one(tokens, labels), again(tokens, labels))
    assert not torch.equal(one(tokens, labels), other(tokens, labels))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": 0}, OptionError, "got 0, 20 and 0.01"),
        ({"rate": 0.0}, OptionError, "rate positive"),
        ({"batch_size": 61}, DataError, "at least one batch of 61.* got 60 and 60"),
        ({"labels": torch.zeros(59).long()}, DataError, r"training tokens .*int64 \[59\]"),
        ({"labels": torch.zeros(60)}, DataError, r"one integer label.*float32"),
        ({"labels": torch.arange(60) % 3 * 2}, DataError, r"from 0 to 4 without \[1, 3\]"),
        ({"labels": torch.arange(60) % 3 - 1}, DataError, "labels from -1 to 1"),
        ({"labels": torch.zeros(60).long()}, DataError, r"validation labels .* \[0, 1\), got"),
        ({"tokens": sequences(60) + 1}, DataError, rf"alphabet, \[0, {ALPHABET}\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(trained, change, error, message):
    tokens, labels = of_classes(60)
    given = {"tokens": tokens, "labels": labels, "validation": (tokens, labels), "batch_size": 20}
    with pytest.raises(error, match=message):
        add_labels(trained, **{**given, **change})


def test_only_an_unconditional_prior_takes_labels(trained):
    data = of_classes(60)
    once = add_labels(trained, *data, data, batch_size=20)
    with pytest.raises(PriorError, match="has 3 classes already"):
        add_labels(once, *data, data, batch_size=20)


# --- programs with labels ------------------------------------------------------------------------


class Fixed:
    """A prior of class-specific constants: label l says token l, no label says token 5."""

    alphabet, length = ALPHABET, None
    started: list[Tensor | None]

    def __init__(self) -> None:
        self.started = []

    def start(self, rows: int, labels: Tensor | None = None) -> Tensor:
        self.started.append(labels)
        return torch.full((rows,), -1) if labels is None else labels

    def step(self, tokens: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        sure = torch.nn.functional.one_hot(state % ALPHABET, ALPHABET).double()
        return (0.99 * sure + 0.01 / ALPHABET).log(), state

    def reorder(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]


def program(first: int | None, second: int | None):
    def duo():
        return mix("mixture", source("a", label=first), source("b", label=second))

    return duo


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle(sources=(2,))


def test_sources_of_one_prior_and_several_labels_run_in_one_batch(bundle):
    prior = Fixed()
    used = replace(bundle, priors={"blob": prior})
    found = separate(mixtures(2), program(1, 4), used, search=Sample(3), on_unseen="prior")
    # asked once whether it knows the labels, and then for all rows at once
    assert [labels.tolist() for labels in prior.started] == [[1, 4], [1] * 6 + [4] * 6]
    assert found.tokens["a"].shape == (2, TOKENS)
    prior.started.clear()
    separate(mixtures(2), program(None, 4), used, search=Sample(1), on_unseen="prior")
    assert prior.started[-1].tolist() == [-1, -1, 4, 4]
    prior.started.clear()
    separate(mixtures(2), program(None, None), used, search=Sample(1), on_unseen="prior")
    assert prior.started == [None]


def test_a_label_decides_what_a_source_is(bundle):
    """Where the tables say nothing, the label alone decides."""
    used = replace(bundle, priors={"blob": Fixed()}, counts={}, smoothing=None)
    from mlass_ppl.declare import compile_program
    from mlass_ppl.tables import Counts

    graph = compile_program(program(1, 4))
    flat = Counts.from_dense(torch.ones(ALPHABET, ALPHABET, ALPHABET, dtype=torch.int64))
    used = replace(used, counts={used.recipe(graph, graph.factors[0]): flat})
    found = separate(mixtures(2), program(1, 4), used, search=Sample(20))
    assert (found.candidate_tokens["a"] == 1).float().mean() > 0.95
    assert (found.candidate_tokens["b"] == 4).float().mean() > 0.95


def test_an_unconditional_program_is_what_it_was(bundle):
    """The same draws, whether or not the prior has classes that are not asked for."""
    one, other = (
        separate(mixtures(2), program(None, None), replace(bundle, priors={"blob": prior}),
                 search=Sample(4), on_unseen="prior")
        for prior in (make_gpt2(), labelled())
    )  # fmt: skip
    for name in one.tokens:
        assert torch.equal(one.candidate_tokens[name], other.candidate_tokens[name])
    assert torch.equal(one.evidence, other.evidence)


class Third:
    """A prior from before labels."""

    alphabet, length = ALPHABET, None

    def start(self, rows: int) -> int:
        return rows

    def step(self, tokens: Tensor | None, state: int) -> tuple[Tensor, int]:
        return torch.full((state, ALPHABET), -math.log(ALPHABET)), state

    def reorder(self, state: int, index: Tensor) -> int:
        return len(index)


def test_priors_without_labels_go_on_working_and_refuse_labels(bundle):
    used = replace(bundle, priors={"blob": Third()})
    separate(mixtures(1), program(None, None), used, search=Sample(2), on_unseen="prior")
    message = r"prior 'blob' takes no labels.*source\('b', label=2\).*Third needs start\(rows, lab"
    with pytest.raises(PriorError, match=message):
        separate(mixtures(1), program(None, 2), used)
    with pytest.raises(PriorError, match=r"'blob', asked for source\('a', label=0\): an n-gram"):
        separate(mixtures(1), program(0, None), bundle)
    deep = replace(bundle, priors={"blob": labelled()})
    with pytest.raises(PriorError, match=r"label=3.*classes 0 to 2"):
        separate(mixtures(1), program(0, 3), deep)
