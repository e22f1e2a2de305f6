"""What is observed of a signal, by a codec: tokens, weights or features, each checked."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ..errors import CodecError
from .base import Codec, FeatureCodec, SoftCodec


def encode_tokens(codec: Codec, signals: Tensor) -> Tensor:
    """Tokens int64 [B, T] of signals [B, *signal_shape]. Raises CodecError on another shape."""
    tokens = codec.encode(signals)
    expected = (len(signals), tokens_of(codec))
    if tuple(tokens.shape) != expected:
        raise CodecError(f"expected tokens {list(expected)}, got {list(tokens.shape)}.")
    return tokens


def encode_weights(codec: Codec, signals: Tensor) -> Tensor:
    """Log weights float [B, T, K] of signals [B, *signal_shape], each row normalised.

    Raises CodecError when the codec has no `log_weights`, or they are of another shape, NaN, +inf
    or all -inf at a position.
    """
    if not isinstance(codec, SoftCodec):
        raise CodecError(
            f"{type(codec).__name__} has no log_weights(signals) -> float [B, T, "
            f"{codec.alphabet}], which Soft() evidence needs. Add that method, or observe "
            "Token() there."
        )
    weights = codec.log_weights(signals)
    expected = (len(signals), tokens_of(codec), codec.alphabet)
    if tuple(weights.shape) != expected or not weights.is_floating_point():
        raise CodecError(
            f"expected log weights float {list(expected)} of {type(codec).__name__}.log_weights, "
            f"got {weights.dtype} {list(weights.shape)}."
        )
    out = weights.log_softmax(-1)  # NaN where a row holds NaN or +inf, or nothing but -inf
    if torch.isnan(out).any():
        raise CodecError(
            f"{type(codec).__name__}.log_weights gave NaN, +inf or a position without any weight; "
            "expected log weights in nats, -inf for impossible tokens only."
        )
    return out


def encode_features(codec: Codec, signals: Tensor) -> Tensor:
    """Features float [B, T, D] of signals [B, *signal_shape].

    Raises CodecError when the codec has no `features`, or they are of another shape or not finite.
    """
    if not isinstance(codec, FeatureCodec):
        raise CodecError(
            f"{type(codec).__name__} has no features(signals) -> float [B, T, D], which Feature() "
            "evidence needs. Add that method (linear in the signal), or observe Token() there."
        )
    features = codec.features(signals)
    expected = (len(signals), tokens_of(codec))
    if (
        features.ndim != 3
        or tuple(features.shape[:2]) != expected
        or not features.is_floating_point()
    ):
        raise CodecError(
            f"expected features float [{expected[0]}, {expected[1]}, D] of "
            f"{type(codec).__name__}.features, got {features.dtype} {list(features.shape)}."
        )
    if not torch.isfinite(features).all():
        raise CodecError(f"{type(codec).__name__}.features gave NaN or infinite values.")
    return features


def tokens_of(codec: Codec) -> int:
    """Number T of tokens in a signal."""
    return prod(codec.token_shape)
