"""`mlass data`: data sets made on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from ._common import cores, progress_bar, say, sentences
from ._variadic import VariadicCommand

data = typer.Typer(help="Make data sets.", no_args_is_help=True)


@data.callback()
def _group() -> None:
    """Make data sets."""


@data.command(cls=VariadicCommand)
def render(
    midi: Annotated[Path, typer.Option(help="Folder of General MIDI songs, with subfolders.")],
    out: Annotated[Path, typer.Option(help="Folder of the data set; what is there is kept.")],
    soundfont: Annotated[
        Path | None, typer.Option(help="General MIDI SoundFont; the system's if none is given.")
    ] = None,
    rate: Annotated[int, typer.Option(help="Sample rate in Hz.")] = 22_050,
    test: Annotated[
        list[str] | None, typer.Option(help="Sources or composers for the test split.")
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Sources or composers for the validation split.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV of file, source, composer, licence (else --midi/manifest.csv)."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Songs at a time; else one a core.")] = None,
) -> None:
    """Render songs with FluidSynth to stems in Slakh2100's layout: bass, drums, guitar, piano,
    other.

    Finished songs are kept, so that an interrupted call can be made again.
    """
    with sentences():
        from ..data.audio import FluidSynth, find_songs, hold_out
        from ..data.audio.instruments import CLASSES
        from ..data.audio.render import render_songs, write_manifest

        synth = FluidSynth(soundfont, rate=rate)
        songs = find_songs(midi, manifest)
        splits = hold_out(songs, validation=validation or (), test=test or ())
        with progress_bar() as piece:
            report = render_songs(
                songs,
                splits,
                out,
                synth,
                jobs=cores() if jobs is None else jobs,
                progress=piece(f"rendering {len(songs)} songs"),
            )
        for name, reason in report.failed.items():
            say(f"{name} failed: {reason}", style="red", stderr=True)
        rows = write_manifest(out)
        for split in dict.fromkeys(splits):
            inside = [row for row in rows if row["split"] == split]
            hours = {name: sum(row[name] for row in inside) / 3600 for name in CLASSES}
            sounding = ", ".join(f"{name} {value:.2f}" for name, value in hours.items())
            total = sum(row["seconds"] for row in inside) / 3600
            say(f"{split}: {len(inside)} songs, {total:.2f} h; sounding: {sounding} h")
        say(
            f"{len(report.new)} songs rendered, {len(report.kept)} there already, "
            f"{len(report.failed)} failed; in {out}"
        )
        if report.failed:
            raise typer.Exit(1)


@data.command()
def vary(
    midi: Annotated[Path, typer.Option(help="Folder of General MIDI songs, with subfolders.")],
    out: Annotated[Path, typer.Option(help="Folder of the variants; what is there is kept.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV of file, source, composer, licence (else --midi/manifest.csv)."),
    ] = None,
    variants: Annotated[int, typer.Option(help="How many of each song.")] = 2,
    as_stem: Annotated[
        str | None,
        typer.Option("--as", help="Only one or two melodies, played as piano, guitar or bass."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is changed.")] = 0,
) -> None:
    """Write variants of songs, to be rendered: other instruments of each family, another drum kit,
    key and tempo, other velocities.

    A manifest gives each the source and composer of its song: render both with the same --test and
    --validation. Finished variants are kept, so that an interrupted call can be made again.
    """
    with sentences():
        from ..data.audio import find_songs, vary_songs

        if out.resolve().is_relative_to(midi.resolve()):
            raise OptionError(
                f"--out '{out}' lies in --midi '{midi}', where variants would count as songs. Give "
                "a folder beside it."
            )
        songs = find_songs(midi, manifest)
        with progress_bar() as piece:
            report = vary_songs(
                songs, out, variants=variants, as_stem=as_stem, seed=seed,
                progress=piece(f"varying {len(songs)} songs"),
            )  # fmt: skip
        for name, reason in report.failed.items():
            say(f"{name} failed: {reason}", style="red", stderr=True)
        without = f", {len(report.without)} songs without a melody" if as_stem else ""
        say(
            f"{len(report.new)} variants written, {len(report.kept)} there already{without}, "
            f"{len(report.failed)} songs failed; in {out}"
        )
        if report.failed:
            raise typer.Exit(1)
