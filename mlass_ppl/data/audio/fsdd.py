"""The Free Spoken Digit Dataset: recordings of six speakers, each a source."""

from __future__ import annotations

import re
from pathlib import Path

from ...audio._libraries import soundfile
from ...errors import DataError
from ..mnist import find_data
from .dataset import StemDataset, collect
from .track import Stem, Track

TEST, VALIDATION = range(5), range(5, 10)
"""Indices of the official test recordings, and of those kept out of all training."""

_NAME = re.compile(r"(\d)_([A-Za-z]+)_(\d+)\.wav")


def fsdd(root: str | Path | None = None) -> StemDataset:
    """Read the recordings `{digit}_{speaker}_{index}.wav` in `root` or `root`/recordings.

    Each is a track with one stem, named after its speaker, of about half a second at 8 kHz. The
    speakers are what is to be told apart, so all of them stand in every split: index 0-4 of each
    digit is the official test split, 5-9 `validation`, the others `train`. `root` defaults to
    $MLASS_DATA/fsdd. Files of other names are told in the notices.

    Raises DataError when there are no recordings or soundfile is not installed.
    """
    folder = Path(root) if root is not None else find_data("fsdd")
    if folder is None:
        raise DataError(
            "the Free Spoken Digit Dataset was not found: give its folder, or set $MLASS_DATA "
            "(then $MLASS_DATA/fsdd). It is at https://github.com/Jakobovski/"
            "free-spoken-digit-dataset"
        )
    soundfile()
    if (folder / "recordings").is_dir():
        folder = folder / "recordings"
    return collect(sorted(folder.glob("*.wav")), _track, f"recording in '{folder}'")


def _track(path: Path) -> Track:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise DataError(f"'{path}' is left out: expected a name like 7_jackson_32.wav.")
    _, speaker, index = match.groups()
    split = "test" if int(index) in TEST else "validation" if int(index) in VALIDATION else "train"
    return Track(path.stem, {speaker: Stem.open([path])}, split=split, source=speaker)
