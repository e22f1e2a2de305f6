"""A text file that remembers active chunks, so that a data set is read through only once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import DataError
from .activity import Activity
from .track import Track


class Remembered:
    """One line a track, below a line with the activity that was looked for; or nothing at all.

    A track whose files have changed in size is looked at again. A line that an interruption cut off
    is dropped. Raises DataError when the file is of another activity or no such file.
    """

    def __init__(self, path: str | Path | None, activity: Activity) -> None:
        self._path = None if path is None else Path(path)
        self._starts: dict[str, tuple[int, list[int]]] = {}
        if self._path is None:
            return
        head = json.dumps({"activity": asdict(activity)})
        if self._path.is_file():
            first, *lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
            if first != head:
                raise DataError(
                    f"'{self._path}' was made for another activity, or is no record of active "
                    "chunks. Give another file for this one."
                )
            for line in lines:
                self._take(line)
        # Written again without what was cut off, so that the next line begins on its own.
        lines = [head, *(_line(name, *found) for name, found in self._starts.items())]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.part")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(self._path)

    def _take(self, line: str) -> None:
        try:
            entry: dict[str, Any] = json.loads(line)
            found = int(entry["bytes"]), [int(start) for start in entry["starts"]]
            self._starts[str(entry["track"])] = found
        except (ValueError, KeyError, TypeError):
            return

    def get(self, track: Track) -> list[int] | None:
        """The active chunks of a track, or None where they are not known."""
        size, starts = self._starts.get(track.name, (-1, []))
        return starts if size == _bytes(track) else None

    def add(self, track: Track, starts: list[int]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(track.name, _bytes(track), starts) + "\n")


def _line(name: str, size: int, starts: list[int]) -> str:
    return json.dumps({"track": name, "bytes": size, "starts": starts})


def _bytes(track: Track) -> int:
    files = (file for stem in track.stems.values() for file in stem.files)
    return sum(file.path.stat().st_size for file in files)
