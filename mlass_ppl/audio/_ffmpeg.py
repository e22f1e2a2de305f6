"""Files that libsndfile cannot read (m4a, AAC, video) decoded by the ffmpeg command."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ..errors import SignalError

_BLOCK = 1 << 16  # samples per channel that are decoded at once


class Pipe(NamedTuple):
    """What ffmpeg says of a file before its samples come."""

    rate: int
    channels: int
    pieces: Iterator[np.ndarray]


def available() -> bool:
    """Whether the ffmpeg command is on PATH."""
    return shutil.which("ffmpeg") is not None


@contextmanager
def decoding(path: Path) -> Iterator[Pipe]:
    """Decode the first audio stream of a file: its `pieces` are float32 [t, channels].

    Raises SignalError when ffmpeg cannot read the file to its end.
    """
    # AU over WAV: 24 bytes of header without a length, which a pipe cannot go back to fill in.
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{path}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    # A file for the messages: two pipes could each wait for the other.
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        assert process.stdout is not None
        try:
            rate, channels = _header(process, path, messages)
            yield Pipe(rate, channels, _pieces(process, channels, path, messages))
        finally:
            process.stdout.close()
            process.kill()


def _header(process: subprocess.Popen[bytes], path: Path, messages: IO[bytes]) -> tuple[int, int]:
    assert process.stdout is not None
    head = process.stdout.read(24)
    if len(head) < 24:
        raise _failed(process, path, messages)
    _, offset, _, _, rate, channels = struct.unpack(">4s5I", head)
    process.stdout.read(offset - 24)
    return rate, channels


def _pieces(
    process: subprocess.Popen[bytes], channels: int, path: Path, messages: IO[bytes]
) -> Iterator[np.ndarray]:
    assert process.stdout is not None
    while data := process.stdout.read(4 * channels * _BLOCK):
        whole = len(data) - len(data) % (4 * channels)
        yield np.frombuffer(data[:whole], ">f4").astype(np.float32).reshape(-1, channels)
    if process.wait() != 0:
        raise _failed(process, path, messages)


def _failed(process: subprocess.Popen[bytes], path: Path, messages: IO[bytes]) -> SignalError:
    process.wait()
    messages.seek(0)
    lines = messages.read().decode(errors="replace").strip().splitlines()
    return SignalError(
        f"'{path}' is no sound file that libsndfile or ffmpeg can read to its end "
        f"({lines[-1] if lines else 'ffmpeg gave no reason'}). If it should be one, it is damaged: "
        "copy or download it again."
    )
