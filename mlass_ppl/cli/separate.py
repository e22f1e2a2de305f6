"""`mlass separate`: image files of mixed digits in, a folder of separated sources for each out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import MlassError, OptionError, SignalError, UnseenToken
from ._common import (
    ENGINES,
    SHAPES,
    console,
    engine_from_name,
    program_from,
    progress_bar,
    say,
    sentences,
    settle_threads,
    shape_for,
)

if TYPE_CHECKING:
    from ..data.images import GreyImage
    from ._tracks import Track

_AT_ONCE = 16  # files separated together; each group is on disk before the next begins


def separate(
    paths: Annotated[list[Path], typer.Argument(help="Image files and folders of them.")],
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle.")] = "mnist",
    sources: Annotated[
        int | None, typer.Option(help="Number of sources in each mixture (default: 2).")
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(help=f"Python file with a mixing program, or {', '.join(SHAPES)}."),
    ] = None,
    infer: Annotated[str, typer.Option(help=f"Engine: {', '.join(ENGINES)}.")] = "bp",
    candidates: Annotated[int, typer.Option(help="Candidates drawn for each mixture.")] = 64,
    refine: Annotated[
        bool, typer.Option("--refine", help="Refine the chosen candidate by gradient steps.")
    ] = False,
    on_unseen: Annotated[
        str, typer.Option(help="Tokens that no table has seen: error, or prior to skip them.")
    ] = "error",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out/separated"),
    force: Annotated[
        bool, typer.Option("--force", help="Write again what an earlier run finished.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed; a file's result depends on it alone.")] = 0,
) -> None:
    """Separate image files of any size into their sources.

    Every file gets a folder below --out with {source}.png, mixture.png, grid.png and facts.json.
    Folders that an earlier run finished are kept. A file that cannot be read or separated is
    reported and does not stop the others; the exit code is then 1.
    """
    with sentences():
        settle_threads()
        job = _job(bundle, sources, program, infer, candidates, refine, on_unseen, seed)
        run = _Run(job, out, force)
        run.go(paths)
    if run.failed:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Job:
    """What is done with every file."""

    graph: Any
    bundle: Any
    options: dict[str, Any]
    facts: dict[str, Any]

    def __call__(self, images: list[GreyImage], progress: Any) -> Any:
        import torch

        from ..separate import separate as run

        mixtures = torch.stack([image.pixels for image in images])
        # A stream of its own for each picture: its result does not depend on its company.
        streams = [zlib.crc32(image.pixels.numpy().tobytes()) for image in images]
        return run(
            mixtures, self.graph, self.bundle, streams=streams, progress=progress, **self.options
        )


def _job(
    bundle: str,
    sources: int | None,
    program: str | None,
    infer: str,
    candidates: int,
    refine: bool,
    on_unseen: str,
    seed: int,
) -> _Job:
    engine = engine_from_name(infer)
    if program is not None and program not in SHAPES and sources is not None:
        raise OptionError(
            "--sources and --program were both given; a program file says itself how many sources "
            "it has. Leave --sources out."
        )
    if on_unseen not in ("error", "prior"):
        raise OptionError(f"--on-unseen must be error or prior, not '{on_unseen}'.")
    declared = program_from(program or shape_for(infer), 2 if sources is None else sources)

    from ..bundle import load
    from ..declare import compile_program
    from ..refine import Refine
    from ..search import Sample
    from ._tracks import check_names

    graph = compile_program(declared)
    check_names(graph.sources)
    search = Sample(candidates)
    loaded = load(bundle)
    options = {
        "infer": engine,
        "search": search,
        "refine": Refine() if refine else None,
        "seed": seed,
        "on_unseen": on_unseen,
    }
    facts: dict[str, Any] = {"bundle": loaded.name, "program": graph.name, "engine": repr(engine)}
    facts |= {"candidates": candidates, "refined": refine, "seed": seed, "on_unseen": on_unseen}
    return _Job(graph, loaded, options, facts)


@dataclass
class _Run:
    job: _Job
    out: Path
    force: bool
    failed: list[str] = field(default_factory=list)
    written: list[tuple[Track, dict[str, Any]]] = field(default_factory=list)

    def go(self, paths: list[Path]) -> None:
        from ._tracks import tracks_for

        waiting = []
        for track in tracks_for(self._files(paths), self.out):
            if track.done and not self.force:
                say(f"kept {track.folder} (--force separates it again)")
            else:
                waiting.append(track)
        read = [(track, image) for track in waiting if (image := self._read(track)) is not None]
        groups = [read[i : i + _AT_ONCE] for i in range(0, len(read), _AT_ONCE)]
        if groups:
            with progress_bar(len(groups)) as piece:
                for group in groups:
                    names = f"{group[0][0].folder.name} ({len(group)} files)"
                    self._separate(group, piece(names if len(group) > 1 else names.split(" (")[0]))
        self._summary()

    def _files(self, paths: list[Path]) -> list[Path]:
        from ..data.images import image_files
        from ._tracks import FACTS

        files: dict[Path, Path] = {}
        for path in paths:
            try:
                for file in image_files([path]):
                    # what an earlier run wrote into a folder that is given is no mixture
                    if file == path or not (file.parent / FACTS).is_file():
                        files.setdefault(file.resolve(), file)
            except SignalError as error:
                self._fail(path, error)
        return list(files.values())

    def _read(self, track: Track) -> GreyImage | None:
        from ..data.images import read_image

        size = self.job.bundle.codec.signal_shape[-2:]
        try:
            image = read_image(track.file, tuple(size))
        except SignalError as error:
            self._fail(track.file, error)
            return None
        for notice in image.notices:
            say(f"{track.file}: {notice}", style="yellow")
        return image

    def _separate(self, group: list[tuple[Track, GreyImage]], progress: Any) -> None:
        try:
            found = self.job([image for _, image in group], progress)
        except (UnseenToken, SignalError) as error:
            if len(group) == 1:
                self._fail(group[0][0].file, error)
            else:  # one of them cannot be separated: find out which
                for one in group:
                    self._separate([one], progress)
            return
        from ._tracks import write_track

        for row, (track, image) in enumerate(group):
            facts = {**self.job.facts, **_evidence(found, row)}
            facts = write_track(track, found, row, facts, notices=image.notices)
            self.written.append((track, facts))

    def _fail(self, path: Path, error: MlassError) -> None:
        self.failed.append(str(path))
        say(f"{type(error).__name__}: {error}", style="red", stderr=True)

    def _summary(self) -> None:
        if self.written:
            from rich.markup import escape
            from rich.table import Table

            title = f"{self.job.graph.name}, {self.job.facts['engine']}"
            table = Table(title=escape(title))
            table.add_column("written", overflow="fold")
            table.add_column("mixture PSNR", justify="right")
            table.add_column("log evidence", justify="right")
            table.add_column("tokens ruled out", justify="right")
            for track, facts in self.written:
                psnr = _decibel(facts["mixture_error"])
                nats = f"{facts['evidence_nats']:.1f} nats"
                table.add_row(escape(str(track.folder)), psnr, nats, str(facts["ruled_out"]))
            console().print(table)
        if self.failed:
            say(f"{len(self.failed)} not separated: {', '.join(self.failed)}", style="red",
                stderr=True)  # fmt: skip


def _evidence(found: Any, row: int) -> dict[str, Any]:
    """Log evidence of the chosen candidate over the tokens that its tables allow, and how many
    they rule out."""
    nats = found.evidence[row, int(found.chosen[row])]
    allowed = nats.isfinite()
    return {"evidence_nats": float(nats[allowed].sum()), "ruled_out": int((~allowed).sum())}


def _decibel(error: float) -> str:
    from math import log10

    return f"{-10 * log10(max(error, 1e-10)):.1f} dB"
