"""How loud a recording is where it sounds."""

from __future__ import annotations

from torch import Tensor

_PARTS = 10
"""A second."""

_RANGE = 1e-4
"""Share of the loudest part's energy, -40 dB, from which on a part sounds."""


def sounding_level(signal: Tensor, rate: int) -> float:
    """RMS of a signal [t] of `rate` Hz over its tenths of a second that are less than 40 dB below
    the loudest one; 0 where it is silent. A signal shorter than that is one part."""
    size = max(1, min(rate // _PARTS, len(signal)))
    energy = signal[: len(signal) // size * size].view(-1, size).double().square().mean(1)
    if not len(energy) or not energy.max() > 0:
        return 0.0
    return float(energy[energy > _RANGE * energy.max()].mean().sqrt())


def levelled(signal: Tensor, rate: int, level: float = 0.05) -> Tensor:
    """The signal [t] brought to the sounding level `level`, so that recordings from near and far
    are mixed at 0 dB, as speech-separation data sets mix them; silence stays silence."""
    own = sounding_level(signal, rate)
    return signal * (level / own) if own > 0 else signal
