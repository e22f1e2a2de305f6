"""Tracks of one data set, and their splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from ...errors import DataError, MlassError
from .splits import hold_out
from .track import Track

_Item = TypeVar("_Item")


@dataclass(frozen=True, repr=False)
class StemDataset:
    """Tracks in a fixed order, each with a name of its own.

    notices: what was left out while the set was read, and why, one sentence each.
    Raises DataError when two tracks share a name.
    """

    tracks: tuple[Track, ...]
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        often = [name for name, n in Counter(t.name for t in self.tracks).items() if n > 1]
        if often:
            raise DataError(
                f"{len(often)} names stand for several tracks ('{often[0]}' and others): give "
                "folders of their own names, or read the sets one by one."
            )

    def __repr__(self) -> str:
        stems = ", ".join(f"{name} {hours:.2f} h" for name, hours in self.hours().items())
        return f"StemDataset({len(self)} tracks; {stems}; {len(self.notices)} notices)"

    def __len__(self) -> int:
        return len(self.tracks)

    def __iter__(self) -> Iterator[Track]:
        return iter(self.tracks)

    def __getitem__(self, which: int | str) -> Track:
        """The track at a place, or of a name. Raises DataError when there is none."""
        if isinstance(which, int):
            if not -len(self) <= which < len(self):
                raise DataError(f"there is no track {which}: the set has {len(self)}.")
            return self.tracks[which]
        for track in self.tracks:
            if track.name == which:
                return track
        raise DataError(f"there is no track '{which}' among the {len(self)} of the set.")

    def hours(self) -> dict[str, float]:
        """Hours of each stem, silence included, by falling length."""
        total: dict[str, float] = defaultdict(float)
        for track in self.tracks:
            for name in track.stems:
                total[name] += track.seconds / 3600
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    def split(self, name: str) -> StemDataset:
        """The tracks of one split. Raises DataError when it is empty."""
        chosen = tuple(track for track in self.tracks if track.split == name)
        if not chosen:
            there = ", ".join(sorted({track.split for track in self.tracks})) or "none"
            raise DataError(f"the set has no split '{name}'; it has {there}.")
        return replace(self, tracks=chosen)

    def with_stems(self, *names: str) -> StemDataset:
        """The tracks that have every one of these stems. Raises DataError when none has."""
        chosen = tuple(track for track in self.tracks if set(names) <= set(track.stems))
        if not chosen:
            raise DataError(
                f"no track has the stems {', '.join(names)}; the set has "
                f"{', '.join(self.hours()) or 'no tracks'}."
            )
        return replace(self, tracks=chosen)

    def with_splits(
        self, *, validation: Collection[str] = (), test: Collection[str] = ()
    ) -> StemDataset:
        """The same tracks, whole sources and composers held out; the others are `train`.

        Raises DataError when a name is no source or composer here, and when a composer, or a source
        whose composers are unknown, would stand in two splits.
        """
        splits = hold_out(self.tracks, validation=validation, test=test)
        return replace(
            self,
            tracks=tuple(
                replace(track, split=split)
                for track, split in zip(self.tracks, splits, strict=True)
            ),
        )


def collect(items: Iterable[_Item], read: Callable[[_Item], Track], what: str) -> StemDataset:
    """Read tracks one by one; those that cannot be read are told in `notices`.

    Raises DataError when not one can be read, with the first reason; `what` was looked for.
    """
    tracks, notices = [], []
    for item in items:
        try:
            track = read(item)
        except MlassError as error:
            notices.append(str(error))
        else:
            tracks.append(track)
            notices += [f"track '{track.name}': {notice}" for notice in track.notices]
    if not tracks:
        raise DataError(f"found no {what}.{f' {notices[0]}' if notices else ''}")
    return StemDataset(tuple(tracks), tuple(notices))
