"""Training: it learns, resumes, repeats, and does not go on from another training."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations_with_replacement
from typing import Any

import pytest
import torch
from tiny import blobs
from torch import Tensor, nn

from mlass_ppl.codecs import ImageVQVAE, ImageVQVAEConfig
from mlass_ppl.errors import DataError, OptionError
from mlass_ppl.priors import CausalLM
from mlass_ppl.train import nats_of, psnr_of, train_codec, train_prior
from mlass_ppl.train.codec import _CodecTraining
from mlass_ppl.train.prior import _PriorTraining

K, LENGTH = 6, 9
CONFIG = ImageVQVAEConfig(size=12, alphabet=8, latent=4, encoder=8, decoder=8)


def tokens(number: int, seed: int = 0) -> Tensor:
    """Sequences that count upwards from a random token."""
    first = torch.randint(K, (number, 1), generator=torch.Generator().manual_seed(seed))
    return (first + torch.arange(LENGTH)) % K


def codec(run: Any, epochs: int = 1, images: Tensor | None = None, **options: Any) -> ImageVQVAE:
    images = blobs(64) if images is None else images
    options = {"config": CONFIG, "batch_size": 16, "rate": 1e-2, "device": "cpu"} | options
    return train_codec(images, blobs(16, 1), epochs=epochs, run=run, **options)


def prior(run: Any, epochs: int = 1, data: Tensor | None = None, **options: Any) -> CausalLM:
    data = tokens(64) if data is None else data
    options = {"width": 16, "layers": 1, "heads": 2, "batch_size": 16, "rate": 1e-2} | options
    return train_prior(data, tokens(16, 1), K, epochs=epochs, run=run, device="cpu", **options)


TRAINERS = {"codec": codec, "prior": prior}


@pytest.fixture(params=TRAINERS)
def trainer(request):
    return TRAINERS[request.param]


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(a: nn.Module, b: nn.Module) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def steps(run: Any) -> int:
    return torch.load(run / "last.ckpt", weights_only=True)["global_step"]


def test_a_codec_learns_to_decode(tmp_path):
    short, long = codec(tmp_path / "a", 1), codec(tmp_path / "b", 30)
    images = blobs(50, 2)
    grey = (images - images.mean()).square().mean((1, 2, 3))
    floor = float((-10 * grey.log10()).mean())
    assert psnr_of(long, images) > max(psnr_of(short, images), floor) + 1.0
    assert len(long.encode(images).unique()) > 3
    assert not long.training


def test_psnr_by_hand():
    class Half:
        def encode(self, images: Tensor) -> Tensor:
            return images

        def decode(self, images: Tensor) -> Tensor:
            return images + 0.1

    assert psnr_of(Half(), torch.rand(3, 1, 4, 4)) == pytest.approx(20.0, abs=1e-3)


def test_a_prior_learns_to_count(tmp_path):
    short, long = prior(tmp_path / "a", 1), prior(tmp_path / "b", 12)
    unseen = tokens(30, 2)
    assert nats_of(long, unseen) < nats_of(short, unseen) - 0.3
    # all it cannot know is the first token: log(6) nats over 9 positions
    assert nats_of(long, unseen) < 2 * math.log(K) / LENGTH
    assert not long.training


def test_nats_are_those_of_the_log_probabilities(tmp_path):
    trained, data = prior(tmp_path), tokens(7, 3)
    expected = -trained(data).detach().gather(2, data[..., None]).mean()
    assert nats_of(trained, data, batch_size=3) == pytest.approx(float(expected), abs=1e-5)


def test_a_codec_trains_on_means_of_its_images():
    """Row i is 4^-i everywhere, so that every mean tells which rows are in it."""
    powers = 4.0 ** -torch.arange(8)
    module = _CodecTraining(ImageVQVAE(CONFIG), 3, 1e-3)
    mixed = torch.cat([module._mix(powers.view(8, 1, 1, 1))[:, 0, 0, 0] for _ in range(200)])
    known = {}
    for parts in (1, 2, 3):
        for rows in combinations_with_replacement(range(8), parts):
            known.setdefault(round(float(powers[list(rows)].sum() / parts), 9), parts)
    found = Counter(known[round(float(value), 9)] for value in mixed)
    assert found[2] / len(mixed) == pytest.approx(0.25, abs=0.06)
    assert found[3] / len(mixed) == pytest.approx(0.25, abs=0.06)


def test_the_same_seed_gives_the_same_weights(trainer, tmp_path):
    one, again = (trainer(tmp_path / name, seed=3) for name in ("a", "b"))
    assert equal(one, again)
    assert not equal(one, trainer(tmp_path / "c", seed=4))


def test_training_resumes_from_the_checkpoint(trainer, tmp_path):
    first = trainer(tmp_path, epochs=1)
    assert steps(tmp_path) == 4  # 64 items in batches of 16
    assert equal(first, trainer(tmp_path, epochs=1))  # nothing left to do
    longer = trainer(tmp_path, epochs=3)  # more than it began with
    assert steps(tmp_path) == 12
    assert not equal(first, longer)
    assert equal(first, trainer(tmp_path, epochs=1, resume=False))  # from the start
    assert steps(tmp_path) == 4


class Stop(Exception):
    pass


def test_an_interrupted_training_ends_where_it_would_have(tmp_path, monkeypatch):
    """Stopped in its ninth epoch of twelve, it goes on from the end of the eighth."""
    whole = prior(tmp_path / "whole", 12)
    step, done = _PriorTraining.training_step, []

    def training_step(self, batch):
        done.append(batch)
        if len(done) == 34:
            raise Stop
        return step(self, batch)

    monkeypatch.setattr(_PriorTraining, "training_step", training_step)
    with pytest.raises(Stop):
        prior(tmp_path / "parts", 12)
    assert steps(tmp_path / "parts") == 32
    parts = prior(tmp_path / "parts", 12)
    assert len(done) == 34 + 16
    assert steps(tmp_path / "parts") == steps(tmp_path / "whole") == 48
    unseen = tokens(30, 2)
    assert nats_of(parts, unseen) == pytest.approx(nats_of(whole, unseen), abs=0.1)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "seed": ("seed was 0 and is now 1", {"seed": 1}),
    "batch": ("batch_size was 16 and is now 8", {"batch_size": 8}),
    "rate": (r"rate was 0\.01 and is now 0\.02", {"rate": 2e-2}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_training_is_not_gone_on_with(trainer, tmp_path, change):
    message, options = CHANGES[change]
    trainer(tmp_path)
    with pytest.raises(OptionError, match=f"{message}.*Give another folder"):
        trainer(tmp_path, **options)
    trainer(tmp_path, resume=False, **options)


def test_other_data_and_sizes_are_not_gone_on_with(tmp_path):
    codec(tmp_path / "codec")
    with pytest.raises(OptionError, match=r"last\.ckpt is of another training: data was"):
        codec(tmp_path / "codec", images=blobs(64, 5))
    other = ImageVQVAEConfig(size=12, alphabet=16, latent=4, encoder=8, decoder=8)
    with pytest.raises(OptionError, match="alphabet was 8 and is now 16"):
        codec(tmp_path / "codec", config=other)
    prior(tmp_path / "prior")
    with pytest.raises(OptionError, match="width was 16 and is now 32"):
        prior(tmp_path / "prior", width=32)
    with pytest.raises(OptionError, match="data was"):
        prior(tmp_path / "prior", data=tokens(64, 9))


def test_a_damaged_checkpoint_is_named(trainer, tmp_path):
    trainer(tmp_path)
    file = tmp_path / "last.ckpt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(OptionError, match=r"last\.ckpt cannot be read"):
        trainer(tmp_path)


def test_impossible_trainings_are_refused(tmp_path):
    for start in (codec, prior):
        with pytest.raises(OptionError, match="at least 1"):
            start(tmp_path, epochs=0)
        with pytest.raises(DataError, match=r"at least one batch of 65 .* got 64"):
            start(tmp_path, batch_size=65)
    with pytest.raises(OptionError, match="got 0 and 1"):
        codec(tmp_path, sources=0)
    assert not list(tmp_path.iterdir())
