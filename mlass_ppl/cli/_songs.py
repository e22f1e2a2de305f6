"""`mlass separate` of sound: song files in, a folder of stems for each out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MlassError, OptionError, SignalError, UnseenToken
from ._common import console, say
from ._kept import clear
from ._songs_bar import song_bar
from ._songs_job import SongJob
from ._songs_options import SongOptions
from ._tracks import FACTS, Track, tracks_for

if TYPE_CHECKING:
    from ..songs import Song, StemFiles

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".m4a", ".aac", ".opus")
"""What is taken for a song in a folder; a file that is named is read whatever its ending."""


class _Taken(OptionError):
    """The place of a song's stems is taken; the other songs' may be free."""


@dataclass
class SongRun:
    job: SongJob
    out: Path
    force: bool
    given: SongOptions
    failed: list[str] = field(default_factory=list)
    written: list[tuple[Track, dict[str, Any]]] = field(default_factory=list)

    def go(self, paths: Sequence[Path]) -> list[str]:
        """Separate all of them. Returns what could not be."""
        if not paths:
            raise OptionError("expected sound files to separate, or folders of them; got none.")
        waiting = []
        for track in tracks_for(self._files(paths), self.out):
            if track.done and not self.force:
                say(f"kept {track.folder} (--force separates it again)")
            else:
                waiting.append(track)
        if waiting:
            with song_bar(len(waiting)) as begin:
                for track in waiting:
                    self._separate(track, begin(track.folder.name))
        self._summary()
        return self.failed

    def _files(self, paths: Sequence[Path]) -> list[Path]:
        files: dict[Path, Path] = {}
        for path in paths:
            try:
                for file in sound_files(path):
                    # what an earlier run wrote into a folder that is given is no mixture
                    if file == path or not (file.parent / FACTS).is_file():
                        files.setdefault(file.resolve(), file)
            except SignalError as error:
                self._fail(path, error)
        return list(files.values())

    def _separate(self, track: Track, at: Any) -> None:
        (file,) = track.files.values()
        try:
            from ..audio import audio_info

            files = self._place(track)
            song = self.job(file, files, at(audio_info(file).rate))
        except (SignalError, UnseenToken, _Taken) as error:
            self._fail(file, error)
            return
        for notice in song.notices:
            say(f"{file}: {notice}", style="yellow")
        self.written.append((track, self._write_facts(track, song, files)))

    def _place(self, track: Track) -> StemFiles:
        """Where a song's stems go. Raises _Taken where something else is there."""
        files = self.given.files(track.folder, force=True)
        try:
            places = files.places(self.job.names)
        except OptionError as error:
            raise _Taken(str(error)) from error
        for place in places.values():
            if place.exists() and not self.force:
                raise _Taken(f"'{place}' exists and is kept; --force replaces it.")
        return files

    def _write_facts(self, track: Track, song: Song, files: StemFiles) -> dict[str, Any]:
        recording = song.recording
        facts = {
            "file": str(track),
            "notices": list(song.notices),
            **self.job.facts,
            "rate": recording.rate,
            "channels": recording.channels,
            "frames": recording.frames,
            "seconds": song.seconds,
            "real_time_factor": song.real_time_factor,
            "clip": files.clip,
            "files": [file.name for file in song.files],
        }
        place = track.folder / FACTS
        before = _listed(place)
        part = place.with_name(f".{FACTS}.part")
        part.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, place)
        clear(track.folder, [name for name in before if name not in facts["files"]])
        return facts

    def _fail(self, what: Path, error: MlassError) -> None:
        self.failed.append(str(what))
        say(f"{type(error).__name__}: {error}", style="red", stderr=True)

    def _summary(self) -> None:
        if self.written:
            from rich.markup import escape
            from rich.table import Table

            table = Table(title=escape(f"{self.job.graph.name}, {self.job.facts['engine']}"))
            table.add_column("written", overflow="fold")
            table.add_column("stems", overflow="fold")
            table.add_column("length", justify="right")
            table.add_column("x real time", justify="right")
            for track, facts in self.written:
                length = facts["frames"] / facts["rate"]
                table.add_row(
                    escape(str(track.folder)),
                    escape(", ".join(self.job.names)),
                    f"{length:.1f} s",
                    f"{facts['real_time_factor']:.2f}",
                )
            console().print(table)
        if self.failed:
            say(f"{len(self.failed)} not separated: {', '.join(self.failed)}", style="red",
                stderr=True)  # fmt: skip


def sound_files(path: Path) -> list[Path]:
    """A file itself, or the sound files in a folder (sorted, with subfolders). Raises SignalError
    where there is none."""
    if path.is_dir():
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in SOUND_SUFFIXES
            and file.is_file()
            and not file.name.startswith(".")
        )
        if not inside:
            raise SignalError(
                f"folder '{path}' holds no sound; expected files ending in "
                f"{', '.join(SOUND_SUFFIXES)}."
            )
        return inside
    if not path.exists():
        raise SignalError(f"there is no file or folder '{path}'. Check its spelling.")
    return [path]


def _listed(facts: Path) -> list[str]:
    """The files that an earlier run wrote, as its facts say."""
    try:
        return [str(name) for name in json.loads(facts.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
