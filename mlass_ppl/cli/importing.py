"""`mlass import`: published checkpoints of other works into bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from ._common import say, sentences, settle_threads
from ._variadic import VariadicCommand

importing = typer.Typer(
    help="Make bundles of the published checkpoints of other works.", no_args_is_help=True
)


@importing.callback()
def _group() -> None:
    """Make bundles of the published checkpoints of other works."""


@importing.command("lass-mnist", cls=VariadicCommand)
def lass_mnist(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the checkpoints, or of the repository round it.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")] = Path("models/lass"),
    vqvae: Annotated[
        Path | None, typer.Option(help="The VQ-VAE (vqvae/256-sigmoid-big.pt).")
    ] = None,
    prior: Annotated[
        Path | None, typer.Option(help="The GPT-2 (unconditioned/256-sigmoid-big.pt).")
    ] = None,
    sums: Annotated[
        list[Path] | None,
        typer.Option(help="Tables (sum/*, models/sums-MNIST*/*), the first of a kind counts."),
    ] = None,
    heads: Annotated[int, typer.Option(help="Attention heads of the GPT-2.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle in --out.")] = False,
) -> None:
    """Make a bundle of LASS's and MLASS's MNIST checkpoints, so that any engine runs on them.

    The files are read as tensors alone, so that none can run code.
    """
    with sentences():
        settle_threads()
        from ..bundle import CARD, load
        from ..importing import import_lass_mnist
        from .models import card_facts

        if (out / CARD).is_file() and not force:
            raise OptionError(
                f"{out} holds a bundle already. Give another --out, or replace it with --force."
            )
        bundle = import_lass_mnist(
            folder, vqvae=vqvae, prior=prior, sums=sums or (), heads=heads, name=out.name
        )
        bundle.save(out)
        for fact, value in card_facts(load(out).card):
            say(f"{fact}: {value}")
        say(f"bundle in {out}; separate with: mlass separate IMAGE --bundle {out}")
