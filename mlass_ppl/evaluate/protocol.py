"""The references' MNIST protocol: which test images are mixed, and how."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError, SignalError


def pairing(count: int, sources: int, seed: int) -> np.ndarray:
    """Images of each mixture, int64 [count, sources].

    Slot 1 of mixture i is image i, slot 2 is perm[i], slot 3 perm[perm[i]] and so on, with perm =
    `numpy.random.default_rng(seed).permutation(count)`. This is LASS's and MLASS's test pairing
    (seed 100, all 10,000 test images): a mixture may hold two equal digits, and where perm has a
    short cycle the same image twice.
    """
    if sources < 2:
        raise OptionError(f"a mixture takes two or more sources, not {sources}.")
    if seed < 0:
        raise OptionError(f"the pairing seed must be 0 or more, not {seed}.")
    order = np.random.default_rng(seed).permutation(count)
    slots = [np.arange(count)]
    for _ in range(sources - 1):
        slots.append(order[slots[-1]])
    return np.stack(slots, 1).astype(np.int64)


@dataclass(frozen=True)
class MixtureSet:
    """Every mixture of `sources` images that the protocol makes from one split.

    `images` float32 [N, 1, height, width] in [0, 1]; mixture i is the mean of `indices[i]`.
    """

    images: Tensor
    indices: np.ndarray

    @classmethod
    def make(cls, images: Tensor, sources: int, seed: int = 100) -> MixtureSet:
        """Pair the images of a split; SignalError unless `images` are [N, C, H, W] with N >= 1."""
        if images.ndim != 4 or not len(images):
            raise SignalError(
                "a split is a tensor [images, channels, height, width] with at least one image, "
                f"not {tuple(images.shape)}."
            )
        return cls(images, pairing(len(images), sources, seed))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def sources(self) -> int:
        return int(self.indices.shape[1])

    def truths(self, chosen: np.ndarray) -> Tensor:
        """True sources of the mixtures `chosen` int [B], float32 [B, sources, C, H, W]."""
        return self.images[torch.from_numpy(self.indices[chosen])]

    def mixtures(self, chosen: np.ndarray) -> Tensor:
        """The mixtures `chosen` int [B], float32 [B, C, H, W]: the mean of their sources."""
        return self.truths(chosen).mean(1)


def split_hash(images: Tensor) -> str:
    """SHA-256 of a split's images as bytes in their order, so that a table says what it scored."""
    pixels = (images * 255).round().to(torch.uint8).contiguous()
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    digest.update(pixels.numpy().tobytes())
    return digest.hexdigest()
