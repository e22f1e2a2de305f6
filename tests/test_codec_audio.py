"""The vector quantiser of sound, and what every codec of sound owes."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct
from torch import Tensor

from mlass_ppl.codecs import AudioCodec, AudioVQ, AudioVQConfig, FeatureCodec, SoftCodec
from mlass_ppl.codecs.kinds import KINDS
from mlass_ppl.errors import CodecError, SignalError
from mlass_ppl.testing import check_codec
from mlass_ppl.weights import load_weights, save_weights

CONFIG = AudioVQConfig(
    samples=640, sample_rate=8_000, hop=32, alphabet=12, latent=20, features=10, width=8, blocks=2
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Sound that has most of its energy in low cosines."""
    white = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return 0.1 * (white + white.roll(1, -1) + white.roll(2, -1))


@pytest.fixture(scope="module")
def codec() -> AudioVQ:
    return AudioVQ.fit(noise(12, 640), CONFIG)


@pytest.fixture(scope="module")
def trained(codec: AudioVQ) -> AudioVQ:
    """With a decoder that adds something."""
    out = AudioVQ(codec.config)
    out.load_state_dict(codec.state_dict())
    generator = torch.Generator().manual_seed(1)
    last: Any = out.decoder[-1]
    last.weight.data.normal_(0, 0.3, generator=generator)
    return out


def frames(signals: Tensor) -> np.ndarray:
    """Cosine coefficients of each frame, by another library: [B, T, hop]."""
    cut = signals[:, 0].double().unflatten(1, (-1, CONFIG.hop)).numpy()
    out: np.ndarray = dct(cut, type=2, norm="ortho")
    return out


# --- the protocol ---------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["codec", "trained"])
def test_it_keeps_the_protocol(which: str, request: pytest.FixtureRequest) -> None:
    own = request.getfixturevalue(which)
    check_codec(own, noise(4, 1, 640, seed=2))
    check_codec(own.lasting(32), noise(4, 1, 32, seed=2))
    for kind in (AudioCodec, SoftCodec, FeatureCodec):
        assert isinstance(own, kind)
    assert (own.signal_shape, own.token_shape) == ((1, 640), (20,))
    assert (own.sample_rate, own.hop, own.alphabet) == (8_000, 32, 12)


def test_tokens_are_the_nearest_codes(codec: AudioVQ) -> None:
    signals = noise(5, 1, 640, seed=3)
    latents = 10 * frames(signals)[..., :20]  # gain
    distances = np.square(latents[..., None, :] - codec.codes.double().numpy()).sum(-1)
    assert np.array_equal(codec.encode(signals).numpy(), distances.argmin(-1))
    assert len(codec.encode(signals).unique()) > 6
    assert torch.equal(codec.encode(signals.double()), codec.encode(signals))


def test_weights_fall_with_the_distance(codec: AudioVQ) -> None:
    """-d^2 / (2 v), v a dimension's mean squared distance to the nearest other code."""
    signals = noise(3, 1, 640, seed=4)
    codes = codec.codes.double().numpy()
    between = np.square(codes[:, None] - codes).sum(-1) + np.diag([math.inf] * 12)
    variance = between.min(1).mean() / 20
    distances = np.square((10 * frames(signals)[..., :20])[..., None, :] - codes).sum(-1)
    wanted = torch.from_numpy(-distances / (2 * variance)).log_softmax(-1)
    torch.testing.assert_close(codec.log_weights(signals).double(), wanted, rtol=1e-3, atol=1e-3)


def test_features_are_the_lowest_cosines(codec: AudioVQ) -> None:
    signals = noise(3, 1, 640, seed=5)
    wanted = torch.from_numpy(frames(signals)[..., :10]).float()
    torch.testing.assert_close(codec.features(signals), wanted)
    double = codec.features(signals.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, wanted.double(), rtol=1e-4, atol=1e-6)


def test_untrained_it_decodes_to_the_codes_frames(codec: AudioVQ) -> None:
    tokens = torch.arange(20)[None] % 12
    decoded = codec.decode(tokens)
    coefficients = frames(decoded)[0]
    wanted = codec.codes.double().numpy()[tokens[0]] / 10
    np.testing.assert_allclose(coefficients[:, :20], wanted, atol=1e-6)
    np.testing.assert_allclose(coefficients[:, 20:], 0, atol=1e-6)
    # a frame that a code stands for exactly comes back as its token
    assert torch.equal(codec.encode(decoded), tokens)


