"""Any codec against its protocol."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from ..codecs.base import Codec
from ..errors import CodecError

_T = TypeVar("_T")


def check_codec(codec: Codec, signals: Tensor, *, tolerance: float = 1e-4) -> None:
    """Hold a codec to its protocol on `signals` [B, *signal_shape], two or more, all different.

    Tokens must be int64 [B, T] in [0, alphabet), `decode` must be `decode_latents(embed(tokens))`,
    and what comes back must be finite signals that can be encoded again; nothing may depend on the
    other rows or on chance. Where the codec has `features`, they must be linear in the signal;
    where it has `log_weights`, the largest must be the token of `encode`. tolerance: absolute, of
    signals; relative to the largest, of features. Raises AssertionError that says what to mend.
    """
    check = _Check(codec, tolerance)
    check.members()
    if signals.ndim < 1 or len(signals) < 2 or tuple(signals.shape[1:]) != codec.signal_shape:
        check.fail(
            f"check_codec was given signals {list(signals.shape)}",
            f"Give it two or more signals {['B', *codec.signal_shape]}.",
        )
    with torch.no_grad():
        tokens = check.encoding(signals)
        check.decoding(tokens)
        if hasattr(codec, "features"):
            check.features(signals)
        if hasattr(codec, "log_weights"):
            check.weights(signals, tokens)


class _Check:
    def __init__(self, codec: Codec, tolerance: float) -> None:
        self.codec, self.tolerance = codec, tolerance
        self.random = torch.Generator().manual_seed(0)

    def fail(self, what: str, mend: str) -> NoReturn:
        raise AssertionError(f"{type(self.codec).__name__}: {what}. {mend}")

    def ask(self, what: str, question: Callable[[], _T], mend: str = "") -> _T:
        try:
            return question()
        except Exception as error:
            said = f"{type(self.codec).__name__}: {what} raised {type(error).__name__} ({error})."
            raise AssertionError(f"{said} {mend}".strip()) from error

    def members(self) -> None:
        mend = (
            "A codec has alphabet, signal_shape, token_shape, encode, decode, embed and "
            "decode_latents."
        )
        for name in ("encode", "decode", "embed", "decode_latents"):
            if not callable(getattr(self.codec, name, None)):
                self.fail(f"it has no method {name}", mend)
        alphabet = getattr(self.codec, "alphabet", None)
        if type(alphabet) is not int or alphabet < 1:
            self.fail(f"alphabet is {alphabet!r}", "It is the number of tokens, an int.")
        for name in ("signal_shape", "token_shape"):
            shape: Any = getattr(self.codec, name, None)
            if not isinstance(shape, tuple) or any(type(n) is not int or n < 1 for n in shape):
                self.fail(f"{name} is {shape!r}", "It is a tuple of sizes, without the batch axis.")

    def _tokens(self, what: str, signals: Tensor) -> Tensor:
        tokens = self.ask(what, lambda: self.codec.encode(signals))
        expected = (len(signals), prod(self.codec.token_shape))
        if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64:
            kind = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
            self.fail(f"{what} gave {kind}", "Tokens are torch.int64.")
        if tuple(tokens.shape) != expected:
            mend = f"Give tokens [B, T], here {list(expected)}: T is the product of token_shape."
            self.fail(f"{what} gave {list(tokens.shape)}", mend)
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codec.alphabet:
            said = f"{what} gave tokens from {int(tokens.min())} to {int(tokens.max())}"
            self.fail(said, f"They lie in [0, alphabet) = [0, {self.codec.alphabet}).")
        return tokens

    def encoding(self, signals: Tensor) -> Tensor:
        kept = signals.clone()
        tokens = self._tokens("encode(signals)", signals)
        if not torch.equal(signals, kept):
            self.fail("encode changed the signals that it was given", "Copy before writing.")
        if not torch.equal(self._tokens("encode, again,", signals), tokens):
            self.fail("encode gives other tokens when asked again", "Leave chance out: eval().")
        mend = (
            "Row r depends on signal r alone: no batch statistics (eval()), no padding by others."
        )
        flipped = self._tokens("encode, in another order,", signals.flip(0)).flip(0)
        alone = self._tokens("encode, of one signal,", signals[:1])
        if not torch.equal(flipped, tokens) or not torch.equal(alone, tokens[:1]):
            self.fail("the tokens of a signal depend on the others in the batch", mend)
        return tokens

    def _signals(self, what: str, tokens: Tensor) -> Tensor:
        signals = self.ask(what, lambda: self.codec.decode(tokens))
        expected = (len(tokens), *self.codec.signal_shape)
        if tuple(signals.shape) != expected or not signals.is_floating_point():
            mend = f"Give signals [B, *signal_shape], here floats {list(expected)}."
            self.fail(f"{what} gave {signals.dtype} {list(signals.shape)}", mend)
        if not torch.isfinite(signals).all():
            self.fail(f"{what} gave NaN or infinite values", "Every token sequence has a signal.")
        return signals

    def decoding(self, tokens: Tensor) -> None:
        edges = torch.stack(
            [
                torch.zeros_like(tokens[0]),
                torch.full_like(tokens[0], self.codec.alphabet - 1),
                torch.randint(self.codec.alphabet, tokens[0].shape, generator=self.random),
            ]
        )
        for batch, kind in ((tokens, "tokens"), (edges, "tokens of any kind")):
            signals = self._signals(f"decode({kind})", batch)
            what = "decode_latents(embed(tokens))"
            split = self.ask(what, lambda b=batch: self.codec.decode_latents(self.codec.embed(b)))  # type: ignore[misc]
            if split.shape != signals.shape or self._far(split, signals):
                mend = "Define decode so; refinement follows the gradient through decode_latents."
                self.fail(f"decode(tokens) differs from {what}", mend)
            if self._far(self._signals("decode, again,", batch), signals):
                self.fail(
                    "decode gives other signals when asked again", "Leave chance out: eval()."
                )
            mend = "Row r depends on its tokens alone: no batch statistics (eval())."
            flipped = self._signals("decode, in another order,", batch.flip(0)).flip(0)
            alone = self._signals("decode, of one row,", batch[:1])
            if self._far(flipped, signals) or self._far(alone, signals[:1]):
                self.fail("the signal of a row depends on the others in the batch", mend)
            self._tokens("encode(decode(tokens))", signals)

    def _far(self, found: Tensor, wanted: Tensor) -> bool:
        return bool(((found - wanted).abs() > self.tolerance).any())

    def features(self, signals: Tensor) -> None:
        features = self._features(signals)
        scale = max(1.0, float(features.abs().max()))
        share, other = 0.3, signals.roll(1, 0)
        mixed = self._features(share * signals + (1 - share) * other)
        wanted = share * features + (1 - share) * features.roll(1, 0)
        error = float((mixed - wanted).abs().max())
        if error > self.tolerance * scale:
            mend = (
                "f(a x + (1 - a) y) = a f(x) + (1 - a) f(y) has to hold, since the feature of a "
                "mixture is told from those of its parts: no normalisation, clipping or logarithm."
            )
            self.fail(f"features are not linear in the signal (off by {error:.3g})", mend)
        if float((self._features(signals[:1]) - features[:1]).abs().max()) > self.tolerance * scale:
            mend = "Row r depends on signal r alone."
            self.fail("the features of a signal depend on the others in the batch", mend)

    def _features(self, signals: Tensor) -> Tensor:
        from ..codecs.encoding import encode_features

        try:
            return encode_features(self.codec, signals)
        except CodecError as error:
            self.fail(f"features(signals): {error}", "Give floats [B, T, D].")

    def weights(self, signals: Tensor, tokens: Tensor) -> None:
        from ..codecs.encoding import encode_weights

        try:
            weights = encode_weights(self.codec, signals)
        except CodecError as error:
            self.fail(f"log_weights(signals): {error}", "Give nats [B, T, K].")
        short = weights.amax(-1) - weights.gather(-1, tokens[..., None])[..., 0]
        if (short > self.tolerance).any():
            row, place = (int(axis) for axis in (short > self.tolerance).nonzero()[0])
            best = int(weights[row, place].argmax())
            self.fail(
                f"the largest log weight of signal {row}, position {place}, is that of token "
                f"{best}, while encode gives {int(tokens[row, place])}",
                "Soft evidence must peak at the token of encode: use the same distances, and minus "
                "signs.",
            )
        if not torch.allclose(encode_weights(self.codec, signals[:1]), weights[:1], atol=1e-3):
            mend = "Row r depends on signal r alone."
            self.fail("the log weights of a signal depend on the others in the batch", mend)
