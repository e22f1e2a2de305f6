"""A prior trained on: what an epoch holds, labels for some rows, resume, recipe and command."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ALPHABET, SIZE, blobs, make_codec, make_gpt2
from torch import Tensor, nn
from typer.testing import CliRunner

from mlass_ppl.bundle import Bundle, load
from mlass_ppl.cli import app
from mlass_ppl.errors import BundleError, DataError, OptionError, PriorError
from mlass_ppl.priors import CausalLM
from mlass_ppl.train import continue_prior, nats_of
from mlass_ppl.train.continue_digits import continue_digits
from mlass_ppl.train.continued import _Continued, _Digits

CLASSES = 3


def images(number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Blobs that are the brighter the higher their class, which their tokens tell."""
    labels = torch.arange(number) % CLASSES
    return 0.35 * labels[:, None, None, None] + 0.3 * blobs(number, seed), labels


@pytest.fixture(scope="module")
def codec():
    return make_codec()


def start() -> CausalLM:
    return CausalLM(make_gpt2().model, ALPHABET, CLASSES).requires_grad_(False)


def trained(run: Path, codec: Any, epochs: int = 2, prior: Any = None, **options: Any) -> CausalLM:
    options = {"batch_size": 16, "rate": 1e-2, "device": "cpu"} | options
    data = options.pop("data", images(64))
    prior = start() if prior is None else prior
    return continue_prior(
        prior, codec, *data, options.pop("held", images(16, 1)), epochs=epochs, run=run, **options
    )


