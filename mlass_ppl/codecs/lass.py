"""LASS's VQ-VAE of MNIST, so that its published weights run here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import CodecError
from .grey import PATCH, GreyVQVAE


@dataclass(frozen=True)
class LassVQVAEConfig:
    """Sizes of a `LassVQVAE`; the defaults are the published ones.

    size: side of the square grey image in pixels, a multiple of 4. alphabet: number of codes K.
    width: channels of every layer, and width of a code. Raises CodecError on impossible sizes.
    """

    size: int = 28
    alphabet: int = 256
    width: int = 128

    def __post_init__(self) -> None:
        if any(not isinstance(size, int) or size < 1 for size in asdict(self).values()):
            raise CodecError(f"sizes must be positive integers, got {self}.")
        if self.size % PATCH:
            raise CodecError(f"the image size must be a multiple of {PATCH}, got {self.size}.")


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.LeakyReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.block(x)
        return out


class LassVQVAE(GreyVQVAE):
    """The VQ-VAE (van den Oord et al., 2017) of LASS (Postolache et al., 2023), as its code has it.

    Two convolutions of stride 2 and two residual blocks either way, with batch normalisation. Names
    and shapes of its layers are those of the published weights, apart from the codes, which are
    `codebook.weight` here. Signals float [B, 1, size, size] in [0, 1], tokens int64
    [B, (size / 4)^2], row by row.

    A token of it sees 26 x 26 pixels, where one of `ImageVQVAE` sees its own 4 x 4: what a table
    p(m | z^1, z^2) says of it is an average over all that surrounds the token.

    To run published weights, `mlass_ppl.importing` makes one; it cannot be trained here.
    """

    def __init__(self, config: LassVQVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LassVQVAEConfig()
        width = config.width
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            _Residual(width),
            _Residual(width),
        )
        self.codebook = nn.Embedding(config.alphabet, width)
        # Pixel logits: the published sigmoid, which has no weights, is in `decode_latents`.
        self.decoder = nn.Sequential(
            _Residual(width),
            _Residual(width),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        )

    @property
    def size(self) -> int:
        return self.config.size

    @property
    def alphabet(self) -> int:
        return self.config.alphabet

    @property
    def codebook_weight(self) -> Tensor:
        return self.codebook.weight

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images [B, 1, S, S] in [0, 1] of latents [B, width, h, w]; differentiable.

        Raises CodecError in training mode, where an image would depend on the others.
        """
        if self.training:
            raise CodecError("this codec is in training mode: call codec.eval() before decoding.")
        return super().decode_latents(latents)

    def describe(self) -> dict[str, Any]:
        """The configuration, as it stands in a bundle's card."""
        return {"kind": "lass-vqvae", **asdict(self.config)}
