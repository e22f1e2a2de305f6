"""Distance of log-mel spectra: for methods whose phase is their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...audio import STFT
from ...errors import OptionError, SignalError
from ..metrics import float64


@dataclass(frozen=True)
class LogMel:
    """Log-mel spectrum with everything that its numbers depend on.

    rate: samples a second. window, hop: samples of the STFT (periodic Hann). bands: triangles on
    the mel scale 2595 log10(1 + f / 700), of height 1, between `low` and `high` Hz (default half of
    `rate`). Magnitudes are divided by a quarter of the window (a full-scale sine is 1 in its bin);
    bands below `floor`, -100 dB, count as the floor; the logarithm is the natural one.

    Raises OptionError on a value out of range, and on so many bands that one falls between bins.
    """

    rate: int
    window: int = 2048
    hop: int = 512
    bands: int = 80
    low: float = 0.0
    high: float | None = None
    floor: float = 1e-5

    def __post_init__(self) -> None:
        STFT(self.window, self.hop)
        fine = self.rate >= 1 and self.bands >= 1 and 0.0 < self.floor < float("inf")
        if not fine or not 0.0 <= self.low < self._high <= self.rate / 2:
            raise OptionError(
                "LogMel takes a rate, one or more bands, a floor > 0 and 0 <= low < high <= rate / "
                f"2, got {self}."
            )
        if empty := int((self.filters().sum(1) == 0).sum()):
            raise OptionError(
                f"{empty} of {self.bands} mel bands hold no frequency of a window of {self.window} "
                "samples. Take fewer bands or a longer window."
            )

    def __call__(self, signals: Any) -> np.ndarray:
        """Log-mel spectra float64 [..., bands, frames] of signals [..., T], a frame per hop."""
        array = torch.from_numpy(float64(signals, "signals"))
        magnitude = STFT(self.window, self.hop).forward(array).abs() / (self.window / 4)
        bands = torch.einsum("kf,...ft->...kt", self.filters(), magnitude)
        return np.asarray(bands.clamp_min(self.floor).log())

    def filters(self) -> Tensor:
        """Weight of each frequency bin in each band, float64 [bands, window // 2 + 1]."""
        edges = np.linspace(_mel(self.low), _mel(self._high), self.bands + 2)
        left, centre, right = (_hertz(edges[i : i + self.bands, None]) for i in range(3))
        bins = np.linspace(0.0, self.rate / 2, self.window // 2 + 1)
        rise, fall = (bins - left) / (centre - left), (right - bins) / (right - centre)
        return torch.from_numpy(np.maximum(0.0, np.minimum(rise, fall)))

    @property
    def _high(self) -> float:
        return self.rate / 2 if self.high is None else self.high


def log_mel_l1(estimates: Any, truths: Any, mel: LogMel) -> np.ndarray:
    """Mean absolute difference of log-mel spectra, float64 [...], 0 for equal ones.

    `estimates` and `truths` [..., T]. NaN where the true source is silent. Raises SignalError when
    they differ in length, and on NaN.
    """
    left, right = float64(estimates, "estimates"), float64(truths, "true signals")
    if not (left.ndim and right.ndim) or left.shape[-1] != right.shape[-1]:
        raise SignalError(
            f"log-mel spectra compare signals [..., T] of one length, not {left.shape} and "
            f"{right.shape}."
        )
    distance = np.abs(mel(left) - mel(right)).mean((-2, -1))
    return np.where((right != 0).any(-1), distance, np.nan)


def _mel(hertz: float) -> float:
    return 2595.0 * float(np.log10(1.0 + hertz / 700.0))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
