"""A recording that is read block by block, as often as needed, and looked at before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio import AudioStream, resampled
from ..audio._levels import Levels
from ..audio.resample import check_signal
from ..errors import OptionError, SignalError

_BLOCK = 1 << 16
"""Samples per channel that are held at once."""

_QUIET = 1e-4
"""Of a recording's peak (-80 dB): what stays below is silence, as an MP3 or dither leave it."""


@dataclass(frozen=True)
class Recording:
    """A mixture as it is before it is separated.

    name: of the file, or "mixture". rate: in Hz. frames: samples per channel, counted. channels: 1
    or 2. peak: of the mean of the channels, which is what is separated. level: its RMS over the
    blocks that are not silent; 0 of a silent one. notices: what a listener should know of it.
    """

    name: str
    rate: int
    channels: int
    frames: int
    peak: float
    level: float
    notices: tuple[str, ...]
    _read: Callable[[], Iterable[Tensor]] = field(repr=False)

    @classmethod
    def of(cls, mixture: Any, rate: int | None = None) -> Recording:
        """Look through a sound file, or a waveform float [T] or [channels, T] sampled at `rate`.

        The whole of it is read once, so that a damaged end is found before any work is done.
        Raises SignalError on a file that cannot be read to its end, on NaN, other shapes and more
        than two channels; OptionError on a waveform without a rate or a file with one.
        """
        if isinstance(mixture, (str, Path)):
            if rate is not None:
                raise OptionError(f"'{mixture}' tells its rate itself; leave rate={rate} out.")
            stream = AudioStream(mixture)
            return cls._looked_at(Path(mixture).name, stream.rate, stream.blocks)
        signal = _waveform(mixture)
        if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
            raise OptionError(
                f"a waveform needs its rate, in whole samples a second; got {rate!r}. Say "
                "rate=44_100, or what it is sampled at."
            )
        return cls._looked_at("mixture", rate, lambda: signal.split(_BLOCK, -1))

    @classmethod
    def _looked_at(cls, name: str, rate: int, read: Callable[[], Iterable[Tensor]]) -> Recording:
        levels, parts, channels = Levels(), [], 1
        for block in read():
            levels.add(block)
            mono, channels = block.mean(0), len(block)
            parts.append((float(mono.abs().max()), float(mono.double().square().sum()), len(mono)))
        peak = max(own for own, _, _ in parts)
        sounding = [(energy, size) for own, energy, size in parts if own > _QUIET * peak]
        level = sqrt(sum(e for e, _ in sounding) / max(1, sum(size for _, size in sounding)))
        notices = levels.notices()
        if levels.peak > 0 and not peak:
            notices += (
                "the channels cancel each other: their mean is silent, and no stem can be told "
                "apart in it",
            )
        return cls(name, rate, channels, levels.frames, peak, level, notices, read)

    @property
    def quiet(self) -> float:
        """The largest sample of what counts as silence."""
        return _QUIET * self.peak

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def blocks(self) -> Iterator[Tensor]:
        """The samples in order, float32 [channels, t]."""
        return iter(self._read())

    def mono(self, rate: int) -> Iterator[Tensor]:
        """The mean of the channels, [1, t], resampled to `rate`."""
        means = (block.mean(0, keepdim=True) for block in self.blocks())
        return resampled(means, self.rate, rate)

    def samples(self) -> Tensor:
        """All of them, [channels, frames]."""
        return torch.cat(list(self.blocks()), -1)


def _waveform(mixture: Any) -> Tensor:
    """float32 [channels, T] of a tensor or an array."""
    try:
        # a copy: arrays may be read-only or run backwards, which tensors cannot
        given = np.array(mixture) if isinstance(mixture, np.ndarray) else mixture
        signal = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SignalError(
            f"expected a sound file or a waveform, got {type(mixture).__name__} ({error})."
        ) from error
    if not signal.is_floating_point():
        raise SignalError(
            f"expected float samples, 1 being full scale, got {signal.dtype}. Divide 16-bit "
            "samples by 32768."
        )
    shape = list(signal.shape)
    signal = signal[None] if signal.ndim == 1 else signal
    if signal.ndim != 2 or len(signal) not in (1, 2):
        raise SignalError(
            f"expected a waveform [T] or [channels, T] of one or two channels, got {shape}."
        )
    check_signal(signal)
    return signal.float().cpu()