def test_a_trained_decoder_hears_the_neighbours(codec: AudioVQ, trained: AudioVQ) -> None:
    tokens = torch.arange(20)[None] % 12
    changed = tokens.clone()
    changed[0, 10] = 7
    for own, reach in ((codec, 0), (trained, 1)):
        moved = (own.decode(changed) - own.decode(tokens)).abs() > 1e-6
        where = (moved[0, 0].nonzero()[:, 0] // 32).unique()
        assert {10 - reach, 10, 10 + reach} <= set(where.tolist())
        assert reach or where.tolist() == [10]


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 6), count=st.integers(1, 11), row=st.integers(0, 10), seed=st.integers(0)
)
def test_a_signal_is_read_alike_bit_for_bit_in_any_batch(
    codec: AudioVQ, length: int, count: int, row: int, seed: int
) -> None:
    own = codec.lasting(32 * length)
    signals = noise(count, 1, 32 * length, seed=seed % 2**31)
    one = slice(row % count, row % count + 1)
    for read in (own.encode, own.log_weights, own.features):
        assert torch.equal(read(signals)[one], read(signals[one]))


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 6), cut=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_token_sees_its_own_frame_alone(codec: AudioVQ, length: int, cut: int, seed: int) -> None:
    """So that a signal of any length has the tokens of its parts."""
    cut = min(cut, length)
    signals = noise(2, 1, 32 * length, seed=seed)
    whole, part = codec.lasting(32 * length), codec.lasting(32 * cut)
    head = signals[..., : 32 * cut]
    assert torch.equal(whole.encode(signals)[:, :cut], part.encode(head))
    torch.testing.assert_close(whole.features(signals)[:, :cut], part.features(head))


def test_none_and_silence(codec: AudioVQ) -> None:
    assert codec.encode(torch.zeros(0, 1, 640)).shape == (0, 20)
    assert codec.log_weights(torch.zeros(0, 1, 640)).shape == (0, 20, 12)
    assert codec.features(torch.zeros(0, 1, 640)).shape == (0, 20, 10)
    assert codec.decode(torch.zeros(0, 20, dtype=torch.int64)).shape == (0, 1, 640)
    silence = torch.zeros(1, 1, 640)
    assert (codec.features(silence) == 0).all()
    assert codec.encode(silence).unique().numel() == 1


# --- other lengths --------------------------------------------------------------------------------


def test_another_length_shares_the_weights(codec: AudioVQ) -> None:
    own = AudioVQ.fit(noise(12, 640), CONFIG)
    longer = own.lasting(1_280)
    assert (longer.signal_shape, longer.token_shape) == ((1, 1_280), (40,))
    assert own.signal_shape == (1, 640)  # which is as it was
    assert longer.config == replace(CONFIG, samples=1_280)
    assert longer.codes is own.codes
    with torch.no_grad():
        own.codes.mul_(2)
        last: Any = own.decoder[-1]
        last.bias.add_(1)
    tokens = torch.zeros(1, 40, dtype=torch.int64)
    torch.testing.assert_close(longer.decode(tokens)[..., :640], own.decode(tokens[:, :20]))


@pytest.mark.parametrize("samples", [0, -32, 33, 32.0, "640", None])
def test_lengths_that_are_none_are_refused(codec: AudioVQ, samples: Any) -> None:
    with pytest.raises(SignalError, match=r"positive multiple of 32 samples.*Pad with zeros"):
        codec.lasting(samples)


# --- fitting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alphabet", [1, 3, 12])
def test_a_code_is_the_mean_of_what_it_stands_for(alphabet: int) -> None:
    """Where Lloyd's iterations end, or almost."""
    config = replace(CONFIG, alphabet=alphabet)
    kinds = noise(3, 1, 32, seed=7)
    which = torch.randint(3, (8, 20), generator=torch.Generator().manual_seed(0))
    signals = kinds[which, 0].flatten(1)[:, None] + 0.05 * noise(8, 1, 640, seed=8)
    own = AudioVQ.fit(signals, config)
    tokens, latents = own.encode(signals), torch.from_numpy(10 * frames(signals)[..., :20])
    for code in range(alphabet):
        mean = latents[tokens == code].mean(0)
        torch.testing.assert_close(own.codes[code].double(), mean, rtol=0.0, atol=0.03)


