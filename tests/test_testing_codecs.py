"""`check_codec` passes the library's codec and finds what is wrong with broken ones."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from tiny import blobs, make_codec
from torch import Tensor

from mlass_ppl.testing import check_codec


@dataclass(frozen=True)
class Levels:
    """A correct codec to break: each of six samples is rounded to one of nine levels."""

    alphabet: int = 9
    signal_shape: tuple[int, ...] = (6,)
    token_shape: tuple[int, ...] = (2, 3)

    def encode(self, signals: Tensor) -> Tensor:
        return self.log_weights(signals).argmax(-1)

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens / (self.alphabet - 1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents

    def decode(self, tokens: Tensor) -> Tensor:
        return self.decode_latents(self.embed(tokens))

    def features(self, signals: Tensor) -> Tensor:
        return signals[..., None]

    def log_weights(self, signals: Tensor) -> Tensor:
        levels = torch.arange(self.alphabet) / (self.alphabet - 1)
        return -((signals[..., None] - levels) ** 2) * 50


def signals() -> Tensor:
    return torch.rand(5, 6, generator=torch.Generator().manual_seed(0))


def test_codecs_of_the_library_pass() -> None:
    check_codec(make_codec(), blobs(4))
    check_codec(make_codec(steps=3), blobs(4))
    check_codec(Levels(), signals())


def test_features_and_weights_are_optional() -> None:
    class Plain:
        alphabet, signal_shape, token_shape = 9, (6,), (6,)
        encode, embed = Levels().encode, Levels().embed
        decode, decode_latents = Levels().decode, Levels().decode_latents

    check_codec(Plain(), signals())


class NoEmbed(Levels):
    embed = None  # type: ignore[assignment]


class ShapeAsList(Levels):
    token_shape = [6]  # type: ignore[assignment]  # noqa: RUF012

    def __init__(self) -> None: ...


class FloatTokens(Levels):
    def encode(self, signals: Tensor) -> Tensor:
        return super().encode(signals).float()


class GridOfTokens(Levels):
    def encode(self, signals: Tensor) -> Tensor:
        return super().encode(signals).unflatten(1, self.token_shape)


class OneTooMany(Levels):
    def encode(self, signals: Tensor) -> Tensor:
        return super().encode(signals) + 1


class Scaled(Levels):
    """Each batch is stretched to its own range."""

    def encode(self, signals: Tensor) -> Tensor:
        return super().encode((signals - signals.min()) / (signals.max() - signals.min()))


class Dithered(Levels):
    def encode(self, signals: Tensor) -> Tensor:
        return super().encode(signals + 0.2 * torch.rand_like(signals))


class InPlace(Levels):
    def encode(self, signals: Tensor) -> Tensor:
        return super().encode(signals.mul_(0.5))


class ChannelLost(Levels):
    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents[:, None]


class OtherPath(Levels):
    def decode(self, tokens: Tensor) -> Tensor:
        return super().decode(tokens).square()


class Unbounded(Levels):
    def decode_latents(self, latents: Tensor) -> Tensor:
        return 1 / latents


class NoisyDecoder(Levels):
    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents + 0.1 * torch.rand_like(latents)


class BatchNormDecoder(Levels):
    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents - latents.mean(0) + 0.5


class Narrow(Levels):
    """Refuses what its own decoder makes."""

    def encode(self, signals: Tensor) -> Tensor:
        if (signals == 0).any():
            raise ValueError("silence")
        return super().encode(signals)


class LogFeatures(Levels):
    def features(self, signals: Tensor) -> Tensor:
        return super().features(signals + 1).log()


class FlatFeatures(Levels):
    def features(self, signals: Tensor) -> Tensor:
        return signals


class WhitenedFeatures(Levels):
    """Affine in each batch, but another affine map in every batch."""

    def features(self, signals: Tensor) -> Tensor:
        return super().features(signals - signals.mean(0))


class Distances(Levels):
    def encode(self, signals: Tensor) -> Tensor:
        return Levels().encode(signals)

    def log_weights(self, signals: Tensor) -> Tensor:
        return -super().log_weights(signals)


class NoWeight(Levels):
    def encode(self, signals: Tensor) -> Tensor:
        return Levels().encode(signals)

    def log_weights(self, signals: Tensor) -> Tensor:
        return super().log_weights(signals) - float("inf")


BROKEN: list[tuple[type[Levels], str]] = [
    (NoEmbed, "it has no method embed"),
    (ShapeAsList, r"token_shape is \[6\]. It is a tuple"),
    (FloatTokens, "gave torch.float32. Tokens are torch.int64"),
    (GridOfTokens, r"gave \[5, 2, 3\]. Give tokens \[B, T\], here \[5, 6\]"),
    (OneTooMany, r"They lie in \[0, alphabet\) = \[0, 9\)"),
    (Scaled, "the tokens of a signal depend on the others"),
    (Dithered, "encode gives other tokens when asked again. Leave chance out"),
    (InPlace, "encode changed the signals"),
    (ChannelLost, r"gave torch.float32 \[5, 1, 6\]. Give signals"),
    (OtherPath, r"decode\(tokens\) differs from decode_latents\(embed\(tokens\)\)"),
    (Unbounded, r"decode\(tokens\) gave NaN or infinite"),
    (NoisyDecoder, "differs from|when asked again"),
    (BatchNormDecoder, "the signal of a row depends on the others"),
    (Narrow, r"encode\(decode\(tokens\)\) raised ValueError \(silence\)"),
    (LogFeatures, "features are not linear in the signal"),
    (FlatFeatures, r"features\(signals\): .*expected features float"),
    (WhitenedFeatures, "the features of a signal depend on the others"),
    (Distances, r"the largest log weight of signal 0, position 0, .*minus signs"),
    (NoWeight, r"log_weights\(signals\): .*gave NaN"),
]


@pytest.mark.parametrize(
    ("kind", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_is_wrong_is_said(kind: type[Levels], message: str) -> None:
    with pytest.raises(AssertionError, match=rf"(?s)^{kind.__name__}: .*({message})"):
        check_codec(kind(), signals())


def test_a_codec_in_training_mode_is_found() -> None:
    with pytest.raises(AssertionError, match=r"raised CodecError .*training mode"):
        check_codec(make_codec().train(), blobs(4))


def test_signals_of_another_shape_are_refused() -> None:
    for wrong in (signals()[:1], signals()[:, :5], signals()[0, 0]):
        with pytest.raises(AssertionError, match=r"was given signals .* Give it two or more"):
            check_codec(Levels(), wrong)
