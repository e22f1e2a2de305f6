"""The result of separating a song: stems to listen to, to look at and to save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..audio import write_stems
from ..audio._player import player, players_html
from ..audio.write import Clip, Encoding
from ..errors import OptionError, SignalError
from .recording import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLAYED = 30.0
"""Seconds of each stem that a notebook holds: it keeps every one of them in its file."""


@dataclass(frozen=True, repr=False)
class Song:
    """A song taken apart.

    stems: {name: float32 [channels, T]} in the song's own scale, at its rate and of its length;
    where they were written to `files` while they came, they are read from there. recording: what
    was separated. seconds: wall time, reading and writing included. settings: engine, search,
    post-filter, bundle, seed. notices: what was done to the sound, and what went otherwise than
    asked.
    """

    stems: Mapping[str, Tensor]
    recording: Recording
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def __getitem__(self, stem: str) -> Tensor:
        """A stem [channels, T]."""
        if stem not in self.stems:
            raise OptionError(f"no stem '{stem}' here; there are {', '.join(self.stems)}.")
        return self.stems[stem]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stems)

    def __len__(self) -> int:
        return len(self.stems)

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self.recording.rate

    @property
    def mixture(self) -> Tensor:
        """The song as it was, [channels, T]. Raises SignalError where it was read from a file that
        is no longer there."""
        try:
            return self.recording.samples()
        except SignalError as error:
            raise SignalError(
                f"{error} A song reads its mixture from the file that it was separated from; its "
                "stems are here all the same."
            ) from error

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for each second of sound: below 1 is faster than it plays."""
        return self.seconds / self.recording.seconds

    def save(
        self,
        directory: str | Path,
        *,
        suffix: str = ".wav",
        encoding: Encoding | None = None,
        clip: Clip = "rescale",
        force: bool = False,
    ) -> tuple[str, ...]:
        """Write the stems to `directory`/{stem}`suffix`, as `mlass_ppl.audio.write_stems` does.
        Returns a sentence on what was done to them, if anything."""
        options: dict[str, Any] = {"suffix": suffix, "encoding": encoding}
        return write_stems(directory, self.stems, self.rate, **options, clip=clip, force=force)

    def play(self, stem: str | None = None, *, start: float = 0.0, seconds: float = _PLAYED) -> Any:
        """A player of a stem, or of the mixture, for a notebook: an `IPython.display.Audio` of at
        most `seconds` from `start`. What is beyond full scale is turned down to it."""
        signal = self.mixture if stem is None else self[stem]
        first = round(start * self.rate)
        last = first + max(1, round(seconds * self.rate))
        if not 0 <= first < signal.shape[-1]:
            raise OptionError(
                f"start is from 0 to {self.recording.seconds:.2f} s, the song's end; got {start!r}."
            )
        return player(signal[:, first:last], self.rate)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Spectrograms of the mixture and its stems (matplotlib), also written to `path`."""
        from ..draw import draw_spectrograms

        return draw_spectrograms({"mixture": self.mixture, **self.stems}, self.rate, path=path)

    def _repr_html_(self) -> str:
        """Players of the mixture and of each stem, the first half minute of them."""
        last = round(_PLAYED * self.rate)
        signals = {"mixture": self.mixture[:, :last]}
        # Copies: a piece would keep the whole of what was read from a file.
        signals |= {name: self[name][:, :last].clone() for name in self}
        return players_html(repr(self), signals, self.rate)

    def __repr__(self) -> str:
        made = ", ".join(
            f"{key}={value if isinstance(value, str) else repr(value)}"
            for key, value in self.settings.items()
        )
        song = self.recording
        channels = "stereo" if song.channels == 2 else "mono"
        lines = [
            f"Song {song.name}: {', '.join(self)}",
            f"  {song.seconds:.2f} s, {song.rate:,} Hz, {channels}",
            f"  {made}",
            f"  separated in {self.seconds:.1f} s (real-time factor {self.real_time_factor:.2f})",
        ]
        return "\n".join([*lines, *(f"  notice: {notice}" for notice in self.notices)])
