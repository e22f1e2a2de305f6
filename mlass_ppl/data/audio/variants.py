"""Variants of a folder of songs, with a manifest that tells what they are variants of."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...audio import _libraries
from ...errors import DataError, MlassError, OptionError
from .manifest import Origin, _listed
from .render import MANIFEST
from .vary import check_stem, vary_song

MARK = "~"
"""Stands between the name of a song and the number of its variant."""

_COLUMNS = ("file", "source", "composer", "licence", "song", "md5", "seed")


@dataclass(frozen=True)
class Varied:
    """Names of the variants that were made now and that were there already, of the songs without a
    melody to play as a stem, and of those that failed (with the reason)."""

    new: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def vary_songs(
    songs: Sequence[Origin],
    out: str | Path,
    *,
    variants: int = 2,
    as_stem: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Varied:
    """Write variants of songs, as of `vary_song`, to out/{name}~1.mid, ~2.mid (of melodies that
    play as a piano: ~piano1.mid), and list all in out/manifest.csv for `find_songs`.

    A variant has the source, composer and licence of its song, so that options that hold the one
    out hold out the other. It depends on the seed, the song and the variant's name alone; more of
    them change none. What the manifest lists is kept, so that an interrupted call can be made
    again. A song that fails is told and does not stop the others.

    Raises OptionError on impossible options, DataError where the manifest in `out` is malformed or
    mido is not installed.
    """
    if variants < 1 or seed < 0:
        raise OptionError(
            f"expected variants of 1 and a seed of 0 or more, got {variants}, {seed}."
        )
    check_stem(as_stem)
    _libraries.mido()
    out, report = Path(out), Varied()
    out.mkdir(parents=True, exist_ok=True)
    rows = {file: row for file, row in _listed(out, None).items() if (out / file).is_file()}
    numbers = [f"{MARK}{as_stem or ''}{number}" for number in range(1, variants + 1)]
    try:
        for done, song in enumerate(songs, 1):
            try:
                _vary(song, numbers, as_stem, seed, out, rows, report)
            except (MlassError, OSError) as error:
                report.failed[song.name] = str(error)
            if progress is not None:
                progress(done, len(songs))
    finally:
        _write(out, rows)
    return report


def song_of(name: str) -> str:
    """The name of the song that a variant is of, by its own; a song's own name is its own."""
    return name.rpartition(MARK)[0] or name


def _vary(
    song: Origin,
    numbers: Sequence[str],
    as_stem: str | None,
    seed: int,
    out: Path,
    rows: dict[str, dict[str, str]],
    report: Varied,
) -> None:
    """Make the variants of one song that are not there; adds to the rows and the report."""
    md5 = hashlib.md5(song.path.read_bytes(), usedforsecurity=False).hexdigest()
    facts = (song.source, song.composer, song.licence, song.name, md5, str(seed))
    midi = None
    for name in (song.name + number for number in numbers):
        file = f"{name}.mid"
        row = dict(zip(_COLUMNS, (file, *facts), strict=True))
        if file in rows:
            _check_same(out / file, rows[file], row)
            rows[file] = row
            report.kept.append(name)
            continue
        midi = _read(song.path) if midi is None else midi
        digest = hashlib.sha256(name.encode()).digest()[:8]
        random = np.random.default_rng([seed, int.from_bytes(digest, "big")])
        variant = vary_song(midi, random, as_stem=as_stem)
        if variant is None:
            report.without.append(song.name)
            return
        draft = out / f".{file}.part"
        variant.save(str(draft))
        os.replace(draft, out / file)
        rows[file] = row
        report.new.append(name)


def _read(path: Path) -> Any:
    try:
        midi = _libraries.mido().MidiFile(str(path), clip=True)
        if midi.type == 2 or midi.ticks_per_beat < 1:
            raise ValueError("it is of type 2, or its times are in SMPTE frames")
    except Exception as error:  # mido lets struct, index, key and value errors through
        raise DataError(
            f"'{path}' is missing, damaged or no MIDI file that can be read "
            f"({type(error).__name__}: {error}). Leave it out, or export it again as type 1."
        ) from error
    return midi


def _check_same(path: Path, there: Mapping[str, str], row: Mapping[str, str]) -> None:
    """The origin of a song may be told anew; the song and the seed may not."""
    for key in ("song", "md5", "seed"):
        if there.get(key) != row[key]:
            raise DataError(
                f"'{path}' was made with {key} {there.get(key)}, now it is {row[key]}. Give "
                "another --out, or remove that file to make it again."
            )


def _write(out: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    draft = out / f".{MANIFEST}.part"
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
    os.replace(draft, out / MANIFEST)
