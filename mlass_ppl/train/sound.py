"""Stems of a data set as signals to train on: windows at random places, sped up or slowed down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..audio import resample
from ..data.audio import StemDataset, Track, sounding_level
from ..errors import DataError, OptionError, SignalError

Progress = Callable[[int, int], None]

SPEEDS = (0.84, 0.89, 0.94, 1.06, 1.12, 1.19)
"""About three semitones down and up."""

MIX_LEVEL = 0.1
"""RMS that the mixes of songs are brought to where they sound."""

_DECIBELS = 4.0
_PART = 1_024
"""Samples whose level tells whether a stem sounds."""

_SOUNDS = 1e-6
"""Least mean square of a part that sounds: -60 dB."""

_TRIES = 200
_BATCH = 64


@dataclass(frozen=True)
class Pool:
    """Where windows of stems are drawn from.

    tracks: of one split. rate: in Hz; other files are resampled. gains: what a track is multiplied
    by, by its name, 1 where it has none. whole: tracks are recordings, no longer than a window or
    cut to one, and silence follows them; else a window lies inside its track and the stem sounds in
    at least half of it.
    """

    tracks: StemDataset
    rate: int
    gains: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False

    def draw(
        self,
        stem: str,
        number: int,
        samples: int,
        seed: Sequence[int] | int,
        *,
        changed: float = 0.0,
        make: Callable[[Tensor], Tensor] | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """`number` windows of a stem, each by its own draw, so that fewer are the first of them.

        changed: share of the windows that are played faster or slower (`SPEEDS`), up to 4 dB softer
        or louder and, of whole recordings, now and then begun later. make: what becomes of windows
        float32 [B, 1, samples] (default: themselves), so that all of them need not be held; the
        result is of `number` rows. Only what is needed is read.

        Raises DataError where no track has the stem, or it hardly sounds.
        """
        if number < 1 or samples < 1 or not 0 <= changed <= 1:
            raise OptionError(
                "windows need a number and a length of 1 or more and changed in [0, 1], got "
                f"{number}, {samples} and {changed}."
            )
        tracks = self.tracks.with_stems(stem).tracks
        rows: list[Tensor] = []
        parts: list[Tensor] = []
        for which in range(number):
            random = np.random.default_rng(_entropy(seed, stem, which))
            rows.append(self._window(tracks, stem, samples, random, changed))
            if len(rows) == _BATCH or which == number - 1:
                batch = torch.stack(rows)[:, None]
                parts.append(batch if make is None else make(batch))
                rows = []
                if progress is not None:
                    progress(which + 1, number)
        return torch.cat(parts)

    def _window(
        self,
        tracks: Sequence[Track],
        stem: str,
        samples: int,
        random: np.random.Generator,
        changed: float,
    ) -> Tensor:
        frames = np.array([track.frames for track in tracks], float)
        chances = np.full(len(tracks), 1 / len(tracks)) if self.whole else frames / frames.sum()
        for _ in range(_TRIES):
            track = tracks[int(random.choice(len(tracks), p=chances))]
            speed, gain, late = 1.0, self.gains.get(track.name, 1.0), 0.0
            if random.random() < changed:
                speed = float(random.choice(SPEEDS))
                gain *= float(10 ** (random.uniform(-_DECIBELS, _DECIBELS) / 20))
                late = max(0.0, float(random.uniform(-1, 1))) if self.whole else 0.0
            old = max(1, round(track.rate * speed))
            needed = -(-samples * old // self.rate)
            if track.frames < needed and not self.whole:
                continue
            start = int(random.integers(max(1, track.frames - needed + 1)))
            start = 0 if self.whole else start
            found = track.read(stem, start, min(needed, track.frames - start))
            signal = gain * (found if old == self.rate else resample(found, old, self.rate))
            signal = signal[:samples]
            before = int(late * (samples - len(signal)))
            signal = pad(signal, (before, samples - len(signal) - before))
            if self.whole or _sounds(signal):
                return signal
        raise DataError(
            f"'{stem}' hardly sounds in the {len(tracks)} tracks that have it: no window of "
            f"{samples:,} samples at {self.rate:,} Hz in which it does was found in {_TRIES} "
            "draws. Leave it out, or give longer songs."
        )


def level_of(windows: Tensor) -> float:
    """Median of the windows' RMS."""
    return float(windows.flatten(1).square().mean(1).sqrt().median())


def song_gains(
    tracks: StemDataset,
    file: Path,
    level: float = MIX_LEVEL,
    progress: Progress | None = None,
) -> dict[str, float]:
    """What each song is multiplied by so that its mix has the RMS `level` where it sounds.

    As `sounding_level` measures it. file: keeps what was measured, a line a song, so that an
    interruption loses one song. Songs that are silent or damaged have no gain.
    """
    known = _known(file, level)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        for done, track in enumerate(tracks, 1):
            if track.name not in known:
                known[track.name] = _gain(track, level)
                entry = {"track": track.name, "level": level, "gain": known[track.name]}
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
            if progress is not None:
                progress(done, len(tracks))
    return {track.name: gain for track in tracks if (gain := known[track.name]) is not None}


def _known(file: Path, level: float) -> dict[str, float | None]:
    known: dict[str, float | None] = {}
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        try:
            entry = json.loads(line)
            if entry["level"] == level:
                known[entry["track"]] = entry["gain"]
        except (ValueError, KeyError, TypeError):
            continue  # a line that was cut off is measured again
    return known


def _gain(track: Track, level: float) -> float | None:
    try:
        mix = torch.stack([track.read(stem) for stem in track.stems]).sum(0)
    except SignalError:
        return None
    own = sounding_level(mix, track.rate)
    return level / own if own > 0 else None


def _sounds(signal: Tensor) -> bool:
    part = min(_PART, len(signal))
    energy = signal[: len(signal) // part * part].view(-1, part).square().mean(1)
    return bool((energy > _SOUNDS).float().mean() >= 0.5)


def _entropy(seed: Sequence[int] | int, stem: str, which: int) -> list[int]:
    name = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:4], "big")
    return [*([seed] if isinstance(seed, int) else seed), name, which]
