"""Sound files as signals: whole, or as a stream of blocks in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import SignalError
from ._decode import AudioInfo, audio_info, decode, decode_part
from ._levels import Levels
from .resample import resample, resampled, resampled_length
from .segments import Segments


@dataclass(frozen=True)
class Audio:
    """What `read_audio` returns.

    samples: float32 [channels, T], 1 being full scale. rate: their samples per second. info: the
    file's own rate, channels and length. notices: one sentence for everything that was done to the
    samples and for what a listener should know of them.
    """

    samples: Tensor
    rate: int
    info: AudioInfo
    notices: tuple[str, ...]

    def restore(self, signal: Tensor) -> Tensor:
        """A signal [..., T] made from these samples at the file's own rate and exact length."""
        return resample(signal, self.rate, self.info.rate, length=self.info.frames)


class AudioStream:
    """A sound file of any length, read in blocks or piece by piece.

    rate: samples per second to resample to, default the file's own. mono: whether two channels
    become their mean. Attributes `path`, `rate`, `channels`, `frames` (samples per channel at
    `rate`; None where only decoding tells), `info` (an AudioInfo) and `notices`, one sentence for
    each change that this makes. It may be read any number of times.

    WAV, FLAC, OGG and MP3 are read by libsndfile, others by the ffmpeg command where it is on PATH.
    Raises SignalError when the file is missing, empty, cut off, no sound file, or neither mono nor
    stereo; while reading, on NaN and where it is damaged or ends before it should.
    """

    def __init__(self, path: str | Path, *, rate: int | None = None, mono: bool = False) -> None:
        self.path = Path(path)
        self.info = audio_info(self.path)
        self.rate = self.info.rate if rate is None else rate
        self.channels = 1 if mono else self.info.channels
        length = resampled_length(self.info.frames or 1, self.info.rate, self.rate)  # checks rates
        self.frames = None if self.info.frames is None else length
        notices = []
        if self.channels != self.info.channels:
            notices.append("stereo mixed down to mono: the mean of the channels")
        if self.rate != self.info.rate:
            notices.append(f"resampled from {self.info.rate:,} to {self.rate:,} Hz")
        self.notices = tuple(notices)

    def blocks(self, size: int = 1 << 17, overlap: int = 0) -> Iterator[Tensor]:
        """The signal in order, float32 [channels, size], each block sharing `overlap` samples with
        the next (at most half of `size`); the last may be shorter."""
        return (segment.samples for segment in Segments(size, overlap).cut(self._pieces()))

    def read(self, start: int = 0, frames: int | None = None) -> Tensor:
        """The samples [start, start + frames) at `rate`, or all from `start`: float32 [channels,
        frames].

        Costs what the piece costs where `info.seekable` and `rate` is the file's own; else all that
        comes before it is decoded, too, so that it is exactly that piece of the whole. Raises
        SignalError when the piece reaches outside of the file.
        """
        end = start + (frames or 0)
        if not 0 <= start <= end or (self.frames is not None and end > self.frames):
            raise self._outside(start, frames, self.frames)
        if frames == 0 or start == self.frames:
            return torch.zeros(self.channels, 0)
        if self.frames is not None and self.info.seekable and self.rate == self.info.rate:
            length = self.frames - start if frames is None else frames
            return self._mixed(decode_part(self.path, self.info, start, length))
        kept = list(_between(self._pieces(), start, None if frames is None else end))
        found = sum(piece.shape[-1] for piece in kept)
        if found < (frames or 1):
            raise self._outside(start, frames, start + found if found else None)
        return torch.cat(kept, -1)

    def restore(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """A stream of pieces [channels, t] made from these blocks at the file's own rate and, where
        the file tells it, its exact length."""
        return resampled(pieces, self.rate, self.info.rate, length=self.info.frames)

    def _pieces(self, levels: Levels | None = None) -> Iterator[Tensor]:
        return resampled(self._decoded(levels), self.info.rate, self.rate)

    def _decoded(self, levels: Levels | None) -> Iterator[Tensor]:
        for piece in decode(self.path, self.info):
            if levels is not None:
                levels.add(piece)
            yield self._mixed(piece)

    def _mixed(self, piece: Tensor) -> Tensor:
        return piece if len(piece) == self.channels else piece.mean(0, keepdim=True)

    def _outside(self, start: int, frames: int | None, there: int | None) -> SignalError:
        asked = "all" if frames is None else f"a piece of {frames:,}"
        has = "fewer" if there is None else f"{there:,}"
        return SignalError(
            f"'{self.path}' has {has} samples per channel at {self.rate:,} Hz; got {asked} from "
            f"{start:,}. Ask for a piece inside of it."
        )


def read_audio(path: str | Path, *, rate: int | None = None, mono: bool = False) -> Audio:
    """Read a sound file whole; `rate`, `mono` and the errors are those of `AudioStream`."""
    stream, levels = AudioStream(path, rate=rate, mono=mono), Levels()
    samples = torch.cat(list(stream._pieces(levels)), -1)
    info = replace(stream.info, frames=levels.frames)  # counted: some formats do not tell
    return Audio(samples, stream.rate, info, stream.notices + levels.notices())


def _between(pieces: Iterable[Tensor], start: int, stop: int | None) -> Iterator[Tensor]:
    """The samples [start, stop) of a signal that comes in pieces, none where it is shorter."""
    at = 0
    for piece in pieces:
        begin, at = at, at + piece.shape[-1]
        if at > start:
            yield piece[:, max(0, start - begin) : None if stop is None else stop - begin]
        if stop is not None and at >= stop:
            return
