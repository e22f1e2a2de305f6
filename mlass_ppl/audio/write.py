"""Signals as sound files: written beside their place and moved there when they are whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import OptionError, SignalError
from ._libraries import soundfile
from .resample import check_signal

Encoding = Literal["float32", "int16"]
Clip = Literal["rescale", "clamp"]

_FORMATS: Mapping[str, tuple[str, tuple[Encoding, ...]]] = {
    ".wav": ("WAV", ("float32", "int16")),
    ".flac": ("FLAC", ("int16",)),
    ".ogg": ("OGG", ()),
    ".mp3": ("MP3", ()),
}
_WAV_BYTES = 2**32 - 2**16  # what the 32-bit length of a WAV can tell, less its header
_BLOCK = 1 << 16  # libsndfile's Vorbis encoder overflows its stack on much longer ones


class AudioWriter:
    """Writes a sound file block by block; use it in a `with` statement.

    path: ends in .wav, .flac, .ogg or .mp3. encoding: 'float32' (WAV's default) keeps all values;
    'int16' (FLAC's) clamps to full scale, as the lossy formats do, which take no encoding. frames:
    samples per channel to come, where known: a WAV beyond 4 GiB is then written as RF64. force:
    whether a file that exists is replaced; only a whole new file ever takes its place, and nothing
    is left of one that fails. `clamped` counts the samples that were beyond full scale.

    Raises OptionError on an unknown ending or encoding and on a file that exists; SignalError on a
    block of another shape, on NaN, and where libsndfile cannot write (as MP3 at odd rates).
    """

    def __init__(
        self,
        path: str | Path,
        rate: int,
        channels: int = 1,
        *,
        encoding: Encoding | None = None,
        frames: int | None = None,
        force: bool = False,
    ) -> None:
        self.path, self.rate, self.channels, self.force = Path(path), rate, channels, force
        self.format, self.encoding = _format(self.path, encoding)
        self.clamped = 0
        self._width = {"float32": 4, "int16": 2, None: 0}[self.encoding] * channels
        self._room = _WAV_BYTES if self.format == "WAV" else None
        if self._room is not None and (frames or 0) * self._width > self._room:
            self.format, self._room = "RF64", None
        self._file: Any = None
        self._part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        self._check_free()

    def __enter__(self) -> AudioWriter:
        subtype = {"float32": "FLOAT", "int16": "PCM_16", None: None}[self.encoding]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = soundfile().SoundFile(
                self._part, "w", self.rate, self.channels, subtype, format=self.format
            )
        except (soundfile().LibsndfileError, ValueError) as error:
            self._part.unlink(missing_ok=True)
            raise self._failed(error) from error
        return self

    def write(self, block: Tensor) -> None:
        """Append a block [channels, t], or [t] where there is one channel."""
        block = block[None] if block.ndim == 1 else block
        if block.ndim != 2 or len(block) != self.channels:
            raise SignalError(
                f"'{self.path}' takes blocks [{self.channels}, t], got {tuple(block.shape)}."
            )
        check_signal(block)
        if self._room is not None:
            self._room -= block.shape[-1] * self._width
            if self._room < 0:
                raise SignalError(
                    f"'{self.path}' grows beyond the 4 GiB that a WAV can tell. Give frames=, so "
                    "that it is written as RF64, or write FLAC."
                )
        columns = self._encoded(block.detach().cpu().float()).T.contiguous().numpy()
        try:
            for start in range(0, len(columns), _BLOCK):
                self._file.write(columns[start : start + _BLOCK])
        except soundfile().LibsndfileError as error:
            raise self._failed(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
            if kind is None:
                self._check_free()
                os.replace(self._part, self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def _encoded(self, block: Tensor) -> Tensor:
        if self.encoding == "float32":
            return block
        self.clamped += int((block.abs() > 1.0).sum())
        if self.encoding is None:
            return block.clamp(-1.0, 1.0)
        # 32,768 as readers divide by it: what was 16 bits comes out as the same 16 bits
        return (block * 32768.0).round().clamp(-32768.0, 32767.0).to(torch.int16)

    def _check_free(self) -> None:
        if self.path.is_dir() or (self.path.exists() and not self.force):
            raise OptionError(
                f"'{self.path}' exists and is kept. Give another name, or force=True to replace it."
            )

    def _failed(self, error: Exception) -> SignalError:
        return SignalError(
            f"'{self.path}' cannot be written at {self.rate} Hz with {self.channels} channels as "
            f"{self.format} ({error}). WAV takes every rate; MP3 only the usual ones, 8 to 48 kHz."
        )


def write_audio(
    path: str | Path,
    samples: Tensor,
    rate: int,
    *,
    encoding: Encoding | None = None,
    clip: Clip = "rescale",
    force: bool = False,
) -> tuple[str, ...]:
    """Write samples [channels, T] or [T], 1 being full scale, with the rest as of `AudioWriter`.

    clip: what becomes of samples beyond full scale, in all encodings but float32, which keeps them:
    'rescale' turns the whole signal down until its peak fits, 'clamp' cuts them off. Returns a
    sentence on what was done, if anything. Raises as `AudioWriter` does, and writes nothing then.
    """
    return _write({Path(path): samples}, rate, encoding, clip, force)


def write_stems(
    folder: str | Path,
    stems: Mapping[str, Tensor],
    rate: int,
    *,
    suffix: str = ".wav",
    encoding: Encoding | None = None,
    clip: Clip = "rescale",
    force: bool = False,
) -> tuple[str, ...]:
    """Write each of the stems {name: [channels, T]} to `folder`/name + `suffix`, as `write_audio`
    does. 'rescale' turns all of them down alike, so that their sum keeps its proportions. Looks at
    all stems and places before it writes the first."""
    for name in stems:
        if not name or set(name) & set('/\\:*?"'):
            raise OptionError(f"stem {name!r} cannot be the name of a file. Rename it.")
    places = {Path(folder) / f"{name}{suffix}": samples for name, samples in stems.items()}
    return _write(places, rate, encoding, clip, force)


def _write(
    places: Mapping[Path, Tensor], rate: int, encoding: Encoding | None, clip: Clip, force: bool
) -> tuple[str, ...]:
    if clip not in ("rescale", "clamp"):
        raise OptionError(f"clip is 'rescale' or 'clamp', got {clip!r}.")
    writers, peak = [], 0.0
    for path, samples in places.items():
        check_signal(samples)
        channels = 1 if samples.ndim == 1 else len(samples)
        frames = samples.shape[-1]
        writer = AudioWriter(path, rate, channels, encoding=encoding, frames=frames, force=force)
        writers.append(writer)
        peak = max(peak, float(samples.abs().max()))
        fits = writer.encoding == "float32" or clip == "clamp"
    gain = 1.0 if peak <= 1.0 or fits else 1.0 / peak
    for writer, samples in zip(writers, places.values(), strict=True):
        with writer:
            writer.write(samples if gain == 1.0 else samples * gain)
    if gain != 1.0:
        return (f"turned down to {gain:.4g} of its level: it peaked at {peak:.4g}, above 1",)
    clamped = sum(writer.clamped for writer in writers)
    return (f"{clamped:,} samples beyond full scale were cut off",) if clamped else ()


def _format(path: Path, encoding: Encoding | None) -> tuple[str, Encoding | None]:
    if path.suffix.lower() not in _FORMATS:
        raise OptionError(
            f"'{path}' ends in '{path.suffix}'; sound files are written as {', '.join(_FORMATS)}."
        )
    name, encodings = _FORMATS[path.suffix.lower()]
    if encoding is not None and encoding not in encodings:
        raise OptionError(
            f"{name} takes {' or '.join(map(repr, encodings)) or 'no'} encoding, got {encoding!r}. "
            "WAV takes 'float32' and 'int16'."
        )
    return name, encoding or (encodings[0] if encodings else None)
