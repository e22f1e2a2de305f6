"""`mlass train continue`: a trained prior trained on, on augmented images and with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._common import say, sentences, settle_threads


def continued(
    out: Annotated[Path, typer.Option("--out", "--bundle", help="Folder of the bundle.")] = Path(
        "models/mnist"
    ),
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of MNIST's idx files ($MLASS_DATA).")
    ] = None,
    prior: Annotated[str, typer.Option(help="Key of the prior in the bundle.")] = "digit",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 16,
    rate: Annotated[float, typer.Option(help="Learning rate at its highest.")] = 1e-3,
    augmented: Annotated[float, typer.Option(help="Share of the images augmented.")] = 0.6,
    labelled: Annotated[float, typer.Option(help="Share of the rows with their class.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Seed of order, dropout and augmentation.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    run: Annotated[Path, typer.Option(help="Folder of the checkpoints, one an epoch.")] = Path(
        "runs/train-continued"
    ),
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint there.")] = True,
) -> None:
    """Train the bundle's prior on: MNIST's digits as they are and slightly turned, scaled and
    moved, some of them with their class.

    A prior without classes learns them first. The bundle's weights and card are replaced; the
    tables stay as they are.
    """
    with sentences():
        settle_threads()
        from ..train.continue_digits import continue_digits

        bundle = continue_digits(
            out,
            data_root,
            key=prior,
            epochs=epochs,
            rate=rate,
            augmented=augmented,
            labelled=labelled,
            seed=seed,
            device=device,
            run=run,
            resume=resume,
        )
        facts = bundle.card["priors"][prior]["continued"][-1]
        before, after = facts["before"], facts["after"]
        for name, key in (("without the class", "validation_nats"), ("given it", "label_nats")):
            say(
                f"prior {name}: {before[key]:.3f} nats a token on the validation images before, "
                f"{after[key]:.3f} after"
            )
        say(f"in {out}")
