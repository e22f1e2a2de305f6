"""`mlass train`: a codec, a prior (and on), alphabets, a refiner, or a whole bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._common import say, sentences, settle_threads
from ._variadic import VariadicCommand
from .train_continued import continued
from .train_refiner import refiner
from .train_sound import band, spoken

train = typer.Typer(help="Train the parts of a bundle.", no_args_is_help=True)
train.command(cls=VariadicCommand)(refiner)
train.command("continue")(continued)
train.command(cls=VariadicCommand)(band)
train.command()(spoken)

Out = Annotated[Path, typer.Option("--out", "--bundle", help="Folder of the bundle.")]
Root = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of MNIST's idx files ($MLASS_DATA).")
]
Seed = Annotated[int, typer.Option(help="Seed of weights, order and mixing.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Run = Annotated[Path, typer.Option(help="Folder of the checkpoints, one an epoch.")]
Resume = Annotated[bool, typer.Option(help="Go on from the newest checkpoint there.")]


@train.command()
def codec(
    out: Out = Path("models/mnist"),
    data_root: Root = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 8,
    alphabet: Annotated[int, typer.Option(help="Number of codes K.")] = 256,
    seed: Seed = 0,
    device: Device = "auto",
    run: Run = Path("runs/train-codec"),
    resume: Resume = True,
) -> None:
    """Train the image codec on MNIST's digits and mixtures of them; makes a new bundle."""
    with sentences():
        from ..codecs import ImageVQVAEConfig
        from ..train.digits import make_codec

        bundle = make_codec(
            out,
            data_root,
            epochs=epochs,
            config=ImageVQVAEConfig(alphabet=alphabet),
            seed=seed,
            device=device,
            run=run,
            resume=resume,
        )
        say(f"codec: {bundle.card['codec']['psnr_db']:.2f} dB on the validation images; in {out}")


@train.command()
def prior(
    out: Out = Path("models/mnist"),
    data_root: Root = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 10,
    seed: Seed = 0,
    device: Device = "auto",
    run: Run = Path("runs/train-prior"),
    resume: Resume = True,
) -> None:
    """Train the digits' prior on the tokens of the bundle's codec."""
    with sentences():
        from ..train.digits import make_prior

        bundle = make_prior(
            out, data_root, epochs=epochs, seed=seed, device=device, run=run, resume=resume
        )
        nats = bundle.card["priors"]["digit"]["validation_nats"]
        say(f"prior: {nats:.3f} nats a token on the validation images; in {out}")


@train.command()
def alphabets(
    out: Out = Path("models/mnist"),
    data_root: Root = None,
    middle: Annotated[int, typer.Option(help="Codes K for partial mixtures.")] = 512,
    fine: Annotated[int, typer.Option(help="Codes K for observed mixtures.")] = 2048,
    seed: Annotated[int, typer.Option(help="Seed of mixing and k-means.")] = 0,
) -> None:
    """Fit the larger alphabets of mixtures, the codecs `middle` and `fine`, into a bundle.

    Tables for them are counted as for any program that names them: `mlass count --program FILE`.
    """
    with sentences():
        settle_threads()
        from ..train.alphabets import make_alphabets

        bundle = make_alphabets(out, data_root, middle=middle, fine=fine, seed=seed)
        for key in ("middle", "fine"):
            facts = bundle.card["codecs"][key]
            say(
                f"{key}: {facts['alphabet']} codes, {facts['psnr_db']:.2f} dB on mixtures of "
                "validation images"
            )


@train.command()
def mnist(
    out: Out = Path("models/mnist"),
    data_root: Root = None,
    seed: Seed = 0,
    device: Device = "auto",
    run: Run = Path("runs/train-mnist"),
    resume: Resume = True,
    quick: Annotated[bool, typer.Option(help="One epoch each and few counts: a trial.")] = False,
) -> None:
    """Make a digit bundle like the shipped one: codec, prior, the published models' tables, classes
    and more epochs for the prior, alphabets and tables of mixtures, refiner.

    Each step is kept in --out as soon as it is done; the same command goes on there.
    """
    with sentences():
        settle_threads()
        from ..train.recipe import QUICK, Sizes, make_digits
        from ._common import progress_bar

        sizes = QUICK if quick else Sizes()
        with progress_bar(sizes.pieces) as piece:
            make_digits(
                out,
                data_root,
                sizes=sizes,
                seed=seed,
                device=device,
                run=run,
                resume=resume,
                piece=piece,
                told=lambda step, before: say(f"{step}: {'was there' if before else 'done'}"),
            )
        say(f"bundle in {out}; see {out / 'README.md'}")
