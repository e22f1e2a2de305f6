"""Folders of stems, as MUSDB18's: one folder a track, one file a stem."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ...audio._libraries import soundfile
from ...errors import DataError, MlassError
from .dataset import StemDataset, collect
from .track import AUDIO_SUFFIXES, Stem, Track

_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}
_MIXTURES = ("mixture", "mix")


def stem_folders(root: str | Path, stems: Collection[str] | None = None) -> StemDataset:
    """Read every folder of audio files in `root`, or `root` itself, as a track.

    A file's name is its stem's; `mixture` and `mix` are the published mix. A folder train, valid,
    validation or test above a track says its split, else it is `train`. Of a name "Artist - Title"
    the artist is the composer. stems: read only these; tracks with none of them are left out.
    A damaged file is left out of its track with a notice. Only headers are read.

    Raises DataError when there is no track or soundfile is not installed.
    MUSDB18's layout: {train,test}/track/{bass,drums,other,vocals,mixture}.wav (Rafii et al., 2017).
    """
    root = Path(root)
    soundfile()
    folders = sorted({path.parent for path in root.rglob("*") if _is_audio(path)})

    def read(folder: Path) -> Track:
        return _track(folder, root, stems)

    return collect(
        folders, read, f"folder of audio files ({', '.join(AUDIO_SUFFIXES)}) in '{root}'"
    )


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and path.name[0] != "."


def _track(folder: Path, root: Path, wanted: Collection[str] | None) -> Track:
    stems: dict[str, Stem] = {}
    mixture, notices = None, []
    for path in sorted(filter(_is_audio, folder.iterdir())):
        is_mixture = path.stem.lower() in _MIXTURES
        if not is_mixture and wanted is not None and path.stem not in wanted:
            continue
        try:
            stem = Stem.open([path])
        except MlassError as error:
            notices.append(str(error))
            continue
        if is_mixture:
            mixture = stem
        elif path.stem in stems:
            notices.append(f"'{path}' is left out: '{path.stem}' has another file already.")
        else:
            stems[path.stem] = stem
    if not stems:
        asked = f" of {', '.join(wanted)}" if wanted is not None else ""
        raise DataError(f"folder '{folder}' has no stem{asked}. {' '.join(notices)}".rstrip())
    inside = folder.relative_to(root).parts
    artist, dash, _ = folder.name.partition(" - ")
    return Track(
        name="/".join(inside) or folder.resolve().name,
        stems=stems,
        split=next((_SPLITS[part] for part in inside[:-1] if part in _SPLITS), "train"),
        source=root.resolve().name,
        composer=artist if dash else "",
        mixture=mixture,
        notices=tuple(notices),
    )
