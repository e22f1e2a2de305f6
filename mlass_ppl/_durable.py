"""Files that are on the disk as a whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import BundleError


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that whoever reads it, after a power cut too, finds whole or as it was before.

    Raises BundleError where the disk is full or the folder cannot be written to.
    """
    draft = path.with_name(f"{path.name}.part")
    with sentence(path):
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:  # Ctrl-C too
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        sync(path.parent)


def sync(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def sentence(path: Path) -> Iterator[None]:
    """Turns an error of the operating system into one that says what could not be written."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        fix = "Free some space there" if full else "See that its folder exists and can be written"
        raise BundleError(
            f"cannot write {path} ({error.strerror or error}). {fix}, and repeat the step: what "
            "was there before is as it was."
        ) from error
