"""Refinement: it lowers the mixture error of each mixture on its own."""

from __future__ import annotations

import pytest
import torch
from tiny import blobs, make_codec
from torch import Tensor

from mlass_ppl.errors import OptionError
from mlass_ppl.refine import Refine, refine

CONFIG = Refine(steps=40)


@pytest.fixture(scope="module")
def codec():
    return make_codec(steps=100)


def start(codec, number: int = 6) -> tuple[dict[str, Tensor], Tensor]:
    """Tokens of other images than those in the mixture."""
    tokens = {"a": codec.encode(blobs(number, 5)), "b": codec.encode(blobs(number, 6))}
    return tokens, (blobs(number, 1) + blobs(number, 2)) / 2


def error(signals: dict[str, Tensor], weights: dict[str, float], mixture: Tensor) -> Tensor:
    made = sum(weights[name] * signals[name] for name in signals)
    return (made - mixture).square().flatten(1).mean(1)


HALVES = {"a": 0.5, "b": 0.5}


def test_the_error_of_every_mixture_falls(codec):
    tokens, mixture = start(codec)
    before = {name: codec.decode(rows) for name, rows in tokens.items()}
    after = refine(codec, tokens, HALVES, mixture, CONFIG)
    assert list(after) == ["a", "b"]
    assert all(signals.shape == mixture.shape for signals in after.values())
    assert all(not signals.requires_grad for signals in after.values())
    ratio = error(after, HALVES, mixture) / error(before, HALVES, mixture)
    assert ratio.max() < 0.5
    longer = refine(codec, tokens, HALVES, mixture, Refine(steps=120))
    assert (error(longer, HALVES, mixture) < error(after, HALVES, mixture)).all()


def test_each_mixture_is_refined_on_its_own(codec):
    tokens, mixture = start(codec)
    whole = refine(codec, tokens, HALVES, mixture, CONFIG)
    for row in range(len(mixture)):
        mine = {name: rows[row : row + 1] for name, rows in tokens.items()}
        alone = refine(codec, mine, HALVES, mixture[row : row + 1], CONFIG)
        for name in whole:
            assert torch.allclose(alone[name][0], whole[name][row], atol=1e-4)
    chunked = refine(codec, tokens, HALVES, mixture, Refine(steps=40, batch_size=4))
    for name in whole:
        assert torch.allclose(chunked[name], whole[name], atol=1e-4)


def test_a_neighbour_does_not_change_a_mixture(codec):
    tokens, mixture = start(codec, 2)
    first = refine(codec, tokens, HALVES, mixture, CONFIG)
    mixture[1] = 1 - mixture[1]
    second = refine(codec, tokens, HALVES, mixture, CONFIG)
    assert torch.allclose(first["a"][0], second["a"][0], atol=1e-5)
    assert not torch.allclose(first["a"][1], second["a"][1], atol=1e-2)


def test_weights_are_those_of_the_mixture(codec):
    tokens, _ = start(codec)
    weights = {"b": 0.9, "a": 0.1}  # by name, whatever the order
    mixture = 0.1 * blobs(6, 1) + 0.9 * blobs(6, 2)
    after = refine(codec, tokens, weights, mixture, CONFIG)
    assert error(after, weights, mixture).mean() < 0.5 * error(after, HALVES, mixture).mean()
    swapped = refine(codec, tokens, {"a": 0.9, "b": 0.1}, mixture, CONFIG)
    assert not torch.allclose(swapped["a"], after["a"], atol=1e-2)


def test_a_pull_holds_back(codec):
    tokens, mixture = start(codec)
    before = {name: codec.decode(rows) for name, rows in tokens.items()}
    free, held = (
        refine(codec, tokens, HALVES, mixture, Refine(steps=40, pull=pull)) for pull in (0.0, 10.0)
    )
    for name in tokens:
        distance = [(found[name] - before[name]).abs().mean() for found in (free, held)]
        assert distance[1] < 0.5 * distance[0]


def test_one_step_follows_the_formula(codec):
    """Adam's first step is lr in the direction of the gradient's sign."""
    tokens, mixture = start(codec, 2)
    first = {name: codec.embed(rows).clone().requires_grad_() for name, rows in tokens.items()}
    made = sum(0.5 * codec.decode_latents(latents) for latents in first.values())
    (made - mixture).square().flatten(1).mean(1).sum().backward()
    expected = {
        name: codec.decode_latents(latents - 0.01 * latents.grad.sign()).detach()
        for name, latents in first.items()
    }
    after = refine(codec, tokens, HALVES, mixture, Refine(steps=1, lr=0.01))
    for name in tokens:
        assert torch.allclose(after[name], expected[name], atol=1e-4)


