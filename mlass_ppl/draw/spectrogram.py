"""Pictures of sounds: one spectrogram above the other, on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import OptionError, SignalError
from ._style import INK, LABEL, MAP, MUTED, WIDE, plain, quiet

if TYPE_CHECKING:
    from ._figure import Drawing

_WINDOW = 0.046  # seconds, about
_COLUMNS = 1000  # more than a picture has pixels for
_HEIGHT, _SIDE, _FOOT, _HEAD = 1.25, 1.15, 0.5, 0.12  # inches


def draw_spectrograms(
    signals: Mapping[str, Tensor],
    rate: int,
    *,
    path: str | Path | None = None,
    decibels: float = 80.0,
) -> Drawing:
    """Draw the spectrogram of each signal {name: [T] or [channels, T]} sampled at `rate`.

    Colours are the power of each bin, averaged over channels, in dB below the loudest bin of all
    signals; `decibels` below it is black. Long signals are averaged over the time of a column.
    Raises SignalError when signals are empty, not finite or of several lengths, OptionError on an
    unknown ending of `path`.
    """
    from ._figure import Pixels

    if not signals or len({signal.shape[-1] for signal in signals.values()}) > 1:
        shapes = {name: list(signal.shape) for name, signal in signals.items()}
        raise SignalError(f"spectrograms take one or more signals of one length, got {shapes}.")
    if not decibels > 0:
        raise OptionError(f"decibels is a positive range, got {decibels!r}.")
    window = 2 ** max(5, round(math.log2(_WINDOW * rate)))
    powers = {name: power(signal, window) for name, signal in signals.items()}
    loudest = max(float(own.max()) for own in powers.values()) or 1.0
    seconds = next(iter(signals.values())).shape[-1] / rate
    height = _HEAD + _HEIGHT * len(powers) + _FOOT
    figure = Pixels(figsize=(WIDE, height))
    for row, (name, own) in enumerate(powers.items()):
        bottom = (_FOOT + _HEIGHT * (len(powers) - 1 - row)) / height
        tall = (_HEIGHT - 0.1) / height
        axes = figure.add_axes((_SIDE / WIDE, bottom, 1 - (_SIDE + 0.15) / WIDE, tall))
        levels = 10 * np.log10(np.maximum(own / loudest, 10 ** (-decibels / 10)))
        axes.imshow(
            levels, cmap=MAP, vmin=-decibels, vmax=0, origin="lower", aspect="auto",
            interpolation="nearest", extent=(0, seconds, 0, rate / 2000),
        )  # fmt: skip
        quiet(axes)
        axes.tick_params(left=True, bottom=True, labelbottom=row == len(powers) - 1)
        axes.locator_params(axis="y", nbins=4)
        title = f"{plain(name)}\nkHz"
        axes.set_ylabel(title, fontsize=LABEL, color=INK, rotation=0, ha="right", va="center")
        if row == len(powers) - 1:
            axes.set_xlabel("seconds", fontsize=LABEL, color=MUTED)
    if path is not None:
        figure.write(path)
    return figure


def power(signal: Tensor, window: int) -> np.ndarray:
    """Mean power of each bin and column, float64 [window / 2 + 1, columns], of a signal [..., T]:
    that of Hann windows which overlap by half or more, those of one column averaged (Welch,
    1967)."""
    if not signal.numel() or not signal.isfinite().all():
        raise SignalError(
            f"a spectrogram takes a finite signal [channels, T], got {list(signal.shape)}"
            + (" with NaN or infinite samples." if signal.numel() else ".")
        )
    rows = signal.detach().cpu().float().reshape(-1, signal.shape[-1])
    length = rows.shape[-1]
    hop = max(1, min(window // 2, length // _COLUMNS))
    frames = -(-length // hop)
    rows = pad(rows, (window // 2, hop * frames + window - length))
    hann = torch.hann_window(window)
    columns = []
    for some in np.array_split(np.arange(frames), min(frames, _COLUMNS)):
        part = rows[:, some[0] * hop : some[-1] * hop + window].unfold(-1, window, hop)
        columns.append(torch.fft.rfft(part * hann).abs().double().square().mean((0, 1)))
    return np.asarray(torch.stack(columns, 1).numpy())
