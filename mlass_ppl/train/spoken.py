"""The recipe of the bundle of spoken digits: six speakers of the Free Spoken Digit Dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..bundle import Bundle
from ..codecs import AudioVQConfig
from ..data.audio import StemDataset, fsdd, sounding_level
from .make_refiner import Piece
from .sound import Pool
from .sound_parts import Made
from .sound_recipe import make_sound
from .sound_sizes import SoundSizes

RATE = 8_000
_LEVEL = 0.05
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

_STEM = AudioVQConfig(
    samples=8_192, sample_rate=RATE, hop=64, alphabet=512, latent=32, features=13,
    width=48, blocks=2,
)  # fmt: skip

SPOKEN = SoundSizes(
    stem=_STEM, mixture=_STEM, segment=8_192, segments=3_000, mixed=4_800, fitted=3_000,
    width=112, layers=3, heads=4, windows=3_200, more=9_600, signals=3_000, sources=(),
    min_std=0.005,
)  # fmt: skip
"""Sizes of the shipped bundle."""

_SMALL = replace(_STEM, alphabet=32, features=8, width=8, blocks=1)
QUICK = replace(
    SPOKEN, stem=_SMALL, mixture=_SMALL, segments=24, mixed=24, width=16, layers=1, heads=2,
    windows=16, more=16, signals=16,
)  # fmt: skip
"""A trial of everything."""

_FACTS = {
    "title": "Spoken digits of six speakers",
    "command": "mlass train spoken --data-root FSDD --out models/spoken",
    "data_set": "fsdd",
    "data": "Free Spoken Digit Dataset (Z. Jackson and others), six speakers, 8 kHz: recordings 10 "
    "and above of each digit are trained on, 5 to 9 are validation, 0 to 4, the official test "
    "split, were not looked at",
    "licence": "Weights and tables: MIT, as the library. The recordings of the Free Spoken Digit "
    "Dataset (https://github.com/Jakobovski/free-spoken-digit-dataset) are CC BY-SA 4.0; none of "
    "them is in this folder.",
}


def spoken_pools(data_root: Path | None = None) -> tuple[Pool, Pool]:
    """Training and validation recordings, each a window followed by silence, all at one level.
    Raises DataError where there are none."""
    found = fsdd(data_root)
    train, held = (found.split(split) for split in ("train", "validation"))
    return Pool(train, RATE, _gains(train), whole=True), Pool(held, RATE, _gains(held), whole=True)


def _gains(tracks: StemDataset) -> dict[str, float]:
    levels = {t.name: sounding_level(t.read(next(iter(t.stems))), t.rate) for t in tracks}
    return {name: _LEVEL / level for name, level in levels.items() if level > 0}


def make_spoken(
    out: Path,
    data_root: Path | None = None,
    *,
    sizes: SoundSizes = SPOKEN,
    speakers: tuple[str, ...] = SPEAKERS,
    seed: int = 0,
    device: str = "auto",
    run: Path = Path("runs/train-spoken"),
    resume: bool = True,
    piece: Piece | None = None,
    told: Callable[[str, bool], None] | None = None,
) -> Bundle:
    """Make the bundle of spoken digits in `out`, as `make_sound` does. Raises DataError where a
    speaker has no recordings, and the errors of `make_sound`."""
    train, held = spoken_pools(data_root)
    made = Made(out, train, held, speakers, sizes, _FACTS, seed, device, run, resume)
    return make_sound(made, piece=piece, told=told)