def test_more_codes_keep_more() -> None:
    signals, errors = noise(40, 640), []
    for alphabet in (2, 8, 32, 128):
        own = AudioVQ.fit(signals, replace(CONFIG, alphabet=alphabet))
        errors.append(float((own.decode(own.encode(signals[:, None])) - signals[:, None]).std()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]


def test_a_seed_decides_the_codes_and_files_keep_them(codec: AudioVQ, tmp_path: Any) -> None:
    signals = noise(12, 640)
    again = AudioVQ.fit(signals[:, None], CONFIG)
    assert torch.equal(again.codes, codec.codes)
    assert not torch.equal(AudioVQ.fit(signals, CONFIG, seed=1).codes, codec.codes)
    assert torch.equal(codec.codes.half().float(), codec.codes)
    save_weights(codec, tmp_path / "codec.safetensors")
    facts = codec.describe()
    kind, config = KINDS[facts.pop("kind")]
    back = kind(config(**facts))
    load_weights(back, tmp_path / "codec.safetensors")
    assert back.config == codec.config  # type: ignore[attr-defined]
    assert facts == asdict(CONFIG)
    given_ = noise(3, 1, 640, seed=9)
    assert torch.equal(back.encode(given_), codec.encode(given_))
    assert torch.equal(back.decode(back.encode(given_)), codec.decode(codec.encode(given_)))


def test_it_is_fitted_to_some_frames_of_many() -> None:
    few = AudioVQ.fit(noise(100, 640), CONFIG, frames=1)  # 20 K all the same
    all_ = AudioVQ.fit(noise(100, 640), CONFIG)
    assert not torch.equal(few.codes, all_.codes)
    assert few.codes.isfinite().all()


def test_alphabets_of_one_and_codes_all_alike() -> None:
    signals = noise(3, 1, 640)
    one = AudioVQ.fit(signals, replace(CONFIG, alphabet=1))
    assert one.log_weights(signals).eq(0).all()
    assert one.encode(signals).eq(0).all()
    blank = AudioVQ(CONFIG)  # no codes yet: all are zero
    weights = blank.log_weights(signals)
    torch.testing.assert_close(weights, torch.full_like(weights, -math.log(12)))


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        (torch.zeros(4, 2, 640), r"float \[N, S\] or \[N, 1, S\], S a multiple of 32.*\[4, 2, 640"),
        (torch.zeros(640), r"got torch.float32 \[640\]"),
        (torch.zeros(4, 641), r"\[4, 641\]"),
        (torch.zeros(4, 640, dtype=torch.int16), "torch.int16"),
        (torch.full((4, 640), math.nan), "NaN or infinite"),
        (torch.full((4, 640), math.inf), "NaN or infinite"),
        (1e6 * noise(4, 640), "too loud to be quantised with gain=10: full scale is 1"),
    ],
)
def test_signals_that_cannot_be_fitted(signals: Tensor, message: str) -> None:
    with pytest.raises(SignalError, match=message):
        AudioVQ.fit(signals, CONFIG)


def test_too_few_frames() -> None:
    with pytest.raises(CodecError, match=r"11 frames are fewer than the 12 codes.*smaller"):
        AudioVQ.fit(noise(11, 32), CONFIG)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "positive integers"),
        ({"alphabet": 2.0}, "positive integers"),
        ({"blocks": -1}, "positive integers"),
        ({"samples": 650}, r"samples \(650\) a multiple"),
        ({"hop": 31, "samples": 620}, r"hop \(31\) must be even"),
        ({"latent": 33}, r"latent \(33\)"),
        ({"features": 33}, r"features \(33\) are at most hop"),
        ({"gain": 0.0}, "gain must be positive"),
        ({"gain": math.nan}, "gain must be positive"),
        ({"gain": "10"}, "gain must be positive"),
    ],
)
def test_sizes_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        (torch.zeros(2, 640), r"float \[B, 1, 640\], got torch.float32 \[2, 640\].*lasting"),
        (torch.zeros(2, 2, 640), r"\[2, 2, 640\]"),
        (torch.zeros(2, 1, 672), r"\[2, 1, 672\]"),
        (torch.zeros(2, 1, 640, dtype=torch.int64), "torch.int64"),
        (torch.full((2, 1, 640), math.nan), "NaN or infinite"),
    ],
)
def test_signals_that_cannot_be_read(codec: AudioVQ, signals: Tensor, message: str) -> None:
    for read in (codec.encode, codec.log_weights, codec.features):
        with pytest.raises(SignalError, match=message):
            read(signals)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(2, 19, dtype=torch.int64), r"expected tokens \[B, 20\], got \[2, 19\]"),
        (torch.zeros(20, dtype=torch.int64), r"got \[20\]"),
        (torch.zeros(2, 20), "integers, got torch.float32"),
        (torch.full((2, 20), 12), r"\[0, 12\), got \[12, 12\]"),
        (torch.full((2, 20), -1), r"\[0, 12\), got \[-1, -1\]"),
    ],
)
def test_tokens_that_cannot_be_decoded(codec: AudioVQ, tokens: Tensor, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec.decode(tokens)
