"""`mlass separate`: files of mixtures in, images or sound, a folder of sources for each out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from ._bytes import MemoryLimit, bytes_from
from ._common import ENGINES, SHAPES, sentences, settle_threads
from ._estimate import Name as Estimate
from ._images import ImageRun
from ._job import make_job
from ._refine import Name as Refine
from ._search import Name, Temperature, TopK, TopP, candidates_for, search_from
from ._songs import SOUND_SUFFIXES, SongRun
from ._songs_job import make_song_job, takes_sound
from ._songs_options import (
    BatchSize,
    Clip,
    Float32,
    Postfilter,
    Residual,
    SongOptions,
    Suffix,
    TwoStems,
)


def separate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Image or sound files and folders of them.")
    ] = None,
    mixture: Annotated[
        list[str] | None,
        typer.Option(
            help="SITE=FILE, once for each observed site of a program that observes several "
            "signals; again for each further mixture."
        ),
    ] = None,
    bundle: Annotated[
        str, typer.Option(help="Name or folder of a bundle; it says whether files are images.")
    ] = "mnist",
    sources: Annotated[
        list[str] | None,
        typer.Option(
            help="Images: the number of sources in each mixture (default: 2). Sound: the names of "
            "the stems, as bass drums (default: all that the bundle has)."
        ),
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(
            help=f"Python file with a mixing program, or {', '.join(SHAPES)} (default: the one "
            "that the engine was made for)."
        ),
    ] = None,
    infer: Annotated[str, typer.Option(help=f"Engine: {', '.join(ENGINES)}.")] = "auto",
    search: Name = "smc",
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Candidates of each mixture, the width of a beam; greedy has one. Default: 64, "
            "for sound 16."
        ),
    ] = None,
    temperature: Temperature = "1",
    top_k: TopK = None,
    top_p: TopP = None,
    keep: Annotated[
        int | None,
        typer.Option(help="Also write this many distinct candidates, the best first, in 1/, 2/..."),
    ] = None,
    estimate: Estimate = "auto",
    refine: Refine = "auto",
    on_unseen: Annotated[
        str | None,
        typer.Option(
            help="Tokens that no table has seen: error (default for images), or prior to skip "
            "them (default for sound)."
        ),
    ] = None,
    memory_limit: MemoryLimit = None,
    two_stems: TwoStems = None,
    residual: Residual = False,
    postfilter: Postfilter = None,
    float32: Float32 = None,
    clip: Clip = None,
    suffix: Suffix = None,
    batch_size: BatchSize = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out/separated"),
    force: Annotated[
        bool, typer.Option("--force", help="Write again what an earlier run finished.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed; a file's result depends on it alone.")] = 0,
) -> None:
    """Separate files into their sources: images of any size, or songs, as the bundle is.

    Every mixture gets a folder below --out with its sources and facts.json. Folders that an earlier
    run finished are kept. A file that cannot be read or separated is reported and does not stop the
    others; the exit code is then 1.

    Images give {source}.png, mixture.png and grid.png. With --keep, the candidates nearest to the
    mixture go to folders 1/, 2/... below the mixture's, as decoded, not refined.

    Sound (WAV, FLAC, OGG, MP3 of any length, rate, mono or stereo) gives {stem}.wav at the song's
    own rate, length and level.
    """
    with sentences():
        settle_threads()
        sound = takes_sound(bundle)
        many = candidates_for(candidates, sound)
        grow = search_from(search, many, temperature, top_k, top_p)
        limit = bytes_from(memory_limit, "--memory-limit")
        given = SongOptions(two_stems, residual, postfilter, float32, clip, suffix, batch_size)
        if sound:
            if mixture or keep is not None:
                raise OptionError(
                    f"--mixture and --keep are for images, and bundle '{bundle}' is of sound."
                )
            songs = make_song_job(
                bundle, sources, program, infer, grow, estimate, refine, on_unseen, seed, limit,
                given,
            )  # fmt: skip
            failed = SongRun(songs, out, force, given).go(paths or [])
        else:
            given.check_unused(bundle)
            number, rest = _number(sources)
            job = make_job(
                bundle, number, program, infer, grow, estimate, refine, on_unseen or "error", seed,
                keep,
            )  # fmt: skip
            for path in paths or []:
                if path.suffix.lower() in SOUND_SUFFIXES:
                    raise OptionError(
                        f"'{path}' is sound, and bundle '{bundle}' is of images. Name a bundle of "
                        "sound with --bundle."
                    )
            job = replace(job, options={**job.options, "memory_limit": limit})
            failed = ImageRun(job, out, force, keep or 0).go([*(paths or []), *rest], mixture or [])
    if failed:
        raise typer.Exit(1)


def _number(sources: list[str] | None) -> tuple[int | None, list[Path]]:
    """The number that `--sources` gives for images, and the files that stand behind it."""
    if not sources:
        return None, []
    try:
        return int(sources[0]), list(map(Path, sources[1:]))
    except ValueError as error:
        raise OptionError(
            f"--sources takes the number of sources of an image, got '{sources[0]}'. Names of "
            "stems are for bundles of sound: name one with --bundle."
        ) from error
