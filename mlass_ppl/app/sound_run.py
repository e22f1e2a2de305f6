"""One separation of a sound: how far it is, then the stems to hear, to see and to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio import Wiener, write_audio
from ..draw import draw_spectrograms
from ..errors import MlassError, OptionError
from ..search import SMC
from ..songs import Song, separate_song
from . import html
from .archive import zip_song
from .desk import Desk, check_numbers, told
from .sounds import Listening

MOST = 4
"""Stems that are taken out of one sound."""


@dataclass(frozen=True)
class SoundRun:
    """What is asked. wiener: whether the stems are made parts of the sound itself."""

    bundle: str
    stems: Sequence[str]
    shape: str
    engine: str
    candidates: Any = 4
    seed: Any = 0
    wiener: bool = True


@dataclass(frozen=True)
class SoundView:
    """What the page shows. files: a WAV of each stem by its name."""

    status: str = ""
    picture: str = ""
    files: tuple[tuple[str, Path], ...] = ()
    archive: Path | None = None
    running: bool = False


def check_stems(stems: Sequence[str]) -> list[str]:
    """Raises OptionError unless there are two to four."""
    if not 2 <= len(stems) <= MOST:
        raise OptionError(f"choose 2 to {MOST} stems, not {len(stems)}.")
    return list(stems)


def run(desk: Desk, listening: Listening, asked: SoundRun) -> Iterator[SoundView]:
    """Views of one separation; the last one holds the result, or what went wrong."""
    try:
        candidates, seed = check_numbers(desk.limits, asked.candidates, asked.seed)
        stems = check_stems(asked.stems)
        if listening.samples is None:
            raise OptionError("there is no sound yet: upload one, or make the example.")
        yield SoundView(html.progress("Loading models", 0, 1), running=True)
        choices = desk.choices(asked.bundle)
        graph = choices.graph(asked.shape, stems)
        engine = choices.offer(asked.shape, stems).engine(asked.engine)

        def work(show: Callable[[Any], None]) -> Song:
            return separate_song(
                listening.samples,
                graph,
                choices.bundle,
                rate=listening.rate,
                infer=engine,
                search=SMC(candidates),
                postfilter=Wiener() if asked.wiener else None,
                seed=seed,
                progress=lambda done, total: show((done, total)),
            )

        listening.job = desk.job(work)
        yield SoundView(html.waiting(), running=True)
        for done, total in listening.job.frames():
            seconds = f"{done / listening.rate:.1f} of {total / listening.rate:.1f} s separated"
            yield SoundView(html.progress("Separating", done, total, seconds), running=True)
        if listening.job.stopped:
            yield SoundView(html.message("Stopped."))
            return
        yield _finished(desk, listening.job.result)
    except (MlassError, MemoryError) as error:
        yield SoundView(html.problem(told(error)))


def _finished(desk: Desk, song: Song) -> SoundView:
    folder = desk.place()
    figure = draw_spectrograms({"mixture": song.mixture, **song.stems}, song.rate)
    files = []
    for name in song:
        path = folder / f"{name}.wav"
        write_audio(path, song[name], song.rate, encoding="int16")
        files.append((name, path))
    detail = f"{song.recording.seconds:.1f} s of sound in {song.seconds:.1f} s"
    notices = "".join(map(html.message, song.notices))
    return SoundView(
        html.progress("Done", 1, 1, detail) + notices,
        html.drawn(figure, "spectrograms of the sound and its stems"),
        tuple(files),
        zip_song(song, figure.render("png"), folder),
    )
