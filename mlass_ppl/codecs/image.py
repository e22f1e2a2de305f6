"""An image VQ-VAE whose tokens see one patch each and whose decoder sees their neighbours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import CodecError
from .grey import GreyVQVAE


@dataclass(frozen=True)
class ImageVQVAEConfig:
    """Sizes of an `ImageVQVAE`.

    size: side of the square grey image in pixels, a multiple of 4.
    alphabet: number of codes K. latent: width of a code. encoder, decoder: channels.
    context: how many patches to each side a token sees besides its own; 0 is what tables want.
    """

    size: int = 28
    alphabet: int = 256
    latent: int = 32
    encoder: int = 128
    decoder: int = 64
    context: int = 0

    def __post_init__(self) -> None:
        least = dict.fromkeys(asdict(self), 1) | {"context": 0}
        if any(not isinstance(size := getattr(self, key), int) or size < low
               for key, low in least.items()):  # fmt: skip
            raise CodecError(f"sizes must be positive integers, context 0 or more, got {self}.")
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


class ImageVQVAE(GreyVQVAE):
    """VQ-VAE (van den Oord et al., 2017) for grey images, quantised by vector-quantize-pytorch.

    The encoder reads each 4x4 patch on its own (unless it is given `context`): the token of a
    mixture's patch then depends on the sources' pixels in that patch alone, which is what a table
    p(m | z^1, z^2) can express.
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
            nn.Conv2d(
                config.encoder, config.encoder, 2 * config.context + 1, padding=config.context
            ),
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
    def size(self) -> int:
        return self.config.size

    @property
    def alphabet(self) -> int:
        return self.config.alphabet

    @property
    def codebook_weight(self) -> Tensor:
        book: Tensor = self.quantiser.codebook
        return book

    def forward(self, signals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Training pass: pixel logits [B, 1, S, S], tokens [B, h, w], commitment loss (scalar)."""
        quantised, tokens, loss = self.quantiser(self.encoder(signals))
        return self.decoder(quantised), tokens, loss

    def describe(self) -> dict[str, Any]:
        """The configuration, as it stands in a card; without a context where there is none, as in
        older cards."""
        facts = {"kind": "image-vqvae", **asdict(self.config)}
        if not self.config.context:
            del facts["context"]
        return facts
