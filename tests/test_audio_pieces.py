"""Pieces of sound files: exactly those of the whole, cheap where they can be, and never wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mlass_ppl.audio import AudioStream, audio_info, read_audio, write_audio
from mlass_ppl.errors import MlassError, SignalError

soundfile = pytest.importorskip("soundfile")

RATE = 8_000
FORMATS = ["wav", "flac", "aiff", "ogg", "mp3"]


def _noise(frames: int, channels: int = 1) -> np.ndarray:
    """Smooth noise [frames, channels], which lossy formats keep well."""
    noise = np.random.default_rng(0).normal(size=(frames + 63, channels))
    smooth = np.stack([np.convolve(row, np.hanning(64), "valid") for row in noise.T], 1)
    return (0.3 * smooth / np.abs(smooth).max()).astype(np.float32)


def _save(path: Path, samples: np.ndarray, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, RATE, subtype=subtype)
    return path


@pytest.mark.parametrize("options", [{}, {"mono": True}, {"rate": 11_025}], ids=str)
@pytest.mark.parametrize("ending", FORMATS)
def test_any_piece_is_that_piece_of_the_whole(tmp_path: Path, ending: str, options: dict) -> None:
    stream = AudioStream(_save(tmp_path / f"a.{ending}", _noise(90_000, 2)), **options)
    whole = read_audio(stream.path, **options).samples
    assert stream.frames == whole.shape[1]
    assert stream.info.seekable == (ending not in ("ogg", "mp3"))
    last = stream.frames
    places = [(0, last), (0, 1), (last - 1, 1), (4_095, 2), (123, 80_000), (65_530, 10), (last, 0)]
    places += [(int(n), 700) for n in np.random.default_rng(0).integers(0, last - 700, 5)]
    for start, frames in places:
        assert torch.equal(stream.read(start, frames), whole[:, start : start + frames])
    assert torch.equal(stream.read(70_000), whole[:, 70_000:])
    assert torch.equal(stream.read(), whole)
    assert stream.read(last).shape == (stream.channels, 0)


@pytest.mark.parametrize("ending", ["wav", "ogg"])
@pytest.mark.parametrize(
    ("start", "frames"), [(-1, 5), (0, 9_001), (9_001, 0), (8_999, 2), (5, -1), (9_001, None)]
)
def test_a_piece_outside_of_the_file_is_refused(
    tmp_path: Path, ending: str, start: int, frames: int | None
) -> None:
    stream = AudioStream(_save(tmp_path / f"a.{ending}", _noise(9_000)))
    with pytest.raises(SignalError, match="has 9,000 samples per channel at 8,000 Hz; got a"):
        stream.read(start, frames)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_only_the_piece_is_read(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = AudioStream(_save(tmp_path / f"a.{ending}", _noise(500_000)))
    expected = stream.read()[:, 400_000:400_100]
    read, asked = soundfile.SoundFile.read, []

    def counting(file, frames=-1, **options):
        asked.append(frames)
        return read(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    assert torch.equal(stream.read(400_000, 100), expected)
    assert asked == [100]


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "ULAW"])
def test_other_encodings_in_a_wav_are_read_from_the_start(tmp_path: Path, subtype: str) -> None:
    stream = AudioStream(_save(tmp_path / "a.wav", _noise(9_000), subtype))
    assert not stream.info.seekable
    assert torch.equal(stream.read(5_000, 300), stream.read()[:, 5_000:5_300])


def test_files_of_unknown_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = _noise(70_001, 2)
    header = b".snd" + np.array([28, 2**32 - 1, 6, RATE, 2], ">u4").tobytes() + bytes(4)
    (tmp_path / "a.au").write_bytes(header + samples.astype(">f4").tobytes())
    (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\ncat '{tmp_path / 'a.au'}'\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(4_000))
    stream = AudioStream(tmp_path / "a.m4a")
    assert (stream.frames, stream.info.seekable) == (None, False)
    for start, frames in ((0, 70_001), (65_000, 5_001), (70_000, None)):
        expected = samples.T[:, start : start + (frames or 70_001)]
        np.testing.assert_array_equal(stream.read(start, frames).numpy(), expected)
    for start, frames, message in (
        (65_000, 5_002, "has 70,001 samples .*; got a piece of 5,002 from 65,000"),
        (70_001, None, "has fewer samples .*; got all from 70,001"),
    ):
        with pytest.raises(SignalError, match=message):
            stream.read(start, frames)


@pytest.mark.parametrize("ending", ["wav", "flac"])
@pytest.mark.parametrize("frames", [1, 2, 12_345])
def test_16_bits_are_read_as_they_were_written(tmp_path: Path, ending: str, frames: int) -> None:
    steps = np.random.default_rng(0).integers(-32_768, 32_768, 12_345)
    steps[:2] = -32_768, 32_767
    signal = torch.from_numpy(steps[:frames].astype(np.float32) / 32_768)
    path = tmp_path / f"a.{ending}"
    write_audio(path, signal, RATE, encoding="int16")
    assert torch.equal(AudioStream(path).read()[0], signal)


def test_the_whole_part_of_a_file_that_is_cut_off_can_be_read(tmp_path: Path) -> None:
    path = _save(tmp_path / "song.flac", _noise(300_000))
    whole = read_audio(path).samples
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    stream = AudioStream(path)
    assert torch.equal(stream.read(1_000, 8_000), whole[:, 1_000:9_000])
    for start, frames in ((0, 300_000), (250_000, 100)):
        with pytest.raises(SignalError, match=r"song\.flac' (is damaged or )?ends early"):
            stream.read(start, frames)


def test_a_cut_off_wav_is_refused_before_a_piece_is_read(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.wav", _noise(9_000))
    path.write_bytes(path.read_bytes()[:9_000])
    with pytest.raises(SignalError, match="ends early"):
        AudioStream(path)


def test_flipped_bits_in_flac_are_found(tmp_path: Path) -> None:
    path = _save(tmp_path / "song.flac", _noise(40_000))
    raw = path.read_bytes()
    for place in range(len(raw) // 10, len(raw), len(raw) // 5):
        damaged = bytearray(raw)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(SignalError, match=r"song\.flac' is damaged"):
            AudioStream(path).read()


@pytest.mark.parametrize("content", [None, b"", b"no sound"])
@pytest.mark.parametrize("frames", [10, None])
def test_a_file_that_changed_since_it_was_opened(
    tmp_path: Path, content: bytes | None, frames: int | None
) -> None:
    stream = AudioStream(_save(tmp_path / "a.wav", _noise(9_000)))
    stream.path.unlink()
    if content is not None:
        stream.path.write_bytes(content)
    for read in (lambda: stream.read(4_000, frames), lambda: list(stream.blocks())):
        with pytest.raises(SignalError, match=r"a\.wav.*(spelling|empty|is damaged)"):
            read()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_refused_in_its_piece_alone(tmp_path: Path, bad: float) -> None:
    samples = _noise(9_000, 2)
    samples[4_000, 1] = bad
    stream = AudioStream(_save(tmp_path / "a.wav", samples, "FLOAT"))
    assert torch.equal(stream.read(0, 4_000), torch.from_numpy(samples[:4_000].T))
    with pytest.raises(SignalError, match=r"NaN or infinite samples, the first at 0\.500 s"):
        stream.read(3_999, 2)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MlassError, match=r'need soundfile .* pip install "mlass-ppl\[sound\]"'):
        audio_info(__file__)
