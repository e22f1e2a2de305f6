"""A bundle's folder is changed as a whole: new files wait beside it until its card names them.

Files are written into a stage, a folder inside the bundle's. Then the card is replaced, which is
one step for the file system, and the files are moved to their places. Whatever ends the process,
the card that is there names files that are there: at their places or, behind a card that is newer
than they are, still on the stage.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ._bundle_files import CARD, STAGE, agrees, entries
from ._durable import sentence, sync
from ._locks import NO_LOCKS, lock, unlock
from .errors import BundleError

_WAIT = 30.0
"""Seconds that one save waits for another; it is at work for a second or two."""


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A folder to write a bundle's files to; at the end of the block they are the bundle at `path`.

    A file that the old card names and the new one does not is removed. An error in the block leaves
    the bundle as it was. Raises BundleError where the folder cannot be written to, and where
    another process is saving there.
    """
    new = not path.exists()
    try:
        with sentence(path), _held(path, _WAIT) as stage:
            _settle(path, stage)
            before = _files(path)
            try:
                yield stage
            except BaseException:
                for file in stage.iterdir():
                    file.unlink()
                raise
            sync(stage)
            os.replace(stage / CARD, path / CARD)  # from here on the bundle is the new one
            sync(path)
            for file in stage.iterdir():
                os.replace(file, path / file.name)
            for name in before - _files(path):
                (path / name).unlink(missing_ok=True)
            sync(path)
    except BaseException:
        with suppress(OSError):  # a folder that holds anything stays
            if new:
                path.rmdir()
        raise


def finish(path: Path) -> None:
    """Put files that a save left on the stage to their places, if that can be done now."""
    if (path / STAGE).is_dir():
        with suppress(BundleError, OSError), _held(path, 0.0) as stage:
            _settle(path, stage)


def _settle(path: Path, stage: Path) -> None:
    """Move what the card names and only the stage holds; drop the rest, of a save that was ended
    before its card was there."""
    waiting = {file.name for file in stage.iterdir()}
    for file, entry in _entries(path):
        if file in waiting and agrees(stage / file, entry) and not agrees(path / file, entry):
            os.replace(stage / file, path / file)
    if waiting:
        sync(path)
    for rest in stage.iterdir():
        rest.unlink()


def _files(path: Path) -> set[str]:
    return {file for file, _ in _entries(path)}


def _entries(path: Path) -> list[tuple[str, dict[str, object]]]:
    """The plain names of files that the card tells of; none where it cannot be read."""
    try:
        found = list(entries(json.loads((path / CARD).read_text("utf-8"))))
        plain = [(file, entry) for file, entry in found if Path(file).name == file != CARD]
        return [(file, entry) for file, entry in plain if isinstance(entry, dict)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


@contextmanager
def _held(path: Path, wait: float) -> Iterator[Path]:
    """The stage of a bundle, held against other processes and threads; it goes when nothing waits
    on it any more."""
    stage, end = path / STAGE, time.monotonic() + wait
    while True:
        stage.mkdir(parents=True, exist_ok=True)
        handle = lock(stage)
        if handle is not None and (handle == NO_LOCKS or _same(handle, stage)):
            break
        if handle is not None:
            unlock(handle)  # of a stage that its holder has removed since
        elif time.monotonic() > end:
            raise BundleError(
                f"another process is saving to {path}. Wait for it, or save to another folder."
            )
        else:
            time.sleep(0.05)
    try:
        yield stage
    finally:
        with suppress(OSError):
            stage.rmdir()
        unlock(handle)


def _same(handle: int, stage: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), stage.stat())
    except FileNotFoundError:
        return False
