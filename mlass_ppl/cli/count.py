"""`mlass count`: count the tables that a program declares into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import OptionError
from ._common import (
    SHAPES,
    engine_from_name,
    program_from,
    progress_bar,
    say,
    sentences,
    settle_threads,
    shape_for,
)


def count(
    program: Annotated[
        str | None, typer.Option(help="Python file with a program, or a shape such as chain.")
    ] = None,
    sources: Annotated[list[int], typer.Option(help="Numbers of sources of a shape.")] = [2],  # noqa: B006
    infer: Annotated[
        list[str], typer.Option(help="Engines whose tables to count: exact, bp, extractor.")
    ] = ["bp"],  # noqa: B006
    evidence: Annotated[
        Literal["declared", "token", "feature", "linear"],
        typer.Option(help="What is observed: a token, a (linear) feature, or as declared."),
    ] = "declared",
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Path("models/mnist"),
    mixtures: Annotated[int, typer.Option(help="Mixtures to simulate.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed of the mixing.")] = 0,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the training data: MNIST's files ($MLASS_DATA), or songs."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Count again what the bundle already has.")] = False,
    stems: Annotated[
        list[str], typer.Option(help="Of a bundle of sound: the sources of a shape, by name.")
    ] = [],  # noqa: B006
    run: Annotated[
        Path,
        typer.Option(help="Of a bundle of sound: folder of counts on the way."),
    ] = Path("runs/count"),
) -> None:
    """Simulate a program's mixing on the bundle's training signals and count its tables.

    Tables are known by what is mixed, not by site names: what the bundle has is not counted again.
    Without --program each engine counts the shape it was made for. Of a bundle of sound an
    interrupted count goes on where it was.
    """
    with sentences():
        settle_threads()
        from .. import shapes
        from ..bundle import load
        from ..codecs import AudioCodec
        from ..declare import compile_program
        from ..evaluate.audio import stems_of
        from ..evidence import Feature, Token
        from ..train.digits import count_into
        from ..train.sound_counting import count_sound_into

        if mixtures < 1:
            raise OptionError(f"--mixtures must be at least 1, got {mixtures}.")
        found = load(bundle)
        sound = isinstance(found.codec, AudioCodec)
        tasks = []
        for name in infer:
            engine = engine_from_name(name)
            for n in sources:
                given = program or shape_for(name)
                graph = compile_program(
                    getattr(shapes, given)(stems_of(found, stems)[:n])
                    if sound and given in SHAPES
                    else program_from(given, n)
                )
                if evidence != "declared":
                    kinds = {"feature": Feature(), "linear": Feature(linear=True)}
                    kind = kinds.get(evidence, Token())
                    graph = graph.with_evidence(dict.fromkeys(graph.observed, kind))
                tasks.append((graph, engine))
        with progress_bar(len(tasks)) as piece:
            for graph, engine in tasks:
                options: dict[str, Any] = {"mixtures": mixtures, "seed": seed, "force": force}
                options["progress"] = piece(f"counting {graph.name}")
                if sound:
                    said = count_sound_into(bundle, graph, engine, data_root, run, **options)
                else:
                    said = count_into(bundle, graph, engine, data_root, **options)
                for line in said:
                    say(line)
