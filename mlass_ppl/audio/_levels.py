"""What a signal's samples say of it: silent, above full scale, clipped."""

from __future__ import annotations

import torch
from torch import Tensor

_FULL = 32767 / 32768  # the largest sample of a 16-bit file
_RUN = 3  # samples in a row at full scale: a wave's own peak is hardly ever that flat


class Levels:
    """Gathers length, peak and clipped stretches of a signal that comes in pieces."""

    def __init__(self) -> None:
        self.frames = 0
        self.peak = 0.0
        self.clipped = 0
        self._last: Tensor | None = None

    def add(self, piece: Tensor) -> None:
        """Take in the next piece [channels, t]."""
        if not piece.numel():
            return
        self.frames += piece.shape[-1]
        level = piece.abs()
        self.peak = max(self.peak, float(level.max()))
        full = level >= _FULL
        if self._last is None:
            self._last = full.new_zeros(full.shape[0], _RUN)
        # A run is counted at its third sample; three samples of the piece before see the start.
        joined = torch.cat([self._last, full], 1)
        run = joined.unfold(1, _RUN, 1).all(-1)
        self.clipped += int((run[:, 1:] & ~run[:, :-1]).sum())
        self._last = joined[:, -_RUN:]

    def notices(self) -> tuple[str, ...]:
        """One sentence for what a listener should know."""
        if not self.peak:
            return ("the file is silent",)
        if self.peak > 1.0:
            return (f"peaks at {self.peak:.3g}, above full scale (1)",)
        if self.clipped:
            return (f"clipped: full scale is held in {self.clipped:,} places",)
        return ()
