"""The Wiener post-filter: against its formulas bin by bin, and what it must keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mlass_ppl.audio import STFT, Wiener
from mlass_ppl.errors import OptionError, SignalError
from mlass_ppl.evaluate.audio import sdr

SMALL = Wiener(window=256, hop=64, segment=1000)


def _stems(n: int, channels: int, length: int, seed: int = 0) -> Tensor:
    """Noise of different colours, each panned elsewhere."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 1, length, generator=random)
    for place in range(n):
        for _ in range(3 * place):
            noise[place] = (noise[place] + noise[place].roll(1, -1)) / 2
    noise = noise / noise.square().mean(-1, keepdim=True).sqrt() / 5
    angle = torch.linspace(0.2, 1.3, n)[:, None, None]
    return noise * torch.cat([angle.cos(), angle.sin()], 1)[:, :channels]


def _rough(stems: Tensor, seed: int = 1) -> Tensor:
    """The stems leaking into each other, with noise and their fine structure lost."""
    noise = torch.randn(stems.shape, generator=torch.Generator().manual_seed(seed))
    return 0.7 * stems + 0.1 * stems.sum(0) + 0.03 * noise


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128, 1000, 12_345])
@pytest.mark.parametrize("hop", [64, 96, 128])
def test_the_stft_is_inverted_at_any_length(length: int, hop: int) -> None:
    stft, signal = STFT(256, hop), torch.randn(2, 3, length, dtype=torch.float64)
    spectrum = stft.forward(signal)
    assert spectrum.shape == (2, 3, 129, 1 + -(-length // hop))
    assert torch.allclose(stft.inverse(spectrum, length), signal, atol=1e-12)


def test_stft_frames_are_windowed_transforms() -> None:
    signal = torch.randn(1000, dtype=torch.float64)
    spectrum = STFT(256, 64).forward(signal)
    frame = signal[5 * 64 - 128 : 5 * 64 + 128] * torch.hann_window(256, dtype=torch.float64)
    assert torch.allclose(spectrum[:, 5], torch.fft.rfft(frame))


def test_stft_refuses() -> None:
    for window, hop in ((256, 0), (256, 129), (1, 1)):
        with pytest.raises(OptionError, match="hop from 1 to half"):
            STFT(window, hop)
    with pytest.raises(SignalError, match=r"float32 or float64 .* not torch\.int64"):
        STFT(256, 64).forward(torch.ones(9, dtype=torch.int64))
    with pytest.raises(SignalError, match="spectrum of 500 samples is"):
        STFT(256, 64).inverse(STFT(256, 64).forward(torch.ones(900)), 500)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 40.0])
@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize(("n", "channels"), [(1, 1), (2, 1), (3, 2), (4, 2)])
@pytest.mark.parametrize("length", [1, 100, 5003])
def test_stems_sum_to_the_mixture(
    n: int, channels: int, length: int, iterations: int, power: float
) -> None:
    wiener = Wiener(256, 64, iterations=iterations, power=power, segment=2000)
    stems = _stems(n, channels, length)
    mixture = stems.sum(0)
    filtered = wiener(_rough(stems), mixture)
    assert filtered.shape == stems.shape
    assert torch.allclose(filtered.sum(0), mixture, atol=1e-6)


def test_masks_are_the_ratios() -> None:
    stems, mixture = _rough(_stems(3, 2, 4000)).double(), _stems(3, 2, 4000).sum(0).double()
    filtered = Wiener(256, 64, power=1.5)(stems, mixture)
    stft = STFT(256, 64)
    size = stft.forward(stems).abs() ** 1.5
    expected = stft.inverse(size / size.sum(0) * stft.forward(mixture), 4000)
    assert torch.allclose(filtered, expected, atol=1e-12)


