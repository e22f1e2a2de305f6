"""What a codec is: signals to tokens and back."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """Turns signals [B, *signal_shape] into tokens [B, T] in [0, alphabet) and back.

    `embed` and `decode_latents` split `decode` in two, so that refinement can follow the gradient
    through the decoder: `decode(tokens) == decode_latents(embed(tokens))`.
    """

    @property
    def alphabet(self) -> int: ...

    @property
    def signal_shape(self) -> tuple[int, ...]: ...

    @property
    def token_shape(self) -> tuple[int, ...]: ...

    def encode(self, signals: Tensor) -> Tensor: ...

    def embed(self, tokens: Tensor) -> Tensor: ...

    def decode_latents(self, latents: Tensor) -> Tensor: ...

    def decode(self, tokens: Tensor) -> Tensor: ...
