"""Training of an audio codec's decoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlass_ppl.codecs import AudioVQ, AudioVQConfig
from mlass_ppl.errors import DataError, OptionError, SignalError
from mlass_ppl.evaluate.audio import sdr
from mlass_ppl.train.audio_codec import _distance, _mix, sdr_of, train_audio_codec

CONFIG = AudioVQConfig(
    samples=2_560, sample_rate=8_000, hop=64, alphabet=16, latent=24, features=8, width=8, blocks=1
)


def tones(number: int, samples: int = 2_560, seed: int = 0) -> Tensor:
    """Gliding tones [N, samples], which go on from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    start, rise, phase = torch.rand(3, number, 1, generator=generator)
    time = torch.arange(samples) / 8_000
    return 0.3 * torch.sin(2 * math.pi * ((80 + 150 * start + 200 * rise * time) * time + phase))


def make() -> AudioVQ:
    torch.manual_seed(0)  # of the decoder
    return AudioVQ.fit(tones(40), CONFIG)


def train(codec: AudioVQ, run: Path, **options: Any) -> AudioVQ:
    return train_audio_codec(
        codec, tones(48), tones(8, seed=1),
        **{"batch_size": 8, "device": "cpu", "run": run, "rate": 5e-3, **options},
    )  # fmt: skip


def state(codec: AudioVQ) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in codec.state_dict().items()}


def test_it_decodes_better_and_encodes_as_before(tmp_path: Path) -> None:
    codec, other = make(), tones(16, seed=2)
    before, tokens = sdr_of(codec, other), codec.encode(other[:, None])
    out = train(codec, tmp_path, epochs=4, rate=1e-2)
    assert out is codec
    assert not any(module.training for module in codec.modules())
    assert sdr_of(codec, other) > before + 0.5
    assert torch.equal(codec.encode(other[:, None]), tokens)
    assert codec.config == CONFIG


def test_segments_may_be_longer_or_shorter_than_the_codecs(tmp_path: Path) -> None:
    codec = make()
    before = state(codec)
    train_audio_codec(
        codec, tones(8, 1_280).half(), tones(4, 640, seed=1), batch_size=4, spectral=0.1,
        device="cpu", run=tmp_path,
    )  # fmt: skip
    assert codec.config == CONFIG
    assert any(not torch.equal(before[name], value) for name, value in state(codec).items())
    assert all(torch.isfinite(value).all() for value in state(codec).values())


def test_the_same_seed_trains_the_same(tmp_path: Path) -> None:
    one, again = (state(train(make(), tmp_path / f"{n}", sources=2)) for n in range(2))
    other = state(train(make(), tmp_path / "other", sources=2, seed=1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["decoder.0.weight"], other["decoder.0.weight"])


def test_it_goes_on_where_it_stopped_with_the_same_options(tmp_path: Path) -> None:
    codec = train(make(), tmp_path, epochs=1)
    first = state(codec)
    fresh = train(make(), tmp_path, epochs=1)  # nothing is left to do but to read what was done
    assert all(torch.equal(first[name], value) for name, value in state(fresh).items())
    further = train(make(), tmp_path, epochs=2)
    assert sdr_of(further, tones(8, seed=2)) > sdr_of(fresh, tones(8, seed=2))
    for options in ({"sources": 2}, {"spectral": 0.5}, {"rate": 1e-3}, {"seed": 5}):
        with pytest.raises(OptionError, match=r"is of another training: .* do not resume"):
            train(make(), tmp_path, **options)
    again = train(make(), tmp_path, epochs=1, resume=False)
    assert all(torch.equal(first[name], value) for name, value in state(again).items())


def test_mixtures_are_means_of_segments() -> None:
    torch.manual_seed(0)
    segments = torch.eye(200)
    mixed = _mix(segments, 3)
    parts = (mixed > 0).sum(1)
    torch.testing.assert_close(mixed.sum(1), torch.ones(200))
    assert (mixed.diagonal() > 0).all()
    counts = parts.bincount(minlength=4).tolist()
    assert sum(counts[1:]) == 200
    assert min(counts[1:]) > 40  # a third each
    assert torch.equal(_mix(segments, 1), segments)
    assert torch.equal(segments, torch.eye(200))


def test_the_distance_of_spectra() -> None:
    """None to itself, log 2 to half of it, and no sound to silence."""
    one = torch.randn(2, 4_096, generator=torch.Generator().manual_seed(0))
    assert float(_distance(one, one)) == 0
    assert float(_distance(0.5 * one, one)) == pytest.approx(math.log(2), rel=0.02)
    silence = torch.zeros(2, 4_096)
    assert float(_distance(1e-6 * one, silence)) < 0.1
    ours = one.clone().requires_grad_()
    _distance(ours, silence).backward()
    assert ours.grad is not None
    assert ours.grad.isfinite().all()


def test_decibels_of_a_codec() -> None:
    codec, signals = make(), tones(5, seed=3)
    decoded = codec.decode(codec.encode(signals[:, None]))[:, 0]
    wanted = torch.as_tensor(sdr(decoded, signals)).mean()
    assert sdr_of(codec, signals) == pytest.approx(float(wanted))
    with_silence = torch.cat([signals, torch.zeros(2, 2_560)])
    assert sdr_of(codec, with_silence) == pytest.approx(float(wanted))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": 0}, "sources and epochs must be at least 1"),
        ({"epochs": 0}, "sources and epochs must be at least 1"),
        ({"spectral": -0.1}, "spectral at least 0"),
        ({"spectral": math.nan}, "spectral at least 0"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        train(make(), tmp_path, **options)


def test_segments_that_cannot_be_trained_on(tmp_path: Path) -> None:
    codec = make()
    options: dict[str, Any] = {"batch_size": 8, "device": "cpu", "run": tmp_path}
    with pytest.raises(DataError, match="at least one batch of 8"):
        train_audio_codec(codec, tones(7), tones(2), **options)
    with pytest.raises(SignalError, match="multiple of 64 samples, got 2561"):
        train_audio_codec(codec, tones(8, 2_561), tones(2), **options)
    with pytest.raises(SignalError, match=r"segments float \[N, S\], got .* \[8, 1, 2560\]"):
        train_audio_codec(codec, tones(8)[:, None], tones(2), **options)
    with pytest.raises(OptionError, match="segments of 1,024 samples are no longer than half"):
        train_audio_codec(codec, tones(8, 1_024), tones(2, 1_024), **options)
    broken = tones(8)
    broken[3, 5] = math.nan
    with pytest.raises(SignalError, match="NaN"):
        train_audio_codec(codec, broken, tones(2), **options)
    quiet = train_audio_codec(codec, tones(8, 1_024), tones(2, 1_024), spectral=0.0, **options)
    assert all(torch.isfinite(value).all() for value in state(quiet).values())
