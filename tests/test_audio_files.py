"""Sound files in: formats, blocks, and everything that can be wrong with a file."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from mlass_ppl.audio import AudioStream, audio_info, read_audio, resample
from mlass_ppl.errors import OptionError, SignalError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

FORMATS = ["wav", "flac", "ogg", "mp3"]
FFMPEG = shutil.which("ffmpeg")


def _noise(frames: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Smooth noise [frames, channels] well below full scale, which lossy formats keep well."""
    noise = np.random.default_rng(seed).normal(size=(frames + 63, channels))
    smooth = np.stack([np.convolve(row, np.hanning(64), "valid") for row in noise.T], 1)
    return (0.3 * smooth / np.abs(smooth).max()).astype(np.float32)


def _save(path: Path, samples: np.ndarray, rate: int = 44_100, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("ending", FORMATS)
def test_reads_every_format_at_its_own_rate(tmp_path: Path, ending: str, channels: int) -> None:
    samples = _noise(30_001, channels)
    audio = read_audio(_save(tmp_path / f"a.{ending}", samples, 22_050))
    assert audio.samples.dtype == torch.float32
    assert audio.samples.shape == (channels, 30_001)
    assert (audio.rate, audio.info.rate, audio.info.frames) == (22_050, 22_050, 30_001)
    assert (audio.info.format, audio.notices) == (ending.upper(), ())
    error = {"wav": 4e-5, "flac": 2e-5, "ogg": 0.03, "mp3": 0.03}[ending]
    np.testing.assert_allclose(audio.samples.numpy().T, samples, atol=error)


def test_the_format_is_that_of_the_content(tmp_path: Path) -> None:
    _save(tmp_path / "a.flac", _noise(999)).rename(tmp_path / "a.wav")
    assert read_audio(tmp_path / "a.wav").info.format == "FLAC"


def test_mono_is_the_mean_and_says_so(tmp_path: Path) -> None:
    samples = _noise(5000)
    audio = read_audio(_save(tmp_path / "a.wav", samples, subtype="FLOAT"), mono=True)
    np.testing.assert_allclose(audio.samples[0].numpy(), samples.mean(1), atol=1e-7)
    assert audio.notices == ("stereo mixed down to mono: the mean of the channels",)
    alone = read_audio(_save(tmp_path / "b.wav", samples[:, :1]), mono=True)
    assert alone.notices == ()


def test_resampling_is_declared_told_and_undone(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.wav", _noise(48_001), 48_000, "FLOAT")
    audio = read_audio(path, rate=44_100)
    assert audio.rate == 44_100
    assert audio.samples.shape == (2, 44_101)
    assert audio.notices == ("resampled from 48,000 to 44,100 Hz",)
    back = audio.restore(audio.samples)
    assert back.shape == (2, 48_001)
    whole = read_audio(path).samples
    error = (back - whole)[:, 500:-500].square().mean() / whole.square().mean()
    assert 10 * torch.log10(error) < -60


@pytest.mark.parametrize("rate", [None, 16_000])
@pytest.mark.parametrize("ending", FORMATS)
def test_blocks_are_the_file(tmp_path: Path, ending: str, rate: int | None) -> None:
    stream = AudioStream(_save(tmp_path / f"a.{ending}", _noise(200_000)), rate=rate)
    whole = read_audio(stream.path, rate=rate).samples
    plain = list(stream.blocks(30_000))
    assert torch.equal(torch.cat(plain, 1), whole)
    assert {len(block[0]) for block in plain[:-1]} == {30_000}
    overlapping = list(stream.blocks(30_000, overlap=10_000))
    for place, block in enumerate(overlapping):
        start = 20_000 * place
        assert torch.equal(block, whole[:, start : start + 30_000])
    assert 20_000 * len(overlapping) + 10_000 >= whole.shape[1]
    restored = torch.cat(list(stream.restore(iter(plain))), 1)
    expected = resample(whole, stream.rate, 44_100, length=stream.info.frames)
    assert torch.equal(restored, expected)


def test_blocks_take_constant_memory(tmp_path: Path) -> None:
    frames = 4_000_000
    path = _save(tmp_path / "a.wav", np.zeros((frames, 2), np.float32) + 0.1, subtype="PCM_16")
    stream = AudioStream(path)
    tracemalloc.start()
    assert sum(block.shape[1] for block in stream.blocks(100_000)) == frames
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames  # bytes: an eighth of the samples as float32


def test_impossible_options(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.wav", _noise(99))
    for rate in (0, -1, 44_100.5):
        with pytest.raises(OptionError, match="whole number of samples a second"):
            read_audio(path, rate=rate)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="overlap from 0 to half"):
        list(AudioStream(path).blocks(10, overlap=6))


def test_a_missing_file_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=r"no sound file .*spelling"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(SignalError, match="no sound file"):
        read_audio(tmp_path)
    (tmp_path / "a.wav").touch()
    with pytest.raises(SignalError, match="is empty"):
        audio_info(tmp_path / "a.wav")


def test_a_file_without_a_sample(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.wav", np.zeros((0, 2), np.float32))
    with pytest.raises(SignalError, match="without a single sample"):
        read_audio(path)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_file_of_one_sample(tmp_path: Path, ending: str) -> None:
    path = _save(tmp_path / f"a.{ending}", np.full((1, 1), 0.25, np.float32))
    assert read_audio(path).samples.shape == (1, 1)
    low = read_audio(path, rate=8_000)
    assert low.samples.shape == (1, 1)
    assert low.restore(low.samples).shape == (1, 1)


def test_a_silent_file_is_read_and_told(tmp_path: Path) -> None:
    audio = read_audio(_save(tmp_path / "a.wav", np.zeros((500, 2), np.float32)))
    assert not audio.samples.any()
    assert audio.notices == ("the file is silent",)


def test_clipping_is_counted_by_places(tmp_path: Path) -> None:
    wave = 1.5 * np.sin(2 * np.pi * 100 * np.arange(88_200) / 44_100)[:, None]
    clipped = read_audio(_save(tmp_path / "a.wav", wave.clip(-1, 1)))
    assert clipped.notices == ("clipped: full scale is held in 400 places",)
    full = read_audio(_save(tmp_path / "b.wav", wave / 1.5))
    assert not any("clipped" in notice for notice in full.notices)
    over = read_audio(_save(tmp_path / "c.wav", wave, subtype="FLOAT"))
    assert over.notices == ("peaks at 1.5, above full scale (1)",)
    assert float(over.samples.max()) == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_with_its_place(tmp_path: Path, value: float) -> None:
    samples = _noise(200_000)
    samples[132_300, 1] = value
    path = _save(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(SignalError, match=r"NaN or infinite samples, the first at 3\.000 s"):
        read_audio(path)
    with pytest.raises(SignalError, match="NaN or infinite"):
        list(AudioStream(path, rate=16_000).blocks(1000))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_that_is_cut_off_is_never_read_short(
    tmp_path: Path, ending: str, share: float
) -> None:
    whole = _save(tmp_path / f"whole.{ending}", _noise(300_000)).read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SignalError, match=r"ends early|to its end"):
        read_audio(path)


def test_a_wav_from_a_pipe_promises_no_length(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.wav", _noise(5000), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    expected = read_audio(path).samples
    for place in (4, data.index(b"data") + 4):
        data[place : place + 4] = struct.pack("<I", 2**32 - 1)
    path.write_bytes(data)
    assert torch.equal(read_audio(path).samples, expected)


def test_an_mp3_whose_length_is_guessed_far_too_low_is_refused(tmp_path: Path) -> None:
    # Loud first, then silent: from the size of the first frames libsndfile guesses too few of them
    # when the frame that tells the length is gone.
    samples = np.concatenate([_noise(100_000, 1), np.zeros((900_000, 1), np.float32)])
    path = tmp_path / "a.mp3"
    with soundfile.SoundFile(
        path, "w", 44_100, 1, bitrate_mode="VARIABLE", compression_level=0.2
    ) as file:
        for start in range(0, len(samples), 50_000):
            file.write(samples[start : start + 50_000])
    data = path.read_bytes()
    assert read_audio(path).info.frames == 1_000_000
    info = data.index(b"Xing")
    second = data.index(data[:2], info)
    path.write_bytes(data[second:])
    with pytest.raises(SignalError, match="variable bit rate"):
        read_audio(path)


def test_more_than_two_channels_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.wav", _noise(100, 6))
    with pytest.raises(SignalError, match="6 channels; expected mono or stereo"):
        read_audio(path)


def test_other_formats_ask_for_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(4000))
    with pytest.raises(SignalError, match=r"m4a, AAC and others install ffmpeg"):
        read_audio(tmp_path / "a.m4a")


def _fake_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A command `ffmpeg` that ignores its arguments, and a file only ffmpeg would read."""
    command = folder / "ffmpeg"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    path = folder / "a.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(4000))
    return path


def _au(samples: np.ndarray, rate: int) -> bytes:
    header = struct.pack(">4s5I", b".snd", 28, 2**32 - 1, 6, rate, samples.shape[1])
    return header + bytes(4) + samples.astype(">f4").tobytes()


def test_what_ffmpeg_decodes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = _noise(70_001)
    (tmp_path / "a.au").write_bytes(_au(samples, 32_000))
    path = _fake_ffmpeg(tmp_path, monkeypatch, f"cat '{tmp_path / 'a.au'}'")
    assert audio_info(path).frames is None
    audio = read_audio(path, rate=16_000)
    np.testing.assert_array_equal(read_audio(path).samples.numpy().T, samples)
    assert (audio.info.rate, audio.info.frames) == (32_000, 70_001)
    assert audio.restore(audio.samples).shape == (2, 70_001)


@pytest.mark.parametrize("sound", [True, False])
def test_ffmpegs_own_words_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    (tmp_path / "a.au").write_bytes(_au(_noise(70_001), 32_000))
    begin = f"cat '{tmp_path / 'a.au'}'; " if sound else ""
    script = f"{begin}echo 'partial file' >&2; exit 1"
    path = _fake_ffmpeg(tmp_path, monkeypatch, script)
    with pytest.raises(SignalError, match=r"to its end \(partial file\)"):
        read_audio(path)


def test_leaving_a_stream_early_ends_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.au").write_bytes(_au(_noise(200_001), 32_000))
    script = f"cat '{tmp_path / 'a.au'}'; exec sleep 60"
    stream = AudioStream(_fake_ffmpeg(tmp_path, monkeypatch, script))
    blocks = stream.blocks(1000)
    assert next(blocks).shape == (2, 1000)
    blocks.close()  # type: ignore[attr-defined]


@pytest.mark.skipif(FFMPEG is None, reason="the ffmpeg command is not on PATH")
def test_m4a_through_ffmpeg(tmp_path: Path) -> None:
    samples = _noise(100_000)
    source, path = _save(tmp_path / "a.wav", samples), tmp_path / "a.m4a"
    command = ["ffmpeg", "-v", "error", "-i", str(source), "-b:a", "256k", str(path)]
    subprocess.run(command, check=True)
    audio = read_audio(path)
    assert audio.info.format == "M4A"
    assert audio.samples.shape[1] == pytest.approx(100_000, abs=2048)
    got = audio.samples.numpy().T[:100_000]
    assert np.square(got - samples[: len(got)]).mean() < 0.01 * np.square(samples).mean()
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(SignalError, match="to its end"):
        read_audio(path)
