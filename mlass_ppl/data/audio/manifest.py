"""Where the songs of a folder come from: a CSV file, or the folders that they lie in."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError

MIDI_SUFFIXES = (".mid", ".midi", ".kar")


@dataclass(frozen=True)
class Origin:
    """A song's file, a name of its own, and where it is from ("" where unknown)."""

    path: Path
    name: str
    source: str
    composer: str = ""
    licence: str = ""


def find_songs(folder: str | Path, manifest: str | Path | None = None) -> list[Origin]:
    """The MIDI files below a folder, sorted, with their origin.

    manifest: a CSV file with the columns `file` (relative to the folder) and `source`, and maybe
    `composer` and `licence`; by default manifest.csv in the folder, if any. A song that is not
    listed is from the first folder on its path, or from `folder` itself. A song's name is its path
    with _ for /.

    Raises DataError when there is no song, the manifest is malformed or lists a file that is not
    there, or two songs would share a name.
    """
    folder = Path(folder)
    listed = _listed(folder, manifest)
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in MIDI_SUFFIXES or not path.is_file():
            continue
        inside = path.relative_to(folder)
        row = listed.pop(inside.as_posix(), {})
        name = "_".join(inside.with_suffix("").parts)
        source = row.get("source") or (inside.parts[0] if len(inside.parts) > 1 else folder.name)
        facts = (row.get("composer") or "", row.get("licence") or "")
        found.append(Origin(path, name, source, *facts))
    if listed:
        raise DataError(
            f"the manifest lists {len(listed)} files that are not in '{folder}', as "
            f"'{next(iter(listed))}'. Paths in it are relative to the folder."
        )
    if not found:
        raise DataError(f"there is no MIDI file ({', '.join(MIDI_SUFFIXES)}) below '{folder}'.")
    names = [song.name.lower() for song in found]
    twice = [song.name for song in found if names.count(song.name.lower()) > 1]
    if twice:
        raise DataError(f"{len(twice)} songs would share names, as '{twice[0]}'. Rename the files.")
    return found


def _listed(folder: Path, manifest: str | Path | None) -> dict[str, dict[str, str]]:
    path = Path(manifest) if manifest is not None else folder / "manifest.csv"
    if manifest is None and not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read the manifest '{path}' ({error}).") from error
    for row in rows:
        if not row.get("file") or not row.get("source"):
            raise DataError(
                f"every line of the manifest '{path}' needs the columns file and source; "
                f"got {dict(list(row.items())[:4])}."
            )
    return {row["file"]: row for row in rows}
