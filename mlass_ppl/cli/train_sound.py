"""`mlass train band` and `mlass train spoken`: bundles of sound, from data to tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._common import progress_bar, say, sentences, settle_threads

Seed = Annotated[int, typer.Option(help="Seed of weights, drawing and mixing.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Run = Annotated[Path, typer.Option(help="Folder of checkpoints and of what is counted so far.")]
Resume = Annotated[bool, typer.Option(help="Go on from what is done.")]
Quick = Annotated[bool, typer.Option(help="A little of everything: a trial.")]


def band(
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of songs in Slakh's layout.")
    ] = None,
    variants: Annotated[
        list[Path],
        typer.Option(help="Folders of variants of these songs, of `mlass data vary`, rendered."),
    ] = [],  # noqa: B006
    stems: Annotated[
        list[str], typer.Option(help="What is told apart (default: bass drums guitar piano).")
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option("--out", "--bundle", help="Folder of the bundle.")] = Path(
        "models/band"
    ),
    seed: Seed = 0,
    device: Device = "auto",
    run: Run = Path("runs/train-band"),
    resume: Resume = True,
    quick: Quick = False,
) -> None:
    """Make a bundle of bands: a codec and a prior for each stem, a codec of mixtures, and tables.

    Each step is kept in --out as soon as it is done; the same command goes on there. With
    --variants each prior has a third pass, mostly over variants; it comes to a finished bundle too.
    """
    with sentences():
        settle_threads()
        from ..train.band import BAND, QUICK, STEMS, make_band

        stems = stems or list(STEMS)
        sizes = QUICK if quick else BAND
        pieces = 1 + bool(variants) + sizes.pieces(len(stems), variants=bool(variants))
        with progress_bar(pieces) as piece:
            make_band(
                out, data_root, variants=variants, stems=stems, sizes=sizes, seed=seed,
                device=device, run=run, resume=resume, piece=piece, told=_told,
            )  # fmt: skip
        say(f"bundle in {out}; see {out / 'README.md'}")


def spoken(
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the Free Spoken Digit Dataset ($MLASS_DATA/fsdd)."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "--bundle", help="Folder of the bundle.")] = Path(
        "models/spoken"
    ),
    seed: Seed = 0,
    device: Device = "auto",
    run: Run = Path("runs/train-spoken"),
    resume: Resume = True,
    quick: Quick = False,
) -> None:
    """Make a bundle of spoken digits like the shipped one: a codec and a prior for each speaker, a
    codec of mixtures, and tables.

    Each step is kept in --out as soon as it is done; the same command goes on there.
    """
    with sentences():
        settle_threads()
        from ..train.spoken import QUICK, SPEAKERS, SPOKEN, make_spoken

        sizes = QUICK if quick else SPOKEN
        with progress_bar(sizes.pieces(len(SPEAKERS))) as piece:
            make_spoken(
                out, data_root, sizes=sizes, speakers=SPEAKERS, seed=seed, device=device, run=run,
                resume=resume, piece=piece, told=_told,
            )  # fmt: skip
        say(f"bundle in {out}; see {out / 'README.md'}")


def _told(step: str, before: bool) -> None:
    say(f"{step}: {'was there' if before else 'done'}")
