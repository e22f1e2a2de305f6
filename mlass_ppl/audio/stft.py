"""The short-time Fourier transform with an inverse that is exact at any length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import OptionError, SignalError


@dataclass(frozen=True)
class STFT:
    """Frames of `window` samples (periodic Hann) every `hop` samples, centred, with silence around
    the signal: frame m is centred on sample m * hop.

    The defaults are those of Open-Unmix (Stöter et al., 2019) and of the usual mask oracles.
    Raises OptionError unless 1 <= hop <= window / 2: beyond that some samples would be lost.
    """

    window: int = 4096
    hop: int = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.hop <= self.window // 2:
            raise OptionError(
                "an STFT takes a window of 2 or more samples and a hop from 1 to half of it, got "
                f"{self.window} and {self.hop}."
            )

    def forward(self, signal: Tensor) -> Tensor:
        """Spectrum, complex [..., window // 2 + 1, 1 + ceil(T / hop)], of a signal [..., T] of
        float32 or float64. Raises SignalError on another type and on an empty signal."""
        if signal.dtype not in (torch.float32, torch.float64) or not signal.numel():
            raise SignalError(
                "an STFT takes a signal [..., T] of float32 or float64 with one or more samples, "
                f"not {signal.dtype} {tuple(signal.shape)}."
            )
        # Whole hops: the last samples then lie well inside two frames, like all others.
        padded = pad(signal, (0, -signal.shape[-1] % self.hop))
        spectrum = torch.stft(
            padded.reshape(-1, padded.shape[-1]),
            self.window,
            self.hop,
            window=self._hann(signal),
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.reshape(*signal.shape[:-1], *spectrum.shape[-2:])

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """Signal [..., length] of a spectrum as `forward` makes of `length` samples."""
        frames = 1 + -(-length // self.hop)
        if length < 1 or spectrum.shape[-2:] != (self.window // 2 + 1, frames):
            raise SignalError(
                f"the spectrum of {length:,} samples is [..., {self.window // 2 + 1}, {frames}], "
                f"not {tuple(spectrum.shape)}."
            )
        signal = torch.istft(
            spectrum.reshape(-1, *spectrum.shape[-2:]),
            self.window,
            self.hop,
            window=self._hann(spectrum.real),
            length=length,
        )
        return signal.reshape(*spectrum.shape[:-2], length)

    def _hann(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.window, dtype=like.dtype, device=like.device)
