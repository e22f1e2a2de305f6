"""One process, or thread, at a time in a folder. A lock ends with the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OptionError

NO_LOCKS = -1
"""What `lock` returns where there are none: on Windows, and on some network file systems. Two
writers are then the user's concern."""


def lock(folder: Path) -> int | None:
    """A handle of the locked folder, for `unlock`; None where another process holds it or it is
    gone."""
    try:
        import fcntl
    except ImportError:
        return NO_LOCKS
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        return None if isinstance(error, BlockingIOError) else NO_LOCKS
    return handle


def unlock(handle: int) -> None:
    if handle != NO_LOCKS:
        os.close(handle)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made where it is missing, for work that two processes would undo for
    each other. Raises OptionError where another process is at it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = lock(folder)
    if handle is None:
        raise OptionError(
            f"another process is working in {folder}. Wait for it to end, or give another folder."
        )
    try:
        yield
    finally:
        unlock(handle)
