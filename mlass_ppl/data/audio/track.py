"""A song as stems by name, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from ...audio import AudioStream
from ...errors import DataError, SignalError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
"""Endings of the files that stem folders are searched for."""


@dataclass(frozen=True)
class Stem:
    """The sum of one or more sound files that begin together, as of all guitars of a song.

    files: mono streams of known length. Raises DataError when there is no file, or the files have
    several sample rates; SignalError when one does not tell its length.
    """

    files: tuple[AudioStream, ...]

    def __post_init__(self) -> None:
        rates = sorted({file.rate for file in self.files})
        if len(rates) != 1:
            raise DataError(
                f"a stem takes files of one sample rate, got {rates or 'no file'}"
                f"{f' ({self.files[0].path} and others)' if rates else ''}. Resample them."
            )
        for file in self.files:
            if file.frames is None:
                raise SignalError(
                    f"'{file.path}' does not tell how long it is, so that pieces of it cannot be "
                    "asked for. Convert it: ffmpeg -i FILE OUT.flac."
                )

    @classmethod
    def open(cls, paths: Iterable[str | Path]) -> Stem:
        """Read the files' headers; two channels become their mean. Raises as AudioStream does."""
        return cls(tuple(AudioStream(path, mono=True) for path in paths))

    @property
    def rate(self) -> int:
        """In Hz."""
        return self.files[0].rate

    @property
    def frames(self) -> int:
        """Samples of the longest file."""
        return max(file.frames or 0 for file in self.files)

    def read(self, start: int, frames: int) -> Tensor:
        """float32 [frames]; a file that ends earlier is followed by zeros. Raises SignalError."""
        total = torch.zeros(frames)
        for file in self.files:
            inside = min((file.frames or 0) - start, frames)
            if inside > 0:
                total[:inside] += file.read(start, inside)[0]
        return total

    def blocks(self, size: int) -> Iterator[Tensor]:
        """All of it in order, float32 [size], the last maybe shorter; each file is read once.

        Raises SignalError where a file is damaged or ends before it should.
        """
        for parts in zip_longest(*(file.blocks(size) for file in self.files)):
            whole = [part[0] for part in parts if part is not None]
            total = torch.zeros(max(map(len, whole)))
            for part in whole:
                total[: len(part)] += part
            yield total


@dataclass(frozen=True)
class Track:
    """One song (or recording) of a data set.

    stems: by name; a stem that the song lacks is absent, one that is silent may be there.
    split: train, validation or test. source: the collection that the song is from. composer: its
    author, "" where unknown. mixture: the mix that was published with it, if any. notices: one
    sentence for everything that was found wrong with its files.

    Raises DataError when there is no stem, or the stems have several sample rates.
    """

    name: str
    stems: Mapping[str, Stem]
    split: str = "train"
    source: str = ""
    composer: str = ""
    mixture: Stem | None = None
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rates = sorted({stem.rate for stem in self.stems.values()})
        if len(rates) != 1:
            found = f"stems of {' and '.join(map(str, rates))} Hz" if rates else "no stem"
            raise DataError(
                f"track '{self.name}' has {found}; expected one or more stems of one sample rate."
            )

    @property
    def rate(self) -> int:
        """In Hz."""
        return next(iter(self.stems.values())).rate

    @property
    def frames(self) -> int:
        """Samples of the longest stem; shorter ones end in zeros."""
        return max(stem.frames for stem in self.stems.values())

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def read(self, stem: str, start: int = 0, frames: int | None = None) -> Tensor:
        """A piece of one stem, or all of it from `start`: float32 [frames], mono, full scale 1.

        Raises DataError when the track has no such stem; SignalError when the piece reaches outside
        of the track or its file is damaged there.
        """
        if stem not in self.stems:
            raise DataError(
                f"track '{self.name}' has no stem '{stem}'; it has {', '.join(self.stems)}."
            )
        frames = self.frames - start if frames is None else frames
        if start < 0 or frames < 0 or start + frames > self.frames:
            raise SignalError(
                f"track '{self.name}' has {self.frames:,} samples; got a piece of {frames:,} from "
                f"{start:,}. Ask for a piece inside of it."
            )
        return self.stems[stem].read(start, frames)
