"""A progress bar that tells how fast sound is separated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ._common import Report, console


@contextmanager
def song_bar(songs: int) -> Iterator[Callable[[str], Callable[[float], Report]]]:
    """A bar on standard error over several songs, with the real-time factor of the one at work:
    seconds for each second of sound.

    Yields a function: called with a song's name when it begins, it returns one that takes the
    samples of a second once they are known, and gives the callback `(done, total)` in samples.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task("", total=float(songs), speed="")
        begun = 0

        def song(name: str) -> Callable[[float], Report]:
            nonlocal begun
            start, clock = begun, time.perf_counter()
            begun += 1
            bar.update(task, description=name, completed=float(start), speed="")

            def at(rate: float) -> Report:
                def report(done: int, total: int) -> None:
                    factor = (time.perf_counter() - clock) * rate / max(done, 1)
                    speed = f"{factor:.2f} x real time" if done else ""
                    bar.update(task, completed=start + done / max(total, 1), speed=speed)

                return report

            return at

        yield song
        bar.update(task, description="done", completed=float(songs))
