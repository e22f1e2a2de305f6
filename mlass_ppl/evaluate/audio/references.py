"""What every audio table is read against: two floors and what ideal masks reach."""

from __future__ import annotations

import math

from torch import Tensor

from ...audio import Wiener
from ...errors import OptionError, SignalError


def mixture_copy(mixtures: Tensor, sources: int) -> Tensor:
    """The floor `floor:mixture`: mixtures [..., T] as the estimate of every source, [..., n, T]."""
    return mixtures.unsqueeze(-2).expand(*mixtures.shape[:-1], sources, mixtures.shape[-1])


def mixture_copy_sdr(sources: int) -> float:
    """Plain SDR in dB of a copied mixture that is the mean of n orthogonal sources of equal energy:
    10 log10(n / (n - 1)), so 3.01 for two and 1.76 for three. A silent estimate scores 0."""
    if sources < 2:
        raise OptionError(f"a mixture has two or more sources, got {sources}.")
    return 10.0 * math.log10(sources / (sources - 1))


def ideal_ratio_mask(
    truths: Tensor, mixtures: Tensor, wiener: Wiener | None = None, *, mean: bool = True
) -> Tensor:
    """The oracle `oracle:irm`: mixtures [..., T] filtered by the ideal ratio masks of the true
    sources [..., n, T], which no soft mask on the same STFT with the mixture's phase beats by much.

    wiener: STFT and power of the masks, default 4096 samples, hop 1024 and power ratios (the
    reference oracle of the SiSEC campaigns, there IRM2). mean: whether the mixture is the mean of
    its sources, else their sum. Raises SignalError on shapes that do not fit, on NaN, and on
    mixtures that are nearer to the other of the two.
    """
    n = truths.shape[-2] if truths.ndim >= 2 else 0
    if not n:
        raise SignalError(f"true sources are [..., n, T], not {tuple(truths.shape)}.")
    total = truths.sum(-2)
    off = {True: total / n, False: total}
    if n > 1 and mixtures.shape == total.shape:
        far = {key: (mixtures - own).square().sum() for key, own in off.items()}
        if far[not mean] < far[mean]:
            nearer = "their sum" if mean else "their mean"
            raise SignalError(
                f"the mixtures are nearer to {nearer} than to what mean={mean} says: their masks "
                f"would be of another size. Call ideal_ratio_mask(..., mean={not mean})."
            )
    filtered = (wiener or Wiener())(
        truths.unsqueeze(-2), mixtures.unsqueeze(-2), [1 / n] * n if mean else None
    )
    return filtered.squeeze(-2)
