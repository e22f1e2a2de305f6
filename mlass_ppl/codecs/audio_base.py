"""What a codec of sound says beyond what every codec says."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from .base import Codec


@runtime_checkable
class AudioCodec(Codec, Protocol):
    """A codec of mono signals [B, 1, samples], one token for each `hop` samples.

    `signal_shape` is (1, samples) and `token_shape` (samples / hop,). The weights know no length:
    `lasting` gives the same codec for another one.
    """

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        ...

    @property
    def hop(self) -> int:
        """Samples of one token."""
        ...

    def lasting(self, samples: int) -> AudioCodec:
        """This codec, by the same weights, for signals of `samples` samples.

        Raises SignalError unless that is a positive multiple of `hop`.
        """
        ...
