"""The learned refinement: its network, its training on separations, its place in a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import blobs, make_bundle, mixtures
from torch import Tensor
from typer.testing import CliRunner

from mlass_ppl import Learned, Refine, Refinement, Sample, separate
from mlass_ppl.bundle import Bundle, load
from mlass_ppl.cli import app
from mlass_ppl.cli._refine import refinement_from
from mlass_ppl.errors import BundleError, DataError, OptionError, SignalError
from mlass_ppl.evaluate.provenance import bundle_hash
from mlass_ppl.refine import Refiner, RefinerConfig
from mlass_ppl.shapes import chain
from mlass_ppl.train import Examples, make_examples, refined_psnr, train_refiner

CONFIG = RefinerConfig(width=8, depth=1)


def make_refiner(config: RefinerConfig = CONFIG) -> Refiner:
    """An untrained network that does something nevertheless."""
    torch.manual_seed(0)
    network = Refiner(config)
    torch.nn.init.normal_(network.leave.weight, std=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network() -> Refiner:
    return make_refiner()


@pytest.fixture(scope="module")
def bundle(network) -> Bundle:
    return replace(make_bundle(), refiner=network)


def signals(batch: int, n: int, seed: int = 1) -> Tensor:
    return blobs(batch * n, seed).unflatten(0, (batch, n))


def noisy(truths: Tensor, scale: float = 0.2) -> Tensor:
    noise = torch.randn(truths.shape, generator=torch.Generator().manual_seed(5))
    return (truths + scale * noise).clamp(0, 1)


def mixed(truths: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("...n,bnchw->b...chw", weights, truths)


def weights(*values: float) -> Tensor:
    return torch.tensor(values)


# --- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 4])
def test_signals_come_out_in_their_range(network, n):
    estimates, share = signals(3, n, 2), torch.full((n,), 1 / n)
    out = network(estimates, mixed(signals(3, n), share), share)
    assert out.shape == estimates.shape
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1
    assert not torch.allclose(out, estimates, atol=0.05)


def test_permuted_sources_permute_the_answer(network):
    estimates, share = signals(3, 3, 2), weights(0.5, 0.3, 0.2)
    mixture = mixed(signals(3, 3), share)
    out = network(estimates, mixture, share)
    for order in permutations(range(3)):
        again = network(estimates[:, order], mixture, share[list(order)])
        assert torch.allclose(again, out[:, order], atol=1e-5)


def test_a_mixture_is_refined_on_its_own(network):
    estimates, share = signals(4, 2, 2), weights(0.5, 0.5)
    mixture = mixed(signals(4, 2), share)
    whole = network(estimates, mixture, share)
    other = mixture.clone()
    other[0] = 1 - other[0]
    assert torch.allclose(network(estimates, other, share)[1:], whole[1:], atol=1e-6)
    for row in range(4):
        alone = network(estimates[row : row + 1], mixture[row : row + 1], share)
        assert torch.allclose(alone[0], whole[row], atol=1e-5)


def test_every_mixture_may_have_weights_of_its_own(network):
    estimates, each = signals(2, 2, 2), weights(0.5, 0.5, 0.8, 0.2).reshape(2, 2)
    mixture = (each[..., None, None, None] * signals(2, 2)).sum(1)
    together = network(estimates, mixture, each)
    for row in range(2):
        alone = network(estimates[row : row + 1], mixture[row : row + 1], each[row])
        assert torch.allclose(alone[0], together[row], atol=1e-5)


def test_what_comes_out_adds_up_to_the_mixture(network):
    for n in (2, 3):
        truths, share = signals(5, n), torch.full((n,), 1 / n)
        estimates, mixture = noisy(truths), mixed(truths, share)
        before = (mixed(estimates, share) - mixture).square().mean()
        out = network(estimates, mixture, share)
        assert (mixed(out, share) - mixture).square().mean() < 0.05 * before
        # balanced estimates are nearer to the truth, whatever the network does
        untrained = Refiner(CONFIG)(estimates, mixture, share)
        errors = [(x - truths).square().flatten(1).mean(1) for x in (untrained, estimates)]
        assert (errors[0] < errors[1]).all()


def test_two_signals_of_two_sources_leave_nothing_open(network):
    truths, share = signals(4, 2), weights(0.8, 0.2, 0.3, 0.7).reshape(2, 2)
    observed, estimates = mixed(truths, share), noisy(truths)
    out = network(estimates, observed, share, weights(0.5, 0.5))
    assert (out - truths).square().mean() < 0.05 * (estimates - truths).square().mean()
    swapped = network(estimates, observed.flip(1), share.flip(0), weights(0.5, 0.5))
    assert torch.allclose(swapped, out, atol=1e-4)  # signals are a set as well


def test_a_signal_without_a_source_says_nothing_of_it(network):
    truths, estimates = signals(2, 2), signals(2, 2, 2)
    left = weights(1.0, 0.0)
    alone = network(estimates, mixed(truths, left), left)
    assert torch.allclose(alone[:, 1], estimates[:, 1], atol=1e-6)
    assert torch.allclose(alone[:, 0], truths[:, 0], atol=2e-2)
    other = estimates.clone()
    other[:, 1] = 1 - other[:, 1]
    assert torch.allclose(network(other, mixed(truths, left), left)[:, 0], alone[:, 0], atol=1e-6)
    silent = network(estimates, mixed(truths, left), torch.zeros(2))
    assert torch.allclose(silent, estimates, atol=1e-6)


def test_signals_of_other_shapes_are_refused(network):
    good, share = signals(2, 2), weights(0.5, 0.5)
    for estimates, mixture, own in [
        (good[:, 0], good[:, 0], share),
        (good, good[:1, 0], share),
        (good, good[:, 0], weights(0.3, 0.3, 0.4)),
        (good[..., :10], good[:, 0, :, :, :10], share),
        (good.expand(2, 2, 3, 12, 12), good[:, 0].expand(2, 3, 12, 12), share),
    ]:
        with pytest.raises(SignalError, match=r"estimates \[B, n, 1, S, S\].*got"):
            network(estimates, mixture, own)


# --- as a refinement -----------------------------------------------------------------------------


def apply(bundle: Bundle, refine: Any, n: int = 2, batch: int = 5) -> dict[str, Tensor]:
    names = [f"s{i}" for i in range(n)]
    share = dict.fromkeys(names, 1 / n)
    estimates = dict(zip(names, signals(batch, n, 2).unbind(1), strict=True))
    tokens = {name: bundle.codec.encode(estimates[name]) for name in names}
    given = signals(batch, n).mean(1)
    return refine(bundle, estimates, tokens, {"m": share}, {"m": given})


def test_learned_is_the_bundles_network(bundle, network):
    estimates, given = signals(5, 2, 2), signals(5, 2).mean(1)
    expected = network(estimates, given, weights(0.5, 0.5))
    found = apply(bundle, Learned(passes=1))
    assert list(found) == ["s0", "s1"]
    assert torch.allclose(torch.stack(list(found.values()), 1), expected, atol=1e-6)
    chunked = apply(bundle, Learned(passes=1, batch_size=2))
    assert all(torch.allclose(chunked[name], found[name], atol=1e-5) for name in found)
    twice = apply(bundle, Learned())
    expected = network(expected, given, weights(0.5, 0.5))
    assert torch.allclose(torch.stack(list(twice.values()), 1), expected, atol=1e-5)


def test_separate_takes_any_refinement(bundle):
    class Half(Refinement):
        def __call__(self, bundle, signals, tokens, weights, observed, progress=None):
            assert weights == {"mixture": {"source_1": 0.5, "source_2": 0.5}}
            return {name: (own + observed["mixture"]) / 2 for name, own in signals.items()}

    given = mixtures(3)
    options: dict[str, Any] = {"search": Sample(4), "on_unseen": "prior"}
    plain = separate(given, chain(2), bundle, **options)
    for refine in (Learned(), Refine(steps=2), Half()):
        found = separate(given, chain(2), bundle, refine=refine, **options)
        assert torch.equal(found.signals["source_1"], plain.signals["source_1"])
        assert not torch.equal(found["source_1"], plain["source_1"])
    half = (plain["source_2"] + given) / 2
    assert torch.allclose(found["source_2"], half)
    learned = separate(given, chain(2), bundle, refine=Learned(), **options)
    assert (learned.reconstruction_error() < plain.reconstruction_error()).all()


def test_a_source_without_weight_is_named(bundle):
    estimates = {name: blobs(2) for name in "ab"}
    for share in ({"a": 1.0}, {"a": 1.0, "b": 0.0}):
        with pytest.raises(OptionError, match=r"sources \['b'\] have no weight"):
            Learned()(bundle, estimates, {}, {"m": share}, {"m": blobs(2)})


def test_a_bundle_without_a_refiner_says_how_to_train_one(tmp_path):
    plain = make_bundle()
    with pytest.raises(BundleError, match=r"(?s)'tiny' has no refiner.*mlass train refiner --out"):
        separate(mixtures(1), chain(2), plain, refine=Learned())
    assert refinement_from("auto", plain, 7) == Refine(steps=7)
    with pytest.raises(BundleError, match="no refiner"):
        refinement_from("learned", plain)


def test_refinements_have_names(bundle):
    assert refinement_from("auto", bundle) == refinement_from("learned", bundle) == Learned()
    assert refinement_from("descent", bundle) == Refine()
    assert refinement_from("none", bundle) is None
    with pytest.raises(OptionError, match="'both': expected one of auto, learned, descent, none"):
        refinement_from("both", bundle)


@pytest.mark.parametrize("options", [{"passes": 0}, {"batch_size": 1.5}])
def test_impossible_options_are_refused(options):
    (name,) = options
    with pytest.raises(OptionError, match=rf"Learned\({name}=...\) must be a whole number"):
        Learned(**options)
    with pytest.raises(OptionError, match=r"RefinerConfig\(width=...\) .* got 0"):
        RefinerConfig(width=0)


# --- in a bundle ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory) -> Path:
    from tiny import make_gpt2

    stored = replace(bundle, priors={"blob": make_gpt2()})
    stored = replace(stored, card={"refiner": {"seconds": 5}})
    return stored.save(tmp_path_factory.mktemp("bundles") / "tiny")


def test_a_refiner_comes_back_with_its_bundle(folder, bundle, tmp_path):
    back = load(folder)
    assert back.refiner is not None
    assert back.refiner.config == CONFIG
    assert not back.refiner.training
    facts = back.card["refiner"]
    assert (facts["kind"], facts["width"], facts["seconds"]) == ("refiner", 8, 5)
    assert back.card["format"] == 3
    estimates, given = signals(3, 2, 2), signals(3, 2).mean(1)
    found = (one.refiner(estimates, given, weights(0.5, 0.5)) for one in (back, bundle))
    assert torch.allclose(*found, atol=2e-2)
    again = back.save(tmp_path / "again")
    for file in folder.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    without = replace(back, refiner=None).save(tmp_path / "without")
    assert load(without).refiner is None
    assert "refiner" not in load(without).card
    assert (folder / "refiner.safetensors").stat().st_size < 4e6


def test_a_damaged_or_foreign_refiner_is_named(folder, tmp_path):
    copy = load(folder).save(tmp_path / "tiny")
    file, card = copy / "refiner.safetensors", copy / "bundle.json"
    content, facts = file.read_bytes(), json.loads(card.read_text())
    file.write_bytes(content[:-7])
    with pytest.raises(BundleError, match=r"refiner\.safetensors is not the file"):
        load(copy)
    file.unlink()
    with pytest.raises(BundleError, match=r"refiner\.safetensors is missing"):
        load(copy)
    file.write_bytes(content)
    facts["refiner"]["codec"] = "0" * 64
    card.write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=r"the refiner in .* was made for another codec"):
        load(copy)


def test_a_table_knows_the_refiner_it_was_made_with(bundle, folder):
    plain = replace(bundle, refiner=None)
    other = replace(bundle, refiner=make_refiner(RefinerConfig(width=4)))
    assert len({bundle_hash(one) for one in (bundle, plain, other)}) == 3
    assert bundle_hash(bundle) == bundle_hash(replace(bundle))
    assert bundle_hash(load(folder)) != bundle_hash(replace(load(folder), refiner=None))


# --- training ------------------------------------------------------------------------------------


def examples(number: int = 48, n: int = 2, seed: int = 1) -> Examples:
    truths = signals(number, n, seed)
    noise = torch.stack([noisy(truths, 0.3), noisy(truths, 0.4)], 1)
    return Examples(noise, noisy(truths, 0.1), truths, torch.full((n,), 1 / n))


def train(run: Path, epochs: int = 1, **options: Any) -> Refiner:
    options = {"config": CONFIG, "batch_size": 16, "device": "cpu"} | options
    return train_refiner([examples(), examples(32, 3)], [examples(16, 2, 9)], epochs=epochs,
                         run=run, **options)  # fmt: skip


def test_a_refiner_learns_to_take_noise_away(tmp_path):
    trained = train(tmp_path, 12)
    untrained = Refiner(CONFIG)
    for n in (2, 3, 4):  # of four it has seen none
        unseen = examples(16, n, 11)
        before, after = refined_psnr(trained, unseen)
        assert refined_psnr(untrained, unseen)[1] > before + 0.5
        assert after > refined_psnr(untrained, unseen)[1] + 0.5
    assert not trained.training


def test_training_repeats_and_resumes(tmp_path):
    one, again = train(tmp_path / "a"), train(tmp_path / "b")
    state = one.state_dict()
    assert all(torch.equal(state[key], value) for key, value in again.state_dict().items())
    longer = train(tmp_path / "a", 2)
    assert torch.load(tmp_path / "a/last.ckpt", weights_only=True)["global_step"] == 10
    assert any(not torch.equal(state[key], value) for key, value in longer.state_dict().items())
    with pytest.raises(OptionError, match=r"width was 8 and is now 4"):
        train(tmp_path / "a", config=RefinerConfig(width=4))
    with pytest.raises(OptionError, match="data was"):
        train_refiner([examples(seed=2)], [examples()], config=CONFIG, batch_size=16,
                      run=tmp_path / "a", device="cpu")  # fmt: skip


def test_impossible_trainings_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"at least one batch of 40 .* got 32"):
        train(tmp_path, batch_size=40)
    with pytest.raises(OptionError, match="coded a share"):
        train(tmp_path, coded=1.5)
    with pytest.raises(DataError, match=r"estimates \[N, k, n, 1, S, S\]"):
        replace(examples(), weights=weights(0.3, 0.3, 0.4))


def test_examples_are_separations_beside_their_truth(bundle, tmp_path):
    options: dict[str, Any] = {"mixtures": 70, "search": Sample(6), "keep": 3, "folder": tmp_path}
    calls: list[tuple[int, int]] = []
    images = blobs(80)
    made = make_examples(bundle, chain(2), images, progress=lambda *c: calls.append(c), **options)
    assert calls == [(64, 70), (70, 70)]
    assert made.estimates.shape == (70, 3, 2, 1, 12, 12)
    assert made.estimates.dtype == torch.uint8
    batch = made[[0, 69]]
    assert torch.allclose(batch.truths[0, 0], images[0], atol=0.01)
    assert torch.allclose(batch.observed[:, 0], batch.truths.mean(1), atol=1e-6)
    coded = bundle.codec.decode(bundle.codec.encode(images[:1]))
    assert torch.allclose(batch.coded[0, 0], coded[0], atol=0.01)
    # each estimate stands where it scores best; of the candidates, after what is answered, the
    # nearest to the mixture is the first
    whole = made[slice(None)]
    errors = [(x - whole.truths[:, None]).square().flatten(2).mean(2)
              for x in (whole.estimates, whole.estimates.flip(2))]  # fmt: skip
    logs = [error.log() for error in errors]
    assert (logs[0].mean() <= logs[1].mean() + 1e-3).all()
    made_of = (whole.estimates.mean(2) - whole.observed).square().flatten(2).mean(2)
    assert made_of[:, 1].mean() < made_of[:, 2].mean()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("separated again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlass_ppl.train.separating.separate", refuse)
        again = make_examples(bundle, chain(2), images, **options)
        assert torch.equal(again.estimates, made.estimates)
        with pytest.raises(AssertionError, match="separated again"):
            make_examples(bundle, chain(2), images, seed=1, **options)
    with pytest.raises(OptionError, match="keep 2 to 6"):
        make_examples(bundle, chain(2), images, **{**options, "keep": 7})


def test_the_command_trains_a_refiner_into_a_bundle(folder, tmp_path, monkeypatch):
    copy = replace(load(folder), refiner=None).save(tmp_path / "tiny")
    monkeypatch.setattr("mlass_ppl.train.make_refiner.mnist_images", lambda split, root: blobs(150))
    monkeypatch.chdir(tmp_path)
    line = ["train", "refiner", "--out", str(copy), "--sources", "2", "3"]
    line += [
        "--program",
        "chain",
        "--mixtures",
        "50",
        "--candidates",
        "3",
        "--width",
        "4",
        "--epochs",
        "2",
        "--run",
        "run",
    ]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "2 sources:" in result.output
    back = load(copy)
    assert back.refiner is not None
    assert back.card["refiner"]["steps"] == 4
    assert [one["sources"] for one in back.card["refiner"]["validation_db"]] == [2, 3]
    assert "## Refiner" in (copy / "README.md").read_text()