def test_an_iteration_is_the_local_gaussian_model() -> None:
    stems, mixture = _rough(_stems(3, 2, 2000)).double(), _stems(3, 2, 2000).sum(0).double()
    stft = STFT(256, 64)
    x = stft.forward(mixture)  # [2, F, M]
    y = stft.forward(Wiener(256, 64)(stems, mixture))  # the inverse keeps to what a signal can be
    size = stft.forward(stems).abs().square()
    y = size / size.sum(0) * x
    power = y.abs().square().mean(1)  # [n, F, M]
    outer = torch.einsum("ncft,ndft->nfcd", y, y.conj())
    spatial = outer / power.sum(-1)[..., None, None]
    total = torch.einsum("nft,nfcd->ftcd", power.to(spatial), spatial)
    white = 1e-4 * torch.einsum("ftcc->ft", total).real / 2
    eye = torch.eye(2, dtype=total.dtype)
    inverse = torch.linalg.inv(total + white[..., None, None] * eye)
    own = torch.einsum("nft,nfcd->nftcd", power.to(spatial), spatial)
    own = own + white[..., None, None] * eye / 3
    expected = torch.einsum("nftcd,ftde,eft->ncft", own, inverse, x)
    filtered = Wiener(256, 64, iterations=1)(stems, mixture)
    assert torch.allclose(filtered, stft.inverse(expected, 2000), atol=1e-10)


@pytest.mark.parametrize("iterations", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 2])
def test_segments_leave_no_seam(channels: int, iterations: int) -> None:
    stems = _stems(3, channels, 5011)
    mixture, rough = stems.sum(0).double(), _rough(stems).double()
    whole = Wiener(256, 64, iterations=iterations, segment=1 << 20)(rough, mixture)
    for segment in (1, 1000, 4096):
        wiener = Wiener(256, 64, iterations=iterations, segment=segment)
        assert torch.allclose(wiener(rough, mixture), whole, atol=1e-10)


@pytest.mark.parametrize("iterations", [0, 1])
def test_a_stream_is_the_whole(iterations: int) -> None:
    wiener = Wiener(256, 64, iterations=iterations, segment=1000)
    stems = _stems(2, 2, 9_999)
    rough, mixture = _rough(stems), stems.sum(0)
    lengths = [1, 2999, 64, 5000, 1935]
    blocks = list(zip(rough.split(lengths, -1), mixture.split(lengths, -1), strict=True))
    streamed = torch.cat(list(wiener.stream(blocks, [1.0, 1.0])), -1)
    assert torch.equal(streamed, wiener(rough, mixture, [1.0, 1.0]))


def test_a_stream_holds_a_segment() -> None:
    read = 0

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal read
        for _ in range(1_000_000):
            read += 100
            yield torch.ones(2, 1, 100), torch.ones(1, 100)

    outputs = SMALL.stream(blocks())
    made = sum(next(outputs).shape[-1] for _ in range(20))
    assert made <= read <= made + 2000
    with pytest.raises(OptionError, match="reads the signal 3 times, but an iterator"):
        next(Wiener(iterations=2).stream(blocks()))


def test_weights_are_those_of_the_mixture() -> None:
    stems = _stems(3, 1, 3000)
    weights = [0.5, 0.3, 0.2]
    mixture = sum((w * s for w, s in zip(weights, stems, strict=True)), torch.zeros(1, 3000))
    filtered = SMALL(_rough(stems), mixture, weights)
    total = sum((w * s for w, s in zip(weights, filtered, strict=True)), torch.zeros(1, 3000))
    assert torch.allclose(total, mixture, atol=1e-6)
    scaled = SMALL(_rough(stems) * torch.tensor(weights)[:, None, None], mixture)
    assert torch.allclose(filtered * torch.tensor(weights)[:, None, None], scaled, atol=1e-6)


def test_rows_of_a_batch_do_not_mix() -> None:
    stems = torch.stack([_stems(3, 2, 3000, seed) for seed in range(4)])
    rough, mixture = 0.8 * stems + 0.1, stems.sum(1)
    wiener = Wiener(256, 64, iterations=1)
    batch = wiener(rough, mixture)
    for row in range(4):
        assert torch.allclose(batch[row], wiener(rough[row], mixture[row]), atol=1e-6)


def test_mono_without_a_channel_axis() -> None:
    stems = _stems(2, 1, 3000)
    plain = SMALL(_rough(stems)[:, 0], stems.sum(0)[0])
    assert torch.equal(plain, SMALL(_rough(stems), stems.sum(0))[:, 0])


