"""Which mixtures are made of a data set of sound, kept so that a second run makes the same ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...audio import resample
from ...data.audio import Activity, StemDataset, Track, find_chunks, levelled
from ...errors import DataError, OptionError
from .batch import Origin

Progress = Callable[[int, int], None]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Cut:
    """What every mixture is cut to: `samples` at `rate` Hz; `threshold_db` the least level of each
    stem of a song, as of `Activity`."""

    samples: int
    rate: int
    threshold_db: float = -40.0

    def fitted(self, signal: Tensor, rate: int) -> Tensor:
        """A signal [t] of `rate` Hz at this rate, followed by zeros or cut off: [samples]."""
        if rate != self.rate:
            signal = resample(signal, rate, self.rate)
        return pad(signal, (0, max(0, self.samples - len(signal))))[: self.samples]


class Selection(Protocol):
    """The mixtures of some stems; `origins` says what each one is made of."""

    @property
    def origins(self) -> Sequence[Origin]: ...

    def read(self, which: int) -> Tensor:
        """The stems of one mixture, float32 [n, samples]. Raises SignalError where a file is
        damaged."""
        ...


Select = Callable[
    [StemDataset, Sequence[str], Cut, int, int, Path, Progress | None, Notice], Selection
]
"""Selects `num` mixtures of stems by a seed: (tracks, stems, cut, num, seed, file that keeps the
selection, progress over tracks, notice). A smaller num gives the first of them."""


@dataclass(frozen=True)
class SongChunks:
    """Chunks of songs; an origin is the song's name and the first sample."""

    tracks: StemDataset
    stems: tuple[str, ...]
    cut: Cut
    origins: tuple[Origin, ...]

    def read(self, which: int) -> Tensor:
        name, start = self.origins[which]
        track = self.tracks[str(name)]
        length = round(self.cut.samples / self.cut.rate * track.rate)
        parts = [track.read(stem, int(start), length) for stem in self.stems]
        return torch.stack([self.cut.fitted(part, track.rate) for part in parts])


def song_chunks(
    tracks: StemDataset,
    stems: Sequence[str],
    cut: Cut,
    num: int,
    seed: int,
    file: Path,
    progress: Progress | None,
    notice: Notice,
) -> SongChunks:
    """`num` chunks, without overlap, in which every one of `stems` sounds, drawn by `seed`.

    Raises DataError where there is no such chunk, OptionError where there are fewer than `num`.
    """
    if (kept := _kept(file)) is None:
        activity = Activity(stems, cut.samples / cut.rate, threshold_db=cut.threshold_db)
        found = find_chunks(
            tracks.with_stems(*stems),
            activity,
            remember=file.with_suffix(".txt"),
            progress=progress,
        )
        for line in found.notices:
            notice(line)
        _check_number(num, len(found), f"chunks in which {' and '.join(stems)} sound")
        chosen = found.sample(num, seed)
        kept = tuple((found.tracks[place].name, start) for place, start in chosen.places)
        _keep(file, kept)
    return SongChunks(tracks, tuple(stems), cut, kept)


@dataclass(frozen=True)
class Recordings:
    """One whole recording of each speaker, all at one level; an origin is their names."""

    tracks: StemDataset
    speakers: tuple[str, ...]
    cut: Cut
    origins: tuple[Origin, ...]

    def read(self, which: int) -> Tensor:
        parts = []
        for name, speaker in zip(self.origins[which], self.speakers, strict=True):
            track = self.tracks[str(name)]
            signal = levelled(track.read(speaker), track.rate)
            parts.append(self.cut.fitted(signal, track.rate))
        return torch.stack(parts)


def recordings(
    tracks: StemDataset,
    stems: Sequence[str],
    cut: Cut,
    num: int,
    seed: int,
    file: Path,
    progress: Progress | None,
    notice: Notice,
) -> Recordings:
    """`num` different combinations of one recording of each of the speakers `stems`, at one level,
    drawn by `seed`; shorter ones are followed by silence, longer ones than the cut are left out.

    Raises DataError where a speaker has no recording, OptionError where there are fewer than `num`
    combinations.
    """
    if (kept := _kept(file)) is None:
        named = [_names(tracks, speaker, cut, notice) for speaker in stems]
        _check_number(num, prod(map(len, named)), "combinations of recordings")
        random, chosen = np.random.default_rng(seed), dict[Origin, None]()
        while len(chosen) < num:
            places = random.integers(0, [len(each) for each in named])
            chosen[tuple(each[place] for each, place in zip(named, places, strict=True))] = None
        kept = tuple(chosen)
        _keep(file, kept)
    return Recordings(tracks, tuple(stems), cut, kept)


def _names(tracks: StemDataset, speaker: str, cut: Cut, notice: Notice) -> list[str]:
    def fits(track: Track) -> bool:
        return track.frames * cut.rate <= cut.samples * track.rate

    own = tracks.with_stems(speaker)
    names = [track.name for track in own if fits(track)]
    seconds = cut.samples / cut.rate
    if not names:
        raise DataError(f"no recording of '{speaker}' is as short as {seconds:.2f} s.")
    if len(names) < len(own):
        notice(
            f"{len(own) - len(names)} of {len(own)} recordings of '{speaker}' are longer than "
            f"{seconds:.2f} s and left out."
        )
    return names


def _check_number(num: int, there: int, what: str) -> None:
    if num > there:
        raise OptionError(
            f"{num:,} mixtures were asked for, but there are {there:,} {what}. Ask for fewer with "
            "--num."
        )


def _kept(file: Path) -> tuple[Origin, ...] | None:
    """The selection of an earlier run, None where there is none."""
    if not file.is_file():
        return None
    try:
        return tuple(tuple(origin) for origin in json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"'{file}' is no selection of mixtures ({error}). Start over in a new --run-dir."
        ) from error


def _keep(file: Path, origins: Sequence[Origin]) -> None:
    draft = file.with_name(f"{file.name}.part")
    lines = ",\n".join(json.dumps(origin) for origin in origins)
    draft.write_text(f"[\n{lines}\n]\n", "utf-8")
    draft.replace(file)
