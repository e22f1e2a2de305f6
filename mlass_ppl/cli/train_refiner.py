"""`mlass train refiner`: the network that refines separations, learnt from separations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._common import engine_from_name, program_from, progress_bar, say, sentences, shape_for
from ._search import Name, Temperature, TopK, TopP, search_from


def refiner(
    out: Annotated[Path, typer.Option("--out", "--bundle", help="Folder of the bundle.")] = Path(
        "models/mnist"
    ),
    sources: Annotated[
        list[int], typer.Option(help="Numbers of sources in the mixtures to learn from.")
    ] = [2, 3],  # noqa: B006
    mixtures: Annotated[int, typer.Option(help="Training mixtures of each number.")] = 3_000,
    infer: Annotated[str, typer.Option(help="Engine that separates them.")] = "auto",
    program: Annotated[
        str | None,
        typer.Option(help="Python file with a mixing program, or a shape such as chain."),
    ] = None,
    search: Name = "smc",
    candidates: Annotated[int, typer.Option(help="Candidates of each mixture.")] = 32,
    temperature: Temperature = "1",
    top_k: TopK = None,
    top_p: TopP = None,
    width: Annotated[int, typer.Option(help="Channels of the network.")] = 48,
    epochs: Annotated[int, typer.Option(help="Passes over the mixtures.")] = 20,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of MNIST's idx files ($MLASS_DATA).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of mixing, separation, weights and order.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    run: Annotated[
        Path, typer.Option(help="Folder of the separations and of the checkpoints.")
    ] = Path("runs/train-refiner"),
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint there.")] = True,
) -> None:
    """Separate mixtures of MNIST's training digits and train the bundle's refiner on what comes
    out.

    The separations take most of the time; they are kept in --run, and the same command goes on
    there. --program FILE learns from a program of one's own, whatever --sources says.
    """
    with sentences():
        from ..refine import RefinerConfig
        from ..train.make_refiner import make_refiner

        grow = search_from(search, candidates, temperature, top_k, top_p)
        engine, config = engine_from_name(infer), RefinerConfig(width=width)
        programs = list(
            {p.__name__: p for n in sources for p in [program_from(program or shape_for(infer), n)]}
            .values()
        )  # fmt: skip
        with progress_bar(2 * len(programs)) as piece:
            bundle = make_refiner(
                out,
                programs,
                data_root,
                mixtures=mixtures,
                infer=engine,
                search=grow,
                config=config,
                epochs=epochs,
                seed=seed,
                device=device,
                run=run,
                resume=resume,
                piece=piece,
            )
        for found in bundle.card["refiner"]["validation_db"]:
            say(
                f"{found['sources']} sources: {found['chosen']:.2f} dB chosen, "
                f"{found['refined']:.2f} dB refined, on the validation images"
            )
        say(f"refiner in {out}")