def test_tokens_and_codec_are_left_alone(codec):
    tokens, mixture = start(codec)
    copies = {name: rows.clone() for name, rows in tokens.items()}
    weights = [value.clone() for value in codec.state_dict().values()]
    refine(codec, tokens, HALVES, mixture, CONFIG)
    assert all(torch.equal(tokens[name], copies[name]) for name in tokens)
    after = codec.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(after, weights, strict=True))


def test_it_runs_where_gradients_are_off(codec):
    tokens, mixture = start(codec, 2)
    expected = refine(codec, tokens, HALVES, mixture, CONFIG)
    with torch.no_grad():
        found = refine(codec, tokens, HALVES, mixture, CONFIG)
    assert torch.equal(found["a"], expected["a"])


def test_progress_counts_mixtures(codec):
    tokens, mixture = start(codec)
    calls = []
    config = Refine(steps=1, batch_size=4)
    refine(codec, tokens, HALVES, mixture, config, lambda *call: calls.append(call))
    assert calls == [(4, 6), (6, 6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"Refine\(steps=...\) must be a whole number, at least 1, got 0"),
        ({"steps": 1.5}, r"steps.*got 1\.5"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"lr": float("inf")}, "lr=inf"),
        ({"pull": -1.0}, r"pull=-1\.0"),
        ({"pull": float("nan")}, "pull=nan"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Refine(**options)


# --- several observed signals --------------------------------------------------------------------


STEREO = {"left": {"a": 0.8, "b": 0.2}, "right": {"b": 0.7, "a": 0.3}}


def test_one_signal_by_name_is_the_same_to_the_bit(codec):
    tokens, mixture = start(codec)
    flat = refine(codec, tokens, HALVES, mixture, CONFIG)
    named = refine(codec, tokens, {"m": HALVES}, {"m": mixture}, CONFIG)
    # sites that mix alike and observe one signal are one signal
    twice = refine(codec, tokens, {"m": HALVES, "n": HALVES}, {"m": mixture, "n": mixture}, CONFIG)
    for name in flat:
        assert torch.equal(named[name], flat[name])
        assert torch.equal(twice[name], flat[name])


def test_all_signals_are_fitted_together(codec):
    tokens, _ = start(codec)
    truth = {"a": blobs(6, 1), "b": blobs(6, 2)}
    given = {
        site: weights["a"] * truth["a"] + weights["b"] * truth["b"]
        for site, weights in STEREO.items()
    }
    config = Refine(steps=120)
    both = refine(codec, tokens, STEREO, given, config)
    left = refine(codec, tokens, STEREO["left"], given["left"], config)
    for site, weights in STEREO.items():
        start_error = error({k: codec.decode(v) for k, v in tokens.items()}, weights, given[site])
        assert error(both, weights, given[site]).mean() < 0.3 * start_error.mean()
    assert error(left, STEREO["right"], given["right"]).mean() > 3 * (
        error(both, STEREO["right"], given["right"]).mean()
    )
    # two mixtures of two sources leave nothing open
    distance = [(found["b"] - truth["b"]).square().mean() for found in (both, left)]
    assert distance[0] < 0.5 * distance[1]


def test_a_source_may_be_missing_in_a_signal(codec):
    tokens, mixture = start(codec, 2)
    weights = {"ab": HALVES, "b": {"b": 1.0}}
    after = refine(codec, tokens, weights, {"ab": mixture, "b": blobs(2, 2)}, CONFIG)
    before = codec.decode(tokens["b"])
    assert (after["b"] - blobs(2, 2)).square().mean() < (before - blobs(2, 2)).square().mean()


@pytest.mark.parametrize(
    ("weights", "mixtures"),
    [
        (STEREO, torch.zeros(1, 1, 12, 12)),
        (HALVES, {"m": torch.zeros(1, 1, 12, 12)}),
        (STEREO, {"left": torch.zeros(1, 1, 12, 12)}),
        ({}, {}),
    ],
)
def test_signals_and_weights_of_other_sites_are_refused(codec, weights, mixtures):
    with pytest.raises(OptionError, match=r"one signal with weights .*or a signal for each obs"):
        refine(codec, start(codec, 1)[0], weights, mixtures, CONFIG)


def test_a_source_without_weight_is_named(codec):
    tokens, mixture = start(codec, 1)
    with pytest.raises(OptionError, match=r"sources \['b'\] have no weight"):
        refine(codec, tokens, {"a": 1.0}, mixture, CONFIG)
