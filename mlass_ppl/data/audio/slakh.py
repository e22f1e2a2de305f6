"""Slakh2100 and BabySlakh as published, and sets rendered in their layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...audio._libraries import soundfile, yaml
from ...errors import DataError, MlassError
from .dataset import StemDataset, collect
from .instruments import CLASSES, instrument_class
from .splits import shared_groups
from .track import AUDIO_SUFFIXES, Stem, Track

METADATA = "metadata.yaml"
SPLITS = ("train", "validation", "test", "omitted")


def slakh(root: str | Path) -> StemDataset:
    """Read a folder in the layout of Slakh2100: [split/]track/{metadata.yaml, stems/S00.flac, ...}.

    Takes Slakh2100 in its published forms, BabySlakh (WAV, no split folders: all of it is `train`)
    and what `mlass data render` writes. Stems of one class are summed, by `inst_class` and else by
    General MIDI program: bass, drums, guitar, piano, other. A class with a file missing or damaged
    is left out of its track with a notice, silent files are kept. Only headers are read.

    Raises DataError when there is no track, or pyyaml or soundfile are not installed.
    Source: Manilow, Wichern, Seetharaman and Le Roux, 2019.
    """
    root = Path(root)
    for library in (yaml, soundfile):  # else every single track would tell
        library()
    marks = (*root.rglob(METADATA), *root.glob("*/stems"), *root.glob("*/*/stems"))
    folders = sorted({path.parent for path in marks if not _hidden(path.relative_to(root))})
    found = collect(folders, _track, f"track with a {METADATA} in '{root}'")
    shared = shared_groups((track, track.split) for track in found)
    if not shared:
        return found
    notice = (
        f"{len(shared)} songs or composers stand in several splits (as '{next(iter(shared))}'): "
        "scores on the test split will flatter. Slakh2100-redux has none, or use with_splits()."
    )
    return replace(found, notices=(*found.notices, notice))


def read_metadata(folder: Path) -> dict[str, Any]:
    """A track's metadata. Raises DataError when they are missing or damaged."""
    path = folder / METADATA
    try:
        facts = yaml().safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml().YAMLError) as error:
        raise DataError(
            f"cannot read '{path}' ({type(error).__name__}): it is missing or damaged. Fetch or "
            "render the track again."
        ) from error
    stems = facts.get("stems") if isinstance(facts, dict) else None
    if not isinstance(stems, dict) or not all(isinstance(stem, dict) for stem in stems.values()):
        raise DataError(f"'{path}' names no stems; expected the metadata of a Slakh track.")
    return dict(facts)


def _track(folder: Path) -> Track:
    facts = read_metadata(folder)
    files: dict[str, list[Path]] = defaultdict(list)
    notices, broken = [], set()
    for key, stem in sorted(facts["stems"].items()):
        name = _class_of(stem)
        path = _audio(folder / "stems" / str(key))
        # The flag of published tracks is not to be trusted where the file is there.
        if path is not None:
            files[name].append(path)
        elif stem.get("audio_rendered"):
            broken.add(name)
            notices.append(f"it has no {name}: the file of its stem {key} is missing.")
    stems = {}
    for name in CLASSES:
        if name in broken or name not in files:
            continue
        try:
            stems[name] = Stem.open(files[name])
        except MlassError as error:
            notices.append(f"it has no {name}: {error}")
    if not stems:
        raise DataError(f"no stem of '{folder}' can be read. {' '.join(notices)}".rstrip())
    mixture, mix = None, _audio(folder / "mix")
    if mix is not None:
        try:
            mixture = Stem.open([mix])
        except MlassError as error:
            notices.append(f"it has no mixture: {error}")
    return Track(
        name=folder.name,
        stems=stems,
        split=folder.parent.name if folder.parent.name in SPLITS else "train",
        source=str(facts.get("source") or facts.get("UUID") or ""),
        composer=str(facts.get("composer") or ""),
        mixture=mixture,
        notices=tuple(notices),
    )


def _class_of(stem: Mapping[str, Any]) -> str:
    name = str(stem.get("inst_class", "")).lower()
    if name in CLASSES:
        return name
    program = stem.get("program_num")
    return instrument_class(program if isinstance(program, int) else -1, bool(stem.get("is_drum")))


def _hidden(path: Path) -> bool:
    """Whether a file belongs to a track that is being rendered, or to no data set at all."""
    return any(part.startswith(".") for part in path.parts)


def _audio(stem: Path) -> Path | None:
    """The file of this name with any ending of audio."""
    paths = (stem.with_name(stem.name + suffix) for suffix in AUDIO_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)
