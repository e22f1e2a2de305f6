"""Work in a thread of its own that shows frames while it runs, and that can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any

from ..errors import OptionError

_POLL = 0.1
"""Seconds between two looks at whether to go on."""


class _Stopped(Exception):
    """Ends the work from inside."""


@dataclass(frozen=True)
class Pace:
    """seconds: of wall time that the work may take. every: whether it waits until each frame was
    taken; else only the newest is kept. patience: seconds without anyone who takes frames after
    which it stops, as when a visitor has left."""

    seconds: float
    every: bool = False
    patience: float = 20.0


class Job:
    """One piece of work: a function that is given `show(frame)` and returns its result.

    busy: held while it works, so that one runs at a time. `result` is there when `frames` has
    ended, unless `stopped`.
    """

    def __init__(self, work: Callable[[Callable[[Any], None]], Any], pace: Pace, busy: Any) -> None:
        self.result: Any = None
        self._work, self._pace, self._busy = work, pace, busy
        self._frames: Queue[Any] = Queue(maxsize=1)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._began = self._polled = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mlass-app", daemon=True)

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Let the work end at its next frame."""
        self._stop.set()

    def frames(self) -> Iterator[Any]:
        """The frames as they come; ends when the work does or is stopped.

        Raises whatever the work raises, and OptionError when it took too long.
        """
        self._thread.start()
        try:
            while True:
                self._polled = time.monotonic()
                try:
                    frame = self._frames.get(timeout=_POLL)
                except Empty:
                    if not self._thread.is_alive() and self._frames.empty():
                        break
                    continue
                yield frame
        except GeneratorExit:
            self.stop()
            raise
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._busy:
                self.result = self._work(self._show)
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error

    def _show(self, frame: Any) -> None:
        """Hand a frame over; ends the work when it was stopped, took too long or nobody looks."""
        while True:
            self._check()
            try:
                self._frames.put(frame, timeout=_POLL if self._pace.every else 0)
                return
            except Full:
                if not self._pace.every:
                    try:
                        self._frames.get_nowait()
                    except Empty:
                        continue

    def _check(self) -> None:
        now = time.monotonic()
        if now - self._polled > self._pace.patience:
            self.stop()
        if self._stop.is_set():
            raise _Stopped
        if now - self._began > self._pace.seconds:
            raise OptionError(
                f"this took longer than {self._pace.seconds:g} s, the most that the page takes. "
                "Ask for fewer candidates, give it less, or run `mlass separate`, which has no "
                "limit."
            )
