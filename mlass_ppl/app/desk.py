"""What all visitors share: bundles, limits, one worker, a folder of files that do not stay."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bundle import Bundle, load
from ..errors import MlassError, OptionError
from .choices import DIGIT_SHAPES, SOUND_SHAPES, Choices
from .job import Job, Pace
from .limits import Limits

_KEEP = 128
"""Tokens of each stem that engines look at, of the thousand that codecs of sound have."""


@dataclass(frozen=True)
class Desk:
    """folder: everything that is written lies below it."""

    folder: Path
    limits: Limits = Limits()
    _choices: dict[str, Choices] = field(default_factory=dict, repr=False)
    _loading: Any = field(default_factory=threading.Lock, repr=False)
    _busy: Any = field(default_factory=threading.Lock, repr=False)

    def choices(self, name: str) -> Choices:
        """The graphs and engines of a bundle, which is loaded when it is first asked for."""
        with self._loading:
            if name not in self._choices:
                bundle = load(name)
                sound = hasattr(bundle.codec, "sample_rate")
                shapes, keep = (SOUND_SHAPES, _KEEP) if sound else (DIGIT_SHAPES, None)
                self._choices[name] = Choices(bundle, shapes, keep)
            return self._choices[name]

    def bundle(self, name: str) -> Bundle:
        return self.choices(name).bundle

    def job(self, work: Callable[[Callable[[Any], None]], Any], *, every: bool = False) -> Job:
        """Work that waits for its turn and obeys the limit of time."""
        return Job(work, Pace(self.limits.seconds, every), self._busy)

    def place(self) -> Path:
        """A new folder for the files of one result; those that have been kept long enough go."""
        self.sweep()
        return Path(tempfile.mkdtemp(prefix="result-", dir=self.folder))

    def sweep(self) -> None:
        """Remove the results that are older than `limits.kept_seconds`."""
        for old in self._old():
            shutil.rmtree(old, ignore_errors=True)

    def _old(self) -> Iterator[Path]:
        oldest = time.time() - self.limits.kept_seconds
        for path in self.folder.glob("result-*"):
            try:
                if path.stat().st_mtime < oldest:
                    yield path
            except FileNotFoundError:  # another visitor swept it
                continue


def check_numbers(limits: Limits, candidates: Any, seed: Any) -> tuple[int, int]:
    """Candidates and seed as whole numbers. Raises OptionError."""
    numbers = []
    for name, value, low, high in (
        ("candidates", candidates, 1, limits.candidates),
        ("seed", seed, 0, 2**31 - 1),
    ):
        if not isinstance(value, int | float) or value != value or not low <= value <= high:
            raise OptionError(f"{name}: expected a whole number from {low} to {high}, got {value}.")
        numbers.append(int(value))
    return numbers[0], numbers[1]


def told(error: Exception, path: str | Path | None = None) -> MlassError:
    """The error as a visitor reads it: without the folder that the page keeps uploads in."""
    if isinstance(error, MemoryError):
        return OptionError(f"out of memory ({error}). Ask for fewer candidates.")
    assert isinstance(error, MlassError)
    if path is None:
        return error
    return type(error)(str(error).replace(str(path), Path(path).name))
