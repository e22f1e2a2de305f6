"""What a codec is: signals to tokens and back, and what it may also say of a signal."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """Turns signals [B, *signal_shape] into tokens [B, T] in [0, alphabet) and back.

    `embed` and `decode_latents` split `decode` in two, so that refinement can follow the gradient
    through the decoder: `decode(tokens) == decode_latents(embed(tokens))`. Two more methods are
    optional: `log_weights` for sites with `Soft` evidence (`SoftCodec`), `features` for sites with
    `Feature` evidence (`FeatureCodec`).
    """

    @property
    def alphabet(self) -> int:
        """K, the number of codes."""
        ...

    @property
    def signal_shape(self) -> tuple[int, ...]:
        """Shape of one signal, such as (1, 28, 28)."""
        ...

    @property
    def token_shape(self) -> tuple[int, ...]:
        """How the tokens lie in a signal, such as (7, 7); T is the product."""
        ...

    def encode(self, signals: Tensor) -> Tensor:
        """Tokens int64 [B, T] in [0, K) of float signals [B, *signal_shape]."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """Latents, float [B, ...] of any shape, of tokens int64 [B, T]."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Signals float [B, *signal_shape] of latents; differentiable, for refinement."""
        ...

    def decode(self, tokens: Tensor) -> Tensor:
        """Signals float [B, *signal_shape] of tokens int64 [B, T]."""
        ...


@runtime_checkable
class SoftCodec(Codec, Protocol):
    """A codec that also says how well every token fits."""

    def log_weights(self, signals: Tensor) -> Tensor:
        """log p(signal at t | token), up to a constant of each position, in nats: float [B, T, K]
        of signals [B, *signal_shape]. The largest one is the token that `encode` gives."""
        ...


@runtime_checkable
class FeatureCodec(Codec, Protocol):
    """A codec that also gives a continuous feature of each position.

    The feature of a mixture should be the mixture of its sources' features, that is linear in the
    signal: then the Gaussian tables of never-seen parents can be made from those of the parents
    alone.
    """

    def features(self, signals: Tensor) -> Tensor:
        """Features float [B, T, D] of signals [B, *signal_shape]."""
        ...
