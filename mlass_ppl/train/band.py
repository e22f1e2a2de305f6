"""The recipe of the bundle of bands: stems of rendered or recorded songs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..bundle import Bundle
from ..codecs import AudioVQConfig
from ..data.audio import StemDataset, slakh
from ..errors import DataError, OptionError
from .make_refiner import Piece
from .sound import Pool, Progress, song_gains
from .sound_parts import Made
from .sound_recipe import make_sound
from .sound_sizes import SoundSizes
from .variants import variant_pools

RATE = 22_050
STEMS = ("bass", "drums", "guitar", "piano")

BAND = SoundSizes()
"""Sizes of the shipped bundle."""

_SMALL = AudioVQConfig(samples=8_192, alphabet=64, features=8, width=16, blocks=1)
QUICK = SoundSizes(
    stem=_SMALL, mixture=_SMALL, segment=8_192, segments=48, mixed=48, fitted=48, width=16,
    layers=1, heads=2, windows=16, more=16, varied=16, signals=8, mixtures=16, sources=(3,),
)  # fmt: skip
"""A trial of everything."""


def band_pools(
    data_root: Path | None,
    rate: int = RATE,
    run: Path = Path("runs/train-band"),
    progress: Progress | None = None,
) -> tuple[Pool, Pool]:
    """Training and validation songs in Slakh's layout, each brought to an RMS of 0.1 of its mix.

    run: folder where what was measured of the songs is kept. A set without a validation split keeps
    its last tenth of the songs, one at least, for it. Songs that are silent or damaged are left
    out. Raises DataError where there are none, and fewer than two songs to share.
    """
    if data_root is None:
        raise OptionError("give --data-root, a folder of songs in Slakh's layout.")
    train, held = _splits(slakh(data_root))
    both = StemDataset((*train, *held))
    gains = song_gains(both, run / "gains.jsonl", progress=progress)
    parts = [
        replace(part, tracks=tuple(track for track in part if track.name in gains))
        for part in (train, held)
    ]
    if not all(map(len, parts)):
        raise DataError(f"all songs of a split in '{data_root}' are silent or damaged.")
    return Pool(parts[0], rate, gains), Pool(parts[1], rate, gains)


def _splits(found: StemDataset) -> tuple[StemDataset, StemDataset]:
    """Songs to train on and songs to validate with; never those of the test split."""
    train = found.split("train")
    if any(track.split == "validation" for track in found):
        return train, found.split("validation")
    held = max(1, len(train) // 10)
    if len(train) <= held:
        raise DataError("one song cannot be both trained on and validated with: give more.")
    return replace(train, tracks=train.tracks[:-held]), replace(train, tracks=train.tracks[-held:])


def make_band(
    out: Path,
    data_root: Path | None = None,
    *,
    variants: Sequence[Path] = (),
    stems: Sequence[str] = STEMS,
    sizes: SoundSizes = BAND,
    seed: int = 0,
    device: str = "auto",
    run: Path = Path("runs/train-band"),
    resume: bool = True,
    piece: Piece | None = None,
    told: Callable[[str, bool], None] | None = None,
) -> Bundle:
    """Make the bundle of bands in `out` from songs in Slakh's layout, as `make_sound` does.

    Songs are drawn from as they are needed: what is held at once are the segments of one codec or
    the tokens of one prior. variants: folders of variants of these songs (`variant_pools`), which
    give each prior a third pass; a bundle that is finished without them goes on with that.

    Raises DataError where no song, or no variant, has a stem, OptionError on fewer than two stems,
    and the errors of `make_sound`.
    """
    if len({*stems}) < 2 or len({*stems}) < len(stems):
        raise OptionError(f"a band has two or more different stems, got {list(stems)}.")
    rate = sizes.stem.sample_rate
    measured = None if piece is None else piece("measuring songs")
    train, held = band_pools(data_root, rate, run, measured)
    for stem in stems:
        train.tracks.with_stems(stem), held.tracks.with_stems(stem)
    hours = sum(track.seconds for track in train.tracks) / 3600
    facts = {
        "title": "Songs of bands",
        "command": f"mlass train band --data-root DIR{' --variants DIR' * len(variants)} --stems "
        f"{' '.join(stems)} --out models/{out.name}",
        "data_set": "slakh",
        "data": f"{len(train.tracks)} songs ({hours:.1f} h) in Slakh's layout, "
        f"{len(held.tracks)} more to validate with; each at an RMS of 0.1 of its mix where it "
        "sounds; the test split was not looked at",
        "licence": "Weights and tables: MIT, as the library. No recording is in this folder; the "
        "songs that it was made of have licences of their own.",
    }
    made = Made(out, train, held, tuple(stems), sizes, facts, seed, device, run, resume)
    if variants:
        measured = None if piece is None else piece("measuring variants")
        made = _with_variants(made, data_root, variants, measured)
    return make_sound(made, piece=piece, told=told)


def _with_variants(
    made: Made, data_root: Path | None, folders: Sequence[Path], progress: Progress | None
) -> Made:
    assert data_root is not None
    songs, rate = slakh(data_root), made.train.rate
    train, held = variant_pools(
        folders, songs, made.train.tracks, made.held.tracks, rate, made.run, progress
    )
    there = train.tracks.hours()
    if lacking := [stem for stem in made.stems if stem not in there]:
        raise DataError(
            f"the variants to train on have {', '.join(there)} and lack {', '.join(lacking)}. Give "
            "more --variants, with all that is told apart."
        )
    hours = sum(track.seconds for track in train.tracks) / 3600
    count = 0 if held is None else len(held.tracks)
    told = f"{len(train.tracks)} of songs that are trained on ({hours:.1f} h), "
    told += f"{count} of validation songs"
    return replace(made, facts={**made.facts, "variants": told}, variants=train, held_variants=held)
