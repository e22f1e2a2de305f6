"""Alphabets for the mixtures of a digit bundle: large, and of k-means, since nothing trains them.

A mixture's token is read and never generated, so that no prior limits its alphabet (`PatchCodec`).
`fine` is for observed mixtures, where its size costs memory alone; `middle` for the partial
mixtures of chains and trees, which are summed over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..bundle import Bundle, load
from ..codecs import Codec, PatchCodec
from ..data import mnist_images
from ..errors import DataError, OptionError
from .digits import _facts, _update

MIDDLE, FINE = 512, 2048
"""Alphabets of the shipped bundle's further codecs."""

PARTS = (2, 3)
"""How many digits are in the mixtures that alphabets are fitted to: observed ones of two and three,
and partial ones in chains of three and four."""

_CHECKED = 1_000
"""Validation mixtures of each number of digits whose encode-decode PSNR is told."""


def make_alphabets(
    out: Path,
    data_root: Path | None = None,
    *,
    middle: int = MIDDLE,
    fine: int = FINE,
    mixtures: int = 8_000,
    seed: int = 0,
) -> Bundle:
    """Fit the codecs `middle` and `fine` on mixtures of training digits and add them to the bundle
    in `out`, with the encode-decode PSNR of validation mixtures in its card.

    middle, fine: their alphabets K. mixtures: of two digits, and as many of three. Tables that were
    counted for other codecs of these keys are dropped; where the codecs come out as they were,
    tables stay.

    Raises BundleError where there is no bundle, DataError without MNIST, OptionError on impossible
    numbers, and CodecError where the mixtures have fewer distinct patches than an alphabet.
    """
    from .codec import psnr_of

    bundle = load(out)
    training = mixed(mnist_images("train", data_root), PARTS, mixtures, seed)
    validation = mixed(mnist_images("validation", data_root), PARTS, _CHECKED, seed)
    codecs: dict[str, Codec] = dict(bundle.codecs)
    card = dict(bundle.card.get("codecs", {}))
    stale = set()
    for key, alphabet in (("middle", middle), ("fine", fine)):
        began = time.perf_counter()
        codec = PatchCodec.fit(training, alphabet, seed=seed)
        if not _same(codec, codecs.get(key)):
            stale.add(key)
        codecs[key] = codec
        card[key] = _facts(
            mixed=list(PARTS), mixtures=mixtures, seed=seed, seconds=time.perf_counter() - began
        )
        card[key]["psnr_db"] = round(psnr_of(codec, validation), 3)
    counts = {recipe: c for recipe, c in bundle.counts.items() if not stale & set(recipe.codecs)}
    return _update(replace(bundle, codecs=codecs, counts=counts), out, {"codecs": card})


def mixed(images: Tensor, parts: Sequence[int], number: int, seed: int = 0) -> Tensor:
    """Means of random images [N, 1, S, S]: `number` of each many parts,
    [len(parts) * number, 1, S, S]. The same seed gives the same mixtures.

    Raises OptionError on numbers below 1, and DataError on no images.
    """
    if number < 1 or not parts or min(parts) < 1:
        raise OptionError(
            f"mixtures and their parts must be at least 1, got {number} and {list(parts)}."
        )
    if not len(images):
        raise DataError("expected one or more images to mix, got none.")
    random = torch.Generator().manual_seed(seed)
    picks = [torch.randint(len(images), (count, number), generator=random) for count in parts]
    return torch.cat([images[pick].mean(0) for pick in picks])


def _same(codec: PatchCodec, other: Codec | None) -> bool:
    return isinstance(other, PatchCodec) and torch.equal(codec.centres, other.centres)
