"""Sound files out: encodings, clip modes, and nothing lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mlass_ppl.audio import AudioWriter, read_audio, write, write_audio, write_stems
from mlass_ppl.errors import OptionError, SignalError

soundfile = pytest.importorskip("soundfile")


def _signal(*shape: int, peak: float = 0.5) -> torch.Tensor:
    signal = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return peak * signal / signal.abs().max()


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_keeps_rate_and_length(tmp_path: Path, ending: str, channels: int) -> None:
    path = tmp_path / f"a.{ending}"
    assert write_audio(path, _signal(channels, 30_007), 44_100) == ()
    audio = read_audio(path)
    assert audio.samples.shape == (channels, 30_007)
    assert audio.rate == 44_100
    assert os.listdir(tmp_path) == [path.name]


def test_float32_keeps_every_bit_and_what_is_above_full_scale(tmp_path: Path) -> None:
    signal = _signal(2, 1000, peak=3.0)
    assert write_audio(tmp_path / "a.wav", signal, 12_345) == ()
    audio = read_audio(tmp_path / "a.wav")
    assert torch.equal(audio.samples, signal)
    assert (audio.rate, soundfile.info(tmp_path / "a.wav").subtype) == (12_345, "FLOAT")


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_16_bits_come_out_as_they_went_in(tmp_path: Path, ending: str) -> None:
    bits = torch.arange(-32_768, 32_768)
    path = tmp_path / f"a.{ending}"
    assert write_audio(path, bits / 32_768, 8_000, encoding="int16") == ()
    back, _ = soundfile.read(path, dtype="int16")
    np.testing.assert_array_equal(back, bits.numpy())
    assert soundfile.info(path).subtype == "PCM_16"


def test_16_bits_round_to_the_nearest(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", _signal(5000), 8_000, encoding="int16")
    error = read_audio(tmp_path / "a.wav").samples[0] - _signal(5000)
    assert error.abs().max() <= 0.5 / 32_768 + 1e-9


def test_rescale_turns_the_whole_signal_down(tmp_path: Path) -> None:
    signal = _signal(2, 1000, peak=4.0)
    notices = write_audio(tmp_path / "a.wav", signal, 8_000, encoding="int16")
    assert notices == ("turned down to 0.25 of its level: it peaked at 4, above 1",)
    assert torch.allclose(read_audio(tmp_path / "a.wav").samples, signal / 4, atol=1 / 32_768)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_clamp_cuts_off_and_counts(tmp_path: Path, ending: str) -> None:
    signal = _signal(1, 4000, peak=2.0)
    encoding = "int16" if ending == "wav" else None
    path = tmp_path / f"a.{ending}"
    notices = write_audio(path, signal, 44_100, encoding=encoding, clip="clamp")  # type: ignore[arg-type]
    beyond = int((signal.abs() > 1).sum())
    assert notices == (f"{beyond:,} samples beyond full scale were cut off",)
    if ending != "ogg":
        expected = signal.clamp(-1, 1)
        assert torch.allclose(read_audio(path).samples, expected, atol=1.01 / 32_768)


def test_stems_are_turned_down_alike(tmp_path: Path) -> None:
    stems = {"drums": _signal(2, 500, peak=2.0), "bass": _signal(2, 500, peak=0.1).flip(1)}
    notices = write_stems(tmp_path / "new", stems, 8_000, suffix=".flac")
    assert notices == ("turned down to 0.5 of its level: it peaked at 2, above 1",)
    for name, stem in stems.items():
        back = read_audio(tmp_path / "new" / f"{name}.flac").samples
        assert torch.allclose(back, stem / 2, atol=1 / 32_768)


def test_one_place_that_is_taken_stops_all_stems(tmp_path: Path) -> None:
    (tmp_path / "bass.wav").write_bytes(b"dear")
    with pytest.raises(OptionError, match="exists and is kept"):
        write_stems(tmp_path, {"drums": _signal(9), "bass": _signal(9)}, 8_000)
    assert [file.name for file in tmp_path.iterdir()] == ["bass.wav"]
    with pytest.raises(OptionError, match="cannot be the name of a file"):
        write_stems(tmp_path, {"../drums": _signal(9)}, 8_000)


def test_existing_output_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"dear")
    with pytest.raises(OptionError, match="force=True"):
        write_audio(path, _signal(100), 8_000)
    assert path.read_bytes() == b"dear"
    write_audio(path, _signal(100), 8_000, force=True)
    assert torch.equal(read_audio(path).samples[0], _signal(100))


def _write_until(path: Path, meanwhile: Callable[[], object], *, force: bool) -> None:
    with AudioWriter(path, 8_000, force=force) as writer:
        writer.write(_signal(100))
        meanwhile()


def test_a_failure_midway_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"dear")

    def fail() -> None:
        assert path.read_bytes() == b"dear"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _write_until(path, fail, force=True)
    assert path.read_bytes() == b"dear"
    assert os.listdir(tmp_path) == ["a.wav"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(OptionError, match="exists"):
        _write_until(path, lambda: path.write_bytes(b"dear"), force=False)
    assert path.read_bytes() == b"dear"
    assert os.listdir(tmp_path) == ["a.wav"]


def test_blocks_make_one_file(tmp_path: Path) -> None:
    signal = _signal(2, 10_000)
    with AudioWriter(tmp_path / "a.wav", 8_000, 2) as writer:
        for block in signal.split(777, 1):
            writer.write(block)
    assert torch.equal(read_audio(tmp_path / "a.wav").samples, signal)


def test_a_long_lossy_file_is_written_in_pieces(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.ogg", _signal(1, 3_000_000), 44_100)
    assert read_audio(tmp_path / "a.ogg").info.frames == 3_000_000


def test_wav_beyond_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_WAV_BYTES", 4000)
    signal = _signal(1001)
    write_audio(tmp_path / "a.wav", signal, 8_000)
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    assert torch.equal(read_audio(tmp_path / "a.wav").samples[0], signal)
    with (
        pytest.raises(SignalError, match="beyond the 4 GiB"),
        AudioWriter(tmp_path / "b.wav", 8_000) as writer,
    ):
        writer.write(signal)
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_never_written(tmp_path: Path, value: float) -> None:
    signal = _signal(2, 100)
    signal[1, 3] = value
    with pytest.raises(SignalError, match="1 NaN or infinite"):
        write_audio(tmp_path / "a.wav", signal, 8_000)
    assert os.listdir(tmp_path) == []


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'\.aac'; sound files are written as \.wav, \.flac"):
        write_audio(tmp_path / "a.aac", _signal(9), 8_000)
    with pytest.raises(OptionError, match="FLAC takes 'int16' encoding"):
        write_audio(tmp_path / "a.flac", _signal(9), 8_000, encoding="float32")
    with pytest.raises(OptionError, match="OGG takes no encoding"):
        write_audio(tmp_path / "a.ogg", _signal(9), 8_000, encoding="int16")
    with pytest.raises(OptionError, match="'rescale' or 'clamp'"):
        write_audio(tmp_path / "a.wav", _signal(9), 8_000, clip="none")  # type: ignore[arg-type]
    with pytest.raises(SignalError, match="takes blocks"):
        write_audio(tmp_path / "a.wav", _signal(2, 3, 9), 8_000)
    with pytest.raises(SignalError, match="one or more samples"):
        write_audio(tmp_path / "a.wav", torch.zeros(2, 0), 8_000)
    with pytest.raises(SignalError, match="MP3 only the usual ones"):
        write_audio(tmp_path / "a.mp3", _signal(9), 12_345)
    assert os.listdir(tmp_path) == []
