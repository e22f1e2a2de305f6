"""A sound file as pieces of samples, with its length checked against what its header promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SignalError
from . import _ffmpeg
from ._libraries import soundfile

_BLOCK = 1 << 16  # samples per channel that are read at once
_TAGS = 2048  # bytes that may follow the last sound of an MP3: its tags
_SEEKABLE = ("PCM_", "FLOAT", "DOUBLE")  # encodings in which a seek arrives at the very sample
_ENDLESS = 0x7FFFF000  # a WAV written to a pipe promises 2 or 4 GiB: it could not know better


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file says of itself: samples per second, channels, samples per channel (None
    where only decoding to the end tells), format, as 'WAV', and whether a part can be read without
    what is before it: so in WAV, FLAC and AIFF."""

    rate: int
    channels: int
    frames: int | None
    format: str
    seekable: bool


def audio_info(path: str | Path) -> AudioInfo:
    """Read what a sound file says of itself, not its samples.

    Raises SignalError when the file is missing, empty, cut off, no sound file, or neither mono nor
    stereo.
    """
    path = _file(Path(path))
    with path.open("rb") as handle:
        try:
            with soundfile().SoundFile(handle) as file:
                _check_header(path, file)
                seekable = file.subtype.startswith(_SEEKABLE)
                info = AudioInfo(file.samplerate, file.channels, file.frames, file.format, seekable)
        except soundfile().LibsndfileError as error:
            if not _ffmpeg.available():
                raise _unreadable(path, error) from error
            with _ffmpeg.decoding(path) as pipe:
                info = AudioInfo(pipe.rate, pipe.channels, None, path.suffix[1:].upper(), False)
    if info.channels > 2:
        raise SignalError(
            f"'{path}' holds {info.channels} channels; expected mono or stereo. Mix it down first: "
            "ffmpeg -i FILE -ac 2 OUT.wav."
        )
    if info.frames == 0:
        raise SignalError(f"'{path}' is a {info.format} file without a single sample.")
    return info


def decode(path: Path, info: AudioInfo) -> Iterator[Tensor]:
    """The samples of a file in order, float32 [channels, t], 1 being full scale.

    Raises SignalError on NaN or infinite samples, and where the file ends before it should.
    """
    _file(path)
    start = 0
    for block in _by_libsndfile(path, info) if info.frames is not None else _by_ffmpeg(path):
        yield _checked(path, block, start, info.rate)
        start += len(block)
    if not start:
        raise SignalError(f"'{path}' holds no samples. Copy or download it again.")


def decode_part(path: Path, info: AudioInfo, start: int, frames: int) -> Tensor:
    """The samples [start, start + frames) of a seekable file, float32 [channels, frames], read
    without the others. Raises SignalError as `decode` does for what it reads."""
    try:
        with soundfile().SoundFile(_file(path)) as file:
            file.seek(start)
            block = file.read(frames, dtype="float32", always_2d=True)
    except soundfile().LibsndfileError as error:
        raise _damaged(path, info, start, error) from error
    if len(block) < frames:
        raise _early(path, f"{info.frames:,} samples per channel", f"{start + len(block):,}")
    return _checked(path, block, start, info.rate)


def _by_ffmpeg(path: Path) -> Iterator[np.ndarray]:
    with _ffmpeg.decoding(path) as pipe:
        yield from pipe.pieces


def _by_libsndfile(path: Path, info: AudioInfo) -> Iterator[np.ndarray]:
    read = 0
    try:
        with path.open("rb") as handle, soundfile().SoundFile(handle) as file:
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                read += len(block)
                yield block
            _check_end(path, file, read, handle)
    except soundfile().LibsndfileError as error:
        raise _damaged(path, info, read, error) from error


def _checked(path: Path, block: np.ndarray, start: int, rate: int) -> Tensor:
    """A block [t, channels] as float32 [channels, t], all of it finite."""
    finite = np.isfinite(block)
    if not finite.all():
        first = start + int(np.argmin(finite.all(1)))
        raise SignalError(
            f"'{path}' holds NaN or infinite samples, the first at {first / rate:.3f} s; expected "
            "finite values. Write it again from its source, as 16-bit WAV."
        )
    return torch.from_numpy(np.ascontiguousarray(block.T))


def _check_header(path: Path, file: Any) -> None:
    """libsndfile shortens a file that is cut off to what is there and says so in its log alone."""
    promised = re.search(r"^data *: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if promised and int(promised[2]) < int(promised[1]) < _ENDLESS:
        raise _early(path, f"{int(promised[1]):,} bytes of samples", f"{int(promised[2]):,}")
    if "end-of-stream" in file.extra_info.lower():
        raise _early(path, "a last page", "none")


def _check_end(path: Path, file: Any, read: int, handle: IO[bytes]) -> None:
    # Without a header of its own an MP3 has no length, and libsndfile guesses it from the first
    # frames: a bit high (fine, all is read), or far too low, and then it leaves out the rest.
    mp3 = file.format == "MP3"
    if read < file.frames - (4 * 1152 + file.frames // 200 if mp3 else 0):
        raise _early(path, f"{file.frames:,} samples per channel", f"{read:,}")
    left = path.stat().st_size - handle.tell()
    if mp3 and left > _TAGS:
        raise SignalError(
            f"'{path}' is an MP3 of variable bit rate without a header that tells its length: "
            f"{read:,} samples could be read and {left:,} bytes are left. Write it again: "
            "ffmpeg -i FILE OUT.flac."
        )


def _file(path: Path) -> Path:
    if not path.is_file():
        raise SignalError(f"there is no sound file '{path}'. Check its spelling.")
    if not path.stat().st_size:
        raise SignalError(f"'{path}' is empty (0 bytes). Copy or download it again.")
    return path


def _damaged(path: Path, info: AudioInfo, at: int, error: Any) -> SignalError:
    return SignalError(
        f"'{path}' is damaged or ends early, at sample {at:,} of {info.frames:,} "
        f"({error.error_string}). Copy or download it again."
    )


def _early(path: Path, promised: str, there: str) -> SignalError:
    return SignalError(
        f"'{path}' ends early: it promises {promised}, and {there} can be read. Copy or download "
        "it again, or save what is left of it as a file of its own."
    )


def _unreadable(path: Path, error: Any) -> SignalError:
    return SignalError(
        f"'{path}' is no sound file that libsndfile {soundfile().__libsndfile_version__} can read "
        f"({error.error_string}). It reads WAV, FLAC, AIFF, OGG and (from 1.1 on) MP3. For m4a, "
        "AAC and others install ffmpeg, or convert the file: ffmpeg -i FILE OUT.flac."
    )
