"""Patches by their nearest centre: alphabets of any size for mixtures, which nobody decodes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CodecError, SignalError
from .grey import PATCH, GreyVQVAE

_LEVELS = 1 << 10
"""Patches that are equal to within one in so many levels of a pixel are one patch in fitting."""

_ITERATIONS = 20
"""Of Lloyd's; the error falls by less than one in a thousand in each of those that would follow."""

_ROWS = 1_024
"""Patches whose distances to all centres are held at once: they should stay in the cache."""


@dataclass(frozen=True)
class PatchCodecConfig:
    """Sizes of a `PatchCodec`.

    size: side of the square grey image in pixels, a multiple of 4. alphabet: number of centres K.
    Raises CodecError on impossible sizes.
    """

    size: int = 28
    alphabet: int = 2048

    def __post_init__(self) -> None:
        if any(not isinstance(size, int) or size < 1 for size in asdict(self).values()):
            raise CodecError(f"sizes must be positive integers, got {self}.")
        if self.size % PATCH:
            raise CodecError(f"the image size must be a multiple of {PATCH}, got {self.size}.")


class PatchCodec(GreyVQVAE):
    """The token of a 4x4 patch is its nearest centre of K in pixels (k-means; Lloyd, 1982).

    Meant for the tokens of mixtures: `mix(..., codec="fine")` with `bundle.codecs["fine"]`. They
    are encoded and never decoded, so that their alphabet may be far larger than the sources', for
    which a prior has to be trained, and each token says more of what was mixed. It decodes as well,
    into the centres, and may be the codec of sources.

    Signals float [B, 1, size, size] in [0, 1], tokens int64 [B, (size / 4)^2], row by row; latents
    are the patches' pixels [B, 16, size/4, size/4]. `PatchCodec.fit` makes one; one that is made
    from a configuration alone has zeros for centres until weights are loaded.
    """

    centres: Tensor

    def __init__(self, config: PatchCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PatchCodecConfig()
        self.encoder = nn.PixelUnshuffle(PATCH)
        self.decoder = nn.PixelShuffle(PATCH)
        self.register_buffer("centres", torch.zeros(config.alphabet, PATCH * PATCH))
        self.eval()

    @classmethod
    @torch.no_grad()
    def fit(
        cls, images: Tensor, alphabet: int = 2048, *, seed: int = 0, patches: int = 50_000
    ) -> PatchCodec:
        """The codec whose centres are the k-means of the images' patches.

        images: [N, 1, S, S] in [0, 1], of what the codec is to encode: mixtures, for a mixture's.
        alphabet: number of centres K. patches: how many to fit to at most, at random; at least
        20 K are taken where there are as many. Of equal patches one is taken: half of a picture of
        a digit is blank, and as many centres would settle there. k-means++ (Arthur and
        Vassilvitskii, 2007) and Lloyd's iterations are scikit-learn's. Centres are rounded to
        float16, as they are stored, so that tokens stay the same through a file. The same seed
        gives the same codec.

        Raises SignalError on images of another shape, not square or not of a multiple of 4, and on
        pixels that are NaN or out of range; CodecError on impossible numbers and where the images
        have fewer distinct patches than K.
        """
        if images.ndim != 4 or images.shape[1] != 1 or images.shape[2] != images.shape[3]:
            raise SignalError(
                f"expected square grey images [N, 1, S, S], got {list(images.shape)}."
            )
        codec = cls(PatchCodecConfig(images.shape[-1], alphabet))
        if not isinstance(patches, int) or patches < 1:
            raise CodecError(f"patches must be a positive integer, got {patches!r}.")
        distinct = _distinct(codec.features(images.cpu()).reshape(-1, PATCH * PATCH))
        if len(distinct) < alphabet:
            raise CodecError(
                f"{len(images)} images have {len(distinct)} distinct patches, fewer than the "
                f"{alphabet} centres asked for. Give more images, or take a smaller alphabet."
            )
        order = np.random.default_rng(seed).permutation(len(distinct))
        codec.centres = _centres(distinct[order[: max(patches, 20 * alphabet)]], alphabet, seed)
        return codec

    @property
    def size(self) -> int:
        return self.config.size

    @property
    def alphabet(self) -> int:
        return self.config.alphabet

    @property
    def codebook_weight(self) -> Tensor:
        return self.centres

    @torch.no_grad()
    def encode(self, signals: Tensor) -> Tensor:
        """Tokens int64 [B, T] of signals [B, 1, S, S] in [0, 1]: the nearest centre.

        Raises SignalError on another shape and on pixels that are NaN or out of range.
        """
        patches = self.features(signals).to(self.centres.dtype)
        rows = patches.flatten(0, 1)
        # As many distances as fit the cache at once; and all blank patches have one token.
        tokens = self._squares.argmin().expand(len(rows)).clone()
        drawn = rows.any(1).nonzero()[:, 0]
        for some in drawn.split(_ROWS):
            tokens[some] = self._to_centres(rows[some]).argmin(-1)
        return tokens.reshape(patches.shape[:2])

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images [B, 1, S, S] in [0, 1] of patches [B, 16, h, w]; differentiable within [0, 1]."""
        images: Tensor = self.decoder(latents)
        return images.clamp(0, 1)

    def describe(self) -> dict[str, Any]:
        """The configuration, as it stands in a bundle's card."""
        return {"kind": "patches", **asdict(self.config)}

    @property
    def _squares(self) -> Tensor:
        return self.centres.square().sum(-1)

    def _to_centres(self, rows: Tensor) -> Tensor:
        return torch.addmm(self._squares, rows, self.centres.T, alpha=-2)


def _distinct(rows: Tensor) -> np.ndarray:
    """Patches [N', 16] of [N, 16], one of each that are equal at the level of `_LEVELS`."""
    levels = (rows * _LEVELS).round().to(torch.int16).contiguous().numpy()
    # as bytes: any order will do, and they are compared at a stroke
    _, first = np.unique(levels.view(f"V{levels.shape[1] * 2}")[:, 0], return_index=True)
    out: np.ndarray = rows.numpy()[np.sort(first)]
    return out


def _centres(rows: np.ndarray, alphabet: int, seed: int) -> Tensor:
    """k-means [K, 16] of patches [N, 16], rounded to float16."""
    from sklearn.cluster import KMeans

    means = KMeans(alphabet, n_init=1, max_iter=_ITERATIONS, random_state=seed)
    # In float64, since threads add up in any order: how the last bits fall is then lost in float16.
    means.fit(rows.astype(np.float64))
    return torch.from_numpy(means.cluster_centers_).half().float()
