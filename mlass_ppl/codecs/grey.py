"""What VQ-VAEs of grey images share: distances to the codes, and every check of what comes in."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from ..errors import CodecError, SignalError

PATCH = 4
"""Side, in pixels, of the square of an image that one token stands for."""


class GreyVQVAE(nn.Module, ABC):
    """A `Codec` of grey images float [B, 1, size, size] in [0, 1], one token for each 4x4 patch,
    row by row: int64 [B, (size / 4)^2]. Also a `SoftCodec` and a `FeatureCodec`.

    A class of it sets `encoder` ([B, 1, S, S] to latents [B, D, S/4, S/4]) and `decoder` (back, to
    pixel logits), and says its `size`, `alphabet` and `codebook_weight`.
    """

    encoder: nn.Module
    decoder: nn.Module

    @property
    @abstractmethod
    def size(self) -> int:
        """Side of an image in pixels."""

    @property
    @abstractmethod
    def alphabet(self) -> int:
        """Number of codes K."""

    @property
    @abstractmethod
    def codebook_weight(self) -> Tensor:
        """The codes, float [K, D]."""

    @property
    def signal_shape(self) -> tuple[int, ...]:
        return (1, self.size, self.size)

    @property
    def token_shape(self) -> tuple[int, ...]:
        return (self.size // PATCH, self.size // PATCH)

    @torch.no_grad()
    def encode(self, signals: Tensor) -> Tensor:
        """Tokens int64 [B, T] of signals [B, 1, S, S] in [0, 1]: the nearest code.

        Raises SignalError on another shape and on pixels that are NaN or out of range, CodecError
        in training mode, where batch statistics would make a token depend on the other images.
        """
        self._check(signals, encoder=True)
        # Small batches keep the activations in the cache, which is faster than one large one.
        return torch.cat([self._scores(batch).argmin(-1) for batch in signals.split(256)])

    @torch.no_grad()
    def log_weights(self, signals: Tensor) -> Tensor:
        """Log weights of every token, float [B, T, K] in nats, of signals as `encode` takes them.

        They are those of an isotropic Gaussian around each code: -d^2 / (2 v), where d is the
        distance between the encoder's output and the code, each row normalised. v estimates the
        quantisation error of one dimension from the codes alone, so that no weight depends on other
        signals: a quantiser of step s errs by s^2 / 12, and s^2 is the mean squared distance of a
        code to its nearest neighbour, over the dimensions. `Soft(temperature)` multiplies v.

        Raises as `encode` does, and CodecError when all codes are the same.
        """
        self._check(signals, encoder=True)
        unit = self._variance
        return torch.cat(
            [(self._scores(batch) / (-2 * unit)).log_softmax(-1) for batch in signals.split(256)]
        )

    def features(self, signals: Tensor) -> Tensor:
        """The pixels of each token's 4x4 patch, row by row: float [B, T, 16] of signals
        [B, 1, S, S] in [0, 1]. Linear in the signal. Raises SignalError as `encode` does."""
        self._check(signals)
        return unfold(signals, PATCH, stride=PATCH).transpose(1, 2)

    def embed(self, tokens: Tensor) -> Tensor:
        """Latents [B, D, h, w] of tokens [B, T]. Raises CodecError on tokens out of range."""
        h, w = self.token_shape
        if tokens.ndim != 2 or tokens.shape[1] != h * w:
            raise CodecError(f"expected tokens [B, {h * w}], got {list(tokens.shape)}.")
        if tokens.is_floating_point():
            raise CodecError(f"tokens must be integers, got {tokens.dtype}.")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.alphabet:
            raise CodecError(
                f"tokens must lie in [0, {self.alphabet}), got "
                f"[{int(tokens.min())}, {int(tokens.max())}]."
            )
        return self.codebook_weight[tokens].transpose(1, 2).unflatten(2, (h, w))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images [B, 1, S, S] in [0, 1] of latents [B, D, h, w]; differentiable."""
        return torch.sigmoid(self.decoder(latents))

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Images [B, 1, S, S] in [0, 1] of tokens [B, T]."""
        return self.decode_latents(self.embed(tokens))

    def _check(self, signals: Tensor, *, encoder: bool = False) -> None:
        if encoder and self.training:
            raise CodecError("this codec is in training mode: call codec.eval() before encoding.")
        expected = self.signal_shape
        if signals.ndim != 4 or tuple(signals.shape[1:]) != expected:
            raise SignalError(
                f"expected images [B, {', '.join(map(str, expected))}], got {list(signals.shape)}."
            )
        if not torch.isfinite(signals).all():
            raise SignalError("the image holds NaN or infinite pixels; expected values in [0, 1].")
        if len(signals) and (signals.min() < -1e-4 or signals.max() > 1 + 1e-4):
            raise SignalError(
                f"pixels must lie in [0, 1], got [{float(signals.min()):.3g}, "
                f"{float(signals.max()):.3g}]. Divide 8-bit images by 255."
            )

    def _scores(self, signals: Tensor) -> Tensor:
        """Squared distances [B, T, K] of the encoder's outputs to the codes, less the square of
        the output, which is the same for all codes."""
        book = self.codebook_weight
        latents = self.encoder(signals.to(book.dtype)).flatten(2).transpose(1, 2)
        return (book * book).sum(-1) - 2 * latents @ book.T

    @property
    def _variance(self) -> float:
        """Estimated mean squared quantisation error of each dimension of a latent."""
        if self.alphabet == 1:
            return 1.0  # the only token has all the weight, whatever its distance
        book = self.codebook_weight.double()
        nearest = torch.cdist(book, book).square().fill_diagonal_(float("inf")).amin(1)
        if not nearest.any():
            raise CodecError(
                f"all {self.alphabet} codes of this codec are the same, so that no signal tells "
                "them apart. Train the codec."
            )
        return float(nearest.mean()) / book.shape[1] / 12