@pytest.mark.parametrize("iterations", [0, 1])
@pytest.mark.parametrize("power", [1.0, 2.0, 50.0])
def test_silence(iterations: int, power: float) -> None:
    wiener = Wiener(256, 64, iterations=iterations, power=power)
    stems = _stems(3, 2, 4000)
    stems[:, :, 1000:2500] = 0.0
    rough, mixture = _rough(stems), stems.sum(0)
    rough[0] = 0.0  # a stem that is silent throughout
    rough[..., 2000:] = 0.0  # and nothing known of the end
    filtered = wiener(rough, mixture)
    assert filtered.isfinite().all()
    assert torch.allclose(filtered.sum(0), mixture, atol=1e-6)
    # where others sound, the silent stem gets next to nothing
    assert filtered[0, :, 200:800].abs().max() < (1e-6 if not iterations else 1e-3)
    if not iterations:  # where none does, they share alike; an iteration goes by where they are
        alike = (mixture / 3)[..., 2300:].expand(3, 2, 1700)
        assert torch.allclose(filtered[..., 2300:], alike, atol=1e-6)
    nothing = wiener(torch.zeros(3, 2, 4000), torch.zeros(2, 4000))
    assert not nothing.any()


def test_the_level_does_not_matter() -> None:
    stems = _stems(2, 2, 3000)
    rough, mixture = _rough(stems), stems.sum(0)
    for iterations in (0, 1):
        wiener = Wiener(256, 64, iterations=iterations)
        quiet = wiener(rough * 2**-20, mixture * 2**-20) * 2**20
        assert torch.allclose(quiet, wiener(rough, mixture), atol=1e-6)


def _notes(length: int) -> Tensor:
    """Three stereo stems [3, 2, length] of decaying harmonic notes, panned from left to right."""
    random, time = torch.Generator().manual_seed(0), torch.arange(length) / 16_000
    stems = torch.zeros(3, length)
    for stem in stems:
        for start in range(0, length, 4000):
            pitch = 110 * 2 ** (float(torch.randint(0, 24, (), generator=random)) / 12)
            since = time[: length - start]
            note = [torch.sin(2 * torch.pi * h * pitch * since + h) / h for h in range(1, 12)]
            stem[start:] += torch.exp(-6 * since) * torch.stack(note).sum(0) / 5
    angle = torch.linspace(0.2, 1.3, 3)[:, None, None]
    return stems[:, None] * torch.cat([angle.cos(), angle.sin()], 1)


def test_stems_without_their_phase_get_it_back_and_panning_helps() -> None:
    stems = _notes(40_000)
    mixture, stft = stems.sum(0), STFT(1024, 256)
    spectrum = stft.forward(stems)
    phase = torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(1))
    rough = stft.inverse(torch.polar(spectrum.abs(), 2 * torch.pi * phase), 40_000)

    def score(filtered: Tensor) -> float:
        return float(sdr(filtered.flatten(-2), stems.flatten(-2)).mean())

    before = score(rough)
    masked = score(Wiener(1024, 256)(rough, mixture))
    placed = score(Wiener(1024, 256, iterations=1)(rough, mixture))
    assert masked > before + 3.0
    assert placed > masked + 0.5


@pytest.mark.parametrize(
    ("stems", "mixture"),
    [
        (torch.ones(2, 1, 99), torch.ones(1, 98)),
        (torch.ones(2, 2, 99), torch.ones(1, 99)),
        (torch.ones(1, 99), torch.ones(1, 99)),
        (torch.ones(2, 1, 99, dtype=torch.float64), torch.ones(1, 99)),
        (torch.ones(2, 1, 0), torch.ones(1, 0)),
        (torch.ones(2, 5, 99), torch.ones(5, 99)),
        (torch.ones(2, 1, 99) / 0.0, torch.ones(1, 99)),
        (torch.ones(2, 1, 99), torch.ones(1, 99) * float("nan")),
    ],
)
def test_bad_signals(stems: Tensor, mixture: Tensor) -> None:
    with pytest.raises(SignalError, match=r"expected finite|one length|mono or stereo"):
        SMALL(stems, mixture)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_bad_weights(weights: list[float]) -> None:
    with pytest.raises(OptionError, match="2 finite weights other than 0"):
        SMALL(torch.ones(2, 1, 99), torch.ones(1, 99), weights)


@pytest.mark.parametrize(
    "options", [{"iterations": -1}, {"power": 0.0}, {"power": float("inf")}, {"segment": 0}]
)
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="Wiener takes iterations"):
        Wiener(**options)
