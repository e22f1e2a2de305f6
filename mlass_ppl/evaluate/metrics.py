"""Scores of estimated sources against the true ones, vectorised over mixtures and candidates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from ..errors import SignalError

PSNR_CEILING = 100.0
"""dB given to an estimate whose mean squared error is 1e-10 or less: a perfect one scores this."""

_ENUMERATED = 6  # 720 permutations at once; beyond that the Hungarian method, one row at a time


@dataclass(frozen=True)
class Assignment:
    """Which estimate stands for which true source, and what it scores.

    `scores` float64 [..., n]: score of each true source; `permutation` int64 [..., n]: the estimate
    that was assigned to it.
    """

    scores: np.ndarray
    permutation: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over the sources, float64 [...]."""
        return self.scores.mean(-1)


def float64(signals: Any, what: str) -> np.ndarray:
    """A tensor or array as float64. Raises SignalError on NaN or infinity; `what` names it."""
    if hasattr(signals, "detach"):
        signals = signals.detach().cpu().numpy()
    array = np.asarray(signals, np.float64)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise SignalError(
            f"{what} of shape {array.shape} hold {bad:,} NaN or infinite values, so they have no "
            "score. Look at the codec or the refinement (a smaller lr) that made them."
        )
    return array


def psnr(
    estimates: Any, truths: Any, *, data_range: float = 1.0, ceiling: float = PSNR_CEILING
) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each image, float64 [...].

    `estimates` and `truths` [..., channels, height, width] broadcast over the leading axes. The
    error is the mean over one image. Scores stop at `ceiling`, so that a perfect estimate stays
    finite. Raises SignalError on other shapes or on NaN.
    """
    left, right = float64(estimates, "estimates"), float64(truths, "true signals")
    if left.ndim < 3 or right.ndim < 3 or left.shape[-3:] != right.shape[-3:]:
        raise SignalError(
            "PSNR compares images [..., channels, height, width] of one size; the estimates are "
            f"{left.shape}, the true signals {right.shape}."
        )
    error = np.square(left - right).mean(axis=(-3, -2, -1)) / data_range**2
    return -10.0 * np.log10(np.maximum(error, 10.0 ** (-ceiling / 10.0)))


def pairwise_psnr(estimates: Any, truths: Any, *, ceiling: float = PSNR_CEILING) -> np.ndarray:
    """PSNR of every estimate against every true source, float64 [..., n, n].

    `estimates` and `truths` [..., n, channels, height, width] broadcast over the leading axes;
    entry [..., i, j] is true source i against estimate j.
    """
    left, right = float64(estimates, "estimates"), float64(truths, "true signals")
    if left.ndim < 4 or right.ndim < 4 or left.shape[-4] != right.shape[-4]:
        raise SignalError(
            "scoring needs as many estimates as true sources, [..., n, channels, height, width]; "
            f"the estimates are {left.shape}, the true signals {right.shape}."
        )
    # pair by pair: all at once would hold n * n copies of every candidate
    guesses, trues = np.moveaxis(left, -4, 0), np.moveaxis(right, -4, 0)
    rows = [np.stack([psnr(guess, true, ceiling=ceiling) for guess in guesses]) for true in trues]
    return np.moveaxis(np.stack(rows), (0, 1), (-2, -1))


def best_permutation(pairs: np.ndarray) -> Assignment:
    """The one-to-one assignment of estimates to sources with the highest mean score.

    `pairs` float [..., n, n], entry [..., i, j] scoring estimate j as source i, higher is better.
    Of equal assignments the first in lexicographic order is taken. All n! permutations are tried
    up to n = 6; above, scipy's Hungarian method.
    """
    pairs = np.asarray(pairs, np.float64)
    n = pairs.shape[-1]
    if pairs.ndim < 2 or pairs.shape[-2] != n:
        raise SignalError(f"an assignment needs scores [..., n, n], not {pairs.shape}.")
    if n <= _ENUMERATED:
        orders = np.array(list(permutations(range(n))))
        totals = pairs[..., np.arange(n), orders].sum(-1)
        chosen = orders[totals.argmax(-1)]
    else:
        chosen = _hungarian(pairs)
    scores = np.take_along_axis(pairs, chosen[..., None], -1)[..., 0]
    return Assignment(scores, chosen)


def score(estimates: Any, truths: Any) -> Assignment:
    """PSNR of each true source under the best permutation of the estimates.

    `estimates` [..., n, channels, height, width], `truths` alike: MNIST's protocol, where the
    sources are exchangeable and no estimate carries a label.
    """
    return best_permutation(pairwise_psnr(estimates, truths))


def mixture_error(estimates: Any, mixtures: Any) -> np.ndarray:
    """Mean squared error between each mixture and the mean of its estimates, float64 [...].

    `estimates` [..., n, channels, height, width], `mixtures` [..., channels, height, width].
    """
    rebuilt = float64(estimates, "estimates").mean(-4)
    return np.square(rebuilt - float64(mixtures, "mixtures")).mean(axis=(-3, -2, -1))


def _hungarian(pairs: np.ndarray) -> np.ndarray:
    from scipy.optimize import linear_sum_assignment

    n = pairs.shape[-1]
    flat = [linear_sum_assignment(row, maximize=True)[1] for row in pairs.reshape(-1, n, n)]
    return np.array(flat, np.int64).reshape(pairs.shape[:-1])
