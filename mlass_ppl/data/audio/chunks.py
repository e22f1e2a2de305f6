"""Chunks of fixed length in which every requested stem sounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import DataError, OptionError, SignalError
from ._remembered import Remembered
from .activity import Activity
from .dataset import StemDataset
from .track import Track


@dataclass(frozen=True, repr=False)
class Chunks:
    """Chunks of tracks, as `find_chunks` makes them; a map-style data set for torch's DataLoader.

    places: (number of the track, first sample) of each chunk. notices: tracks that were left out,
    and why, one sentence each. Nothing is kept in memory: a chunk is read when it is asked for.
    """

    tracks: tuple[Track, ...]
    places: tuple[tuple[int, int], ...]
    activity: Activity
    notices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        stems = ", ".join(self.activity.stems)
        return (
            f"Chunks({len(self)} of {self.activity.seconds:g} s with {stems}; {self.hours:.2f} h; "
            f"{len(self.notices)} notices)"
        )

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self[which] for which in range(len(self)))

    def __getitem__(self, which: int) -> dict[str, Tensor]:
        """The stems of one chunk, float32 [frames] each, in the order of `activity.stems`.

        Raises IndexError outside of the set; SignalError when a file is damaged there.
        """
        place, start = self.places[which]
        return self.read(self.tracks[place], start)

    def read(self, track: Track, start: int) -> dict[str, Tensor]:
        """The stems of `track` from sample `start` on, active or not.

        Raises DataError and SignalError as `Track.read` does; a track that is shorter than a chunk
        is followed by zeros where `activity.pad` says so.
        """
        length = self.activity.frames(track.rate)
        if track.frames >= length or not self.activity.pad or start:
            return {stem: track.read(stem, start, length) for stem in self.activity.stems}
        missing = length - track.frames
        return {s: functional.pad(track.read(s), (0, missing)) for s in self.activity.stems}

    @property
    def rate(self) -> int:
        """In Hz, that of all tracks."""
        return self.tracks[0].rate

    @property
    def frames(self) -> int:
        """Samples of each chunk."""
        return self.activity.frames(self.rate)

    @property
    def hours(self) -> float:
        """Of all chunks together; where they overlap, counted as often as they do."""
        return len(self) * self.frames / self.rate / 3600

    def sample(self, number: int, seed: int) -> Chunks:
        """`number` different chunks, drawn by `seed`; a smaller number gives the first of them.

        Raises OptionError when there are not so many.
        """
        if not 1 <= number <= len(self):
            raise OptionError(f"number of chunks must lie in [1, {len(self)}], got {number}.")
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=random)[:number].tolist()
        return replace(self, places=tuple(self.places[which] for which in order))


def find_chunks(
    dataset: StemDataset,
    activity: Activity,
    *,
    remember: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Chunks:
    """Find the chunks of every track in which each of `activity.stems` sounds.

    Reads the stems once, at about a thousand times real time; `remember` names a text file that
    keeps what was found, so that an interruption loses one track and a second call reads none.
    Tracks that are damaged are left out and told in the notices.

    Raises DataError when no chunk is found, tracks have several sample rates, or `remember` is of
    another activity.
    """
    rates = sorted({track.rate for track in dataset})
    if len(rates) > 1:
        raise DataError(
            f"the tracks have several sample rates ({', '.join(map(str, rates))} Hz), which would "
            "make chunks of several lengths. Read one set at a time, or resample."
        )
    kept = Remembered(remember, activity)
    places: list[tuple[int, int]] = []
    notices = []
    for number, track in enumerate(dataset):
        starts = kept.get(track)
        if starts is None:
            try:
                starts = activity.starts(track)
            except SignalError as error:
                notices.append(f"track '{track.name}' is left out: {error}")
                starts = []
            else:
                kept.add(track, starts)
        places += [(number, start) for start in starts]
        if progress is not None:
            progress(number + 1, len(dataset))
    if not places:
        raise DataError(_none_found(dataset, activity, notices))
    return Chunks(dataset.tracks, tuple(places), activity, tuple(notices))


def _none_found(dataset: StemDataset, activity: Activity, notices: list[str]) -> str:
    if notices:
        return f"no chunk was found. {notices[0]}"
    able = [track for track in dataset if set(activity.stems) <= set(track.stems)]
    asked = " and ".join(activity.stems)
    if not able:
        there = ", ".join(dataset.hours()) or "none"
        return f"none of the {len(dataset)} tracks has {asked}; their stems are {there}."
    return (
        f"no chunk of {activity.seconds:g} s was found: {len(able)} of {len(dataset)} tracks have "
        f"{asked}, the longest of {max(track.seconds for track in able):.2f} s. Take shorter "
        f"chunks, a threshold below {activity.threshold_db:g} dB, or pad=True for short tracks."
    )