def equal(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- what an epoch is trained on -----------------------------------------------------------------


def test_an_epoch_is_drawn_from_the_seed_and_its_number(codec):
    def digits(**change: Any) -> _Digits:
        options = {"epochs": 8, "augmented": 0.6, "labelled": 0.3, "seed": 0} | change
        return _Digits(codec, *data, images(3, 1), **options)

    data = images(600)
    given, tokens = digits(), codec.encode(data[0])
    for one, again in zip(given.draw(3), digits().draw(3), strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(given.draw(3)[0], given.draw(4)[0])
    assert not torch.equal(given.draw(3)[0], digits(seed=1).draw(3)[0])
    # a share of the rows has its own label, none another's: told by their tokens, row by row
    own = {tuple(row.tolist()): set() for row in tokens}
    for row, label in zip(tokens, data[1], strict=True):
        own[tuple(row.tolist())].add(int(label))
    drawn, labels = digits(augmented=0.0).draw(0)
    assert sorted(drawn.tolist()) == sorted(tokens.tolist())
    assert float((labels >= 0).float().mean()) == pytest.approx(0.3, abs=0.06)
    for row, label in zip(drawn, labels, strict=True):
        assert int(label) in own[tuple(row.tolist())] | {-1}

    # all rows, of which a share is augmented, and in the last quarter half of that
    def kept(epoch: int) -> float:
        rows = [tuple(row.tolist()) in own for row in digits(augmented=1.0).draw(epoch)[0]]
        return sum(rows) / len(rows)

    assert kept(5) < kept(6)
    assert kept(6) == pytest.approx(kept(7), abs=0.1)
    assert kept(7) == pytest.approx((1 + kept(5)) / 2, abs=0.1)


# --- the training --------------------------------------------------------------------------------


def test_a_prior_improves_and_learns_what_labels_say(tmp_path, codec):
    prior, (held, labels) = start(), images(60, 2)
    before, tokens = copy.deepcopy(prior), codec.encode(held)
    out = trained(tmp_path, codec, 8, prior, labelled=0.5, rate=2e-2)
    assert nats_of(out, tokens) < nats_of(prior, tokens) - 0.3
    assert nats_of(out, tokens, labels) < nats_of(out, tokens) - 0.02
    assert nats_of(out, tokens, (labels + 1) % CLASSES) > nats_of(out, tokens, labels) + 0.05
    assert equal(prior, before)  # left alone
    assert not out.training
    assert not any(weight.requires_grad for weight in out.parameters())
    alone = trained(tmp_path / "b", codec, 1, prior, labelled=0.0)
    decayed = alone.classes.weight / prior.classes.weight
    assert torch.allclose(decayed, decayed[0, 0].expand_as(decayed))  # no label, nothing learnt


class Stop(Exception):
    pass


def test_an_interrupted_training_is_bit_for_bit_the_whole_one(tmp_path, codec, monkeypatch):
    """Stopped in its second epoch of three, it goes on from the end of the first."""
    whole = trained(tmp_path / "whole", codec, 3)
    step, done = _Continued.training_step, []

    def training_step(self, batch, batch_idx):
        done.append(batch)
        if len(done) == 6:
            raise Stop
        return step(self, batch, batch_idx)

    monkeypatch.setattr(_Continued, "training_step", training_step)
    with pytest.raises(Stop):
        trained(tmp_path / "parts", codec, 3)
    torch.manual_seed(7)  # what else was drawn meanwhile does not matter
    parts = trained(tmp_path / "parts", codec, 3)
    assert len(done) == 6 + 8
    assert equal(parts, whole)


def test_another_training_is_not_gone_on_with(tmp_path, codec):
    first = trained(tmp_path, codec, 1)
    assert equal(first, trained(tmp_path, codec, 1))  # nothing left to do
    (data, labels), moved = images(64), start()
    moved.classes.weight[0] += 1
    for message, change in (
        ("augmented was 0.6 and is now 0.5", {"augmented": 0.5}),
        ("labelled was 0.3 and is now 0.5", {"labelled": 0.5}),
        ("images was", {"data": (data * 0.999, labels)}),
        ("labels was", {"data": (data, labels.flip(0))}),
        ("prior was", {"prior": moved}),
    ):
        with pytest.raises(OptionError, match=f"{message}.*Give another folder"):
            trained(tmp_path, codec, **change)


def cases() -> dict[str, tuple[type[Exception], str, dict[str, Any]]]:
    data, labels = images(64)
    plain = make_gpt2()
    return {
        "epochs": (OptionError, "got 0, 16 and 0.01", {"epochs": 0}),
        "rate": (OptionError, "rate positive", {"rate": float("inf")}),
        "share": (OptionError, "0 to 1, got 1.5 and 0.3", {"augmented": 1.5}),
        "share of labels": (OptionError, "got 0.6 and -1", {"labelled": -1}),
        "no classes": (PriorError, r"no classes.*prior = .*add_labels\(", {"prior": plain}),
        "codec": (PriorError, "knows 7 .* codec has 6.* trained on", {
            "prior": CausalLM(make_gpt2(7).model, 7, CLASSES)}),
        "size": (DataError, rf"training images float \[N, 1, {SIZE}, .*\[64, 1, 8, 8\]", {
            "data": (data[..., :8, :8], labels)}),
        "bytes": (DataError, "validation images float.*uint8", {
            "held": (data.to(torch.uint8), labels)}),
        "few": (DataError, "at least one batch of 65.* got 64", {"batch_size": 65}),
        "lengths": (DataError, r"one integer label.*\[63\]", {"data": (data, labels[1:])}),
        "classes": (DataError, "0 to 2, got labels up to 3.*add_labels", {
            "data": (data, torch.arange(64) % 4)}),
        "held": (DataError, r"validation labels .* \[0, 3\)", {"held": (data, labels + 3)}),
    }  # fmt: skip


@pytest.mark.parametrize("case", cases())
def test_impossible_trainings_are_refused(tmp_path, codec, case):
    error, message, change = cases()[case]
    with pytest.raises(error, match=message):
        trained(tmp_path, codec, **change)
    assert not list(tmp_path.iterdir())


# --- the recipe ----------------------------------------------------------------------------------

EARLIER = {"epochs": 10, "seed": 0, "validation_nats": 9.0, "train_nats": 9.0}


@pytest.fixture
def folder(tmp_path, monkeypatch, codec) -> Path:
    """A bundle whose prior has no classes yet, where MNIST's digits are blobs."""
    from mlass_ppl.train import continue_digits as recipe

    def given(place: int):
        return lambda split, root: images({"train": 64, "validation": 18}[split], len(split))[place]

    monkeypatch.setattr(recipe, "mnist_images", given(0))
    monkeypatch.setattr(recipe, "mnist_labels", given(1))
    card = {"priors": {"digit": EARLIER}}
    made = Bundle("tiny", codec, {"digit": make_gpt2()}, card=card)
    return made.save(tmp_path / "b")


def test_the_recipe_teaches_classes_trains_on_and_says_so(folder, tmp_path):
    options = {"batch_size": 16, "rate": 1e-2, "device": "cpu"}
    bundle = continue_digits(folder, epochs=2, run=tmp_path / "run", **options)
    assert json.loads((folder / "bundle.json").read_text("utf-8")) == bundle.card
    facts, prior = bundle.card["priors"]["digit"], bundle.priors["digit"]
    assert isinstance(prior, CausalLM)
    assert (facts["epochs"], facts["labels"], prior.labels) == (10, CLASSES, CLASSES)
    assert "nothing but the 3 begin tokens" in facts["labels_trained"]
    (more,) = facts["continued"]
    assert {key: more[key] for key in ("epochs", "seed", "steps", "batch_size", "labelled")} == {
        "epochs": 2, "seed": 0, "steps": 8, "batch_size": 16, "labelled": 0.3,
    }  # fmt: skip
    held, labels = images(18, len("validation"))
    tokens = bundle.codec.encode(held)
    after = {
        "validation_nats": nats_of(prior, tokens),
        "label_nats": nats_of(prior, tokens, labels),
    }
    for key, value in after.items():
        assert facts[key] == more["after"][key] == pytest.approx(value, abs=1e-4)
        assert more["before"][key] > more["after"][key]
    text = (folder / "README.md").read_text("utf-8")
    assert "then `mlass train continue`: 2 epochs, 8 steps of 16, seed 0, 60% of the" in text
    assert f"to {facts['label_nats']} given the class" in text
    # the same folder of checkpoints is of what has ended; another one goes on
    with pytest.raises(OptionError, match=r"prior was .*Give another folder"):
        continue_digits(folder, epochs=2, run=tmp_path / "run", **options)
    twice = continue_digits(folder, epochs=1, run=tmp_path / "more", **options)
    assert [m["epochs"] for m in twice.card["priors"]["digit"]["continued"]] == [2, 1]


def test_the_prior_to_train_on_has_to_be_there(folder):
    with pytest.raises(
        BundleError, match=r"no prior 'none' .*\['digit'\].*mlass train prior --out"
    ):
        continue_digits(folder, key="none")


def test_the_command(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mlass_ppl.train.continue_digits.LABEL_EPOCHS", 1)
    line = f"train continue --out {folder} --epochs 1 --device cpu --run {tmp_path / 'run'}"
    found = CliRunner().invoke(app, line.split())
    assert found.exit_code != 0
    assert "at least one batch of 128" in found.output  # of 64 images
    monkeypatch.setattr("mlass_ppl.train.continue_digits.mnist_images", lambda split, root: many[0])
    monkeypatch.setattr("mlass_ppl.train.continue_digits.mnist_labels", lambda split, root: many[1])
    many = images(128)
    found = CliRunner().invoke(app, line.split())
    assert found.exit_code == 0, found.output
    assert "prior without the class: " in found.output
    assert load(folder).card["priors"]["digit"]["continued"][0]["steps"] == 1
