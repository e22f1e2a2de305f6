"""An image VQ-VAE whose tokens see one patch each and whose decoder sees their neighbours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CodecError, SignalError


@dataclass(frozen=True)
class ImageVQVAEConfig:
    """Sizes of an `ImageVQVAE`.

    size: side of the square grey image in pixels, a multiple of 4.
    alphabet: number of codes K. latent: width of a code. encoder, decoder: channels.
    """

    size: int = 28
    alphabet: int = 256
    latent: int = 32
    encoder: int = 128
    decoder: int = 64

    def __post_init__(self) -> None:
        if any(not isinstance(size, int) or size < 1 for size in asdict(self).values()):
            raise CodecError(f"sizes must be positive integers, got {self}.")
        if self.size % 4 or self.decoder % 4:
            raise CodecError(
                f"image size and decoder width must be multiples of 4, got {self.size} and "
                f"{self.decoder}."
            )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ImageVQVAE(nn.Module):
    """VQ-VAE (van den Oord et al., 2017) for grey images, quantised by vector-quantize-pytorch.

    The encoder reads each 4x4 patch on its own: the token of a mixture's patch then depends on
    the sources' pixels in that patch alone, which is what a table p(m | z^1, z^2) can express.
    The decoder is convolutional over neighbouring codes. Implements the `Codec` protocol with
    signals float [B, 1, size, size] in [0, 1] and tokens int64 [B, (size / 4)^2], row by row.
    """

    def __init__(self, config: ImageVQVAEConfig | None = None) -> None:
        super().__init__()
        from vector_quantize_pytorch import VectorQuantize

        self.config = config = config or ImageVQVAEConfig()
        width, half = config.decoder, config.decoder // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, config.encoder, 4, stride=4),
            nn.SiLU(),
            nn.Conv2d(config.encoder, config.encoder, 1),
            nn.SiLU(),
            nn.Conv2d(config.encoder, config.latent, 1),
            # Keeps the codes' scale fixed while the encoder moves; without it codes die.
            nn.BatchNorm2d(config.latent, affine=False),
        )
        self.quantiser = VectorQuantize(
            dim=config.latent,
            codebook_size=config.alphabet,
            decay=0.95,
            commitment_weight=0.25,
            kmeans_init=True,
            threshold_ema_dead_code=2,
            accept_image_fmap=True,
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent, width, 3, padding=1),
            _Residual(width),
            _Residual(width),
            nn.SiLU(),
            nn.ConvTranspose2d(width, half, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(half, half // 2, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(half // 2, 1, 3, padding=1),
        )

    @property
    def alphabet(self) -> int:
        return self.config.alphabet

    @property
    def signal_shape(self) -> tuple[int, ...]:
        return (1, self.config.size, self.config.size)

    @property
    def token_shape(self) -> tuple[int, ...]:
        return (self.config.size // 4, self.config.size // 4)

    def forward(self, signals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Training pass: pixel logits [B, 1, S, S], tokens [B, h, w], commitment loss (scalar)."""
        quantised, tokens, loss = self.quantiser(self.encoder(signals))
        return self.decoder(quantised), tokens, loss

    @torch.no_grad()
    def encode(self, signals: Tensor) -> Tensor:
        """Tokens int64 [B, T] of signals [B, 1, S, S] in [0, 1].

        Raises SignalError on another shape and on pixels that are NaN or out of range, CodecError
        in training mode, where batch statistics would make a token depend on the other images.
        """
        self._check(signals, encoder=True)
        # Small batches keep the activations in the cache: three times as fast as one large one.
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
        return torch.nn.functional.unfold(signals, 4, stride=4).transpose(1, 2)

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
        book = self._codebook
        latents = self.encoder(signals.to(book.dtype)).flatten(2).transpose(1, 2)
        return (book * book).sum(-1) - 2 * latents @ book.T

    @property
    def _variance(self) -> float:
        """Estimated mean squared quantisation error of each dimension of a latent."""
        if self.alphabet == 1:
            return 1.0  # the only token has all the weight, whatever its distance
        distances = torch.cdist(self._codebook.double(), self._codebook.double()).square()
        nearest = distances.fill_diagonal_(float("inf")).amin(1)
        if not nearest.any():
            raise CodecError(
                f"all {self.alphabet} codes of this codec are the same, so that no signal tells "
                "them apart. Train the codec."
            )
        return float(nearest.mean()) / self.config.latent / 12

    def embed(self, tokens: Tensor) -> Tensor:
        """Latents [B, latent, h, w] of tokens [B, T]. Raises CodecError on tokens out of range."""
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
        return self._codebook[tokens].transpose(1, 2).unflatten(2, (h, w))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images [B, 1, S, S] in [0, 1] of latents [B, latent, h, w]; differentiable."""
        return torch.sigmoid(self.decoder(latents))

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Images [B, 1, S, S] in [0, 1] of tokens [B, T]."""
        return self.decode_latents(self.embed(tokens))

    @property
    def _codebook(self) -> Tensor:
        book: Tensor = self.quantiser.codebook
        return book

    def describe(self) -> dict[str, Any]:
        """The configuration, as it stands in a bundle's card."""
        return {"kind": "image-vqvae", **asdict(self.config)}
