"""Where a track's stems sound: the level of each of its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import OptionError
from .track import Track

_BLOCK = 1 << 17  # samples held at once, so that the length of a song does not matter


@dataclass(frozen=True)
class Activity:
    """Which chunks of a track count as active.

    stems: that must all sound. seconds: of a chunk. hop: seconds from one chunk's beginning to
    that of the next; None is `seconds`, no overlap. threshold_db: the least level of each stem,
    root mean square over the chunk in dB of full scale. pad: a track shorter than a chunk is one
    chunk, followed by zeros, where it would have none; its level is that of the padded chunk.

    Raises OptionError on impossible values.
    """

    stems: Sequence[str]
    seconds: float = 3.0
    hop: float | None = None
    threshold_db: float = -40.0
    pad: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.stems, str) or not self.stems or len({*self.stems}) < len(self.stems):
            raise OptionError(
                f"Activity(stems=...) takes different names of stems, as ('bass', 'drums'); got "
                f"{self.stems!r}."
            )
        for name, value in (("seconds", self.seconds), ("hop", self.hop)):
            if value is not None and not 0 < value < float("inf"):
                raise OptionError(f"Activity({name}=...) must be above 0 s, got {value}.")
        if not -200 <= self.threshold_db < 0:
            raise OptionError(
                "Activity(threshold_db=...) lies in [-200, 0), dB of full scale; got "
                f"{self.threshold_db}."
            )
        object.__setattr__(self, "stems", tuple(self.stems))

    def frames(self, rate: int) -> int:
        """Samples of a chunk, at least one."""
        return max(1, round(self.seconds * rate))

    def starts(self, track: Track) -> list[int]:
        """First samples of the active chunks. Reads the stems once, block by block.

        Raises SignalError when a file of the track is damaged.
        """
        if not set(self.stems) <= set(track.stems):
            return []
        length = self.frames(track.rate)
        hop = length if self.hop is None else max(1, round(self.hop * track.rate))
        if track.frames >= length:
            starts = np.arange(0, track.frames - length + 1, hop)
        else:
            starts = np.arange(1 if self.pad else 0)
        active = np.ones(len(starts), dtype=bool)
        for stem in self.stems:
            if active.any():
                level = _mean_squares(track, stem, starts, length)
                active &= level >= 10 ** (self.threshold_db / 10)
        return [int(start) for start in starts[active]]


def _mean_squares(track: Track, stem: str, starts: np.ndarray, length: int) -> np.ndarray:
    """float64 [chunks]: of the samples [start, start + length), zeros after the track's end."""
    cuts = np.unique(np.minimum(np.concatenate([starts, starts + length]), track.frames))
    energy = np.zeros(len(cuts))  # between each cut and the next
    start = 0
    for block in track.stems[stem].blocks(_BLOCK):
        squares = block.numpy().astype(np.float64) ** 2
        inside = cuts[(cuts > start) & (cuts < start + len(squares))] - start
        sums = np.add.reduceat(squares, np.concatenate([[0], inside]).astype(np.intp))
        first = int(np.searchsorted(cuts, start, side="right")) - 1
        energy[first : first + len(sums)] += sums
        start += len(squares)
    # Sums of few parts each, not differences of long sums, which would drown a quiet chunk.
    ends = np.minimum(starts + length, track.frames)
    parts = zip(np.searchsorted(cuts, starts), np.searchsorted(cuts, ends), strict=True)
    return np.array([energy[low:high].sum() for low, high in parts]) / length
