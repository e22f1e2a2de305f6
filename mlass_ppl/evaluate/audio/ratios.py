"""Signal-to-distortion ratios of estimated sources in float64, vectorised over a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...errors import SignalError
from ..metrics import Assignment, best_permutation, float64

CEILING = 100.0
"""dB at which scores stop, above and (negative) below: a perfect estimate stays finite, and so does
the SI-SDR of a silent one."""

Metric = Callable[[Any, Any], np.ndarray]
"""Scores float64 [...] of estimates and true sources, both [..., T]."""


class Kept(NamedTuple):
    """Scores float64 [k] that say something, and how many were left out."""

    scores: np.ndarray
    excluded: int


def sdr(estimates: Any, truths: Any) -> np.ndarray:
    """Plain signal-to-distortion ratio 10 log10(|s|² / |s - ŝ|²) in dB, float64 [...].

    `estimates` and `truths` [..., T] broadcast over the leading axes; a stereo source is one signal
    (flatten its last two axes). NaN where the true source is silent: it has no score (`kept` leaves
    it out). A silent estimate scores 0. Raises SignalError on other shapes, on NaN or infinity.
    """
    left, right = _pair(estimates, truths)
    power = np.square(right).sum(-1)
    return _ratio(power, np.square(right - left).sum(-1), defined=power > 0)


def si_sdr(estimates: Any, truths: Any) -> np.ndarray:
    """Scale-invariant SDR in dB, float64 [...]: the true source is scaled to fit the estimate first
    (Le Roux et al., "SDR - half-baked or well done?", 2019; no mean is subtracted).

    Shapes, NaN and errors as of `sdr`. A silent estimate scores -100.
    """
    left, right = _pair(estimates, truths)
    power = np.square(right).sum(-1)
    scale = (left * right).sum(-1) / np.where(power > 0, power, 1.0)
    target = scale[..., None] * right
    return _ratio(np.square(target).sum(-1), np.square(left - target).sum(-1), defined=power > 0)


def improvement(metric: Metric, estimates: Any, truths: Any, mixtures: Any) -> np.ndarray:
    """What estimates [..., n, T] gain in `metric` over the mixtures [..., T] themselves, float64
    [..., n], in dB.

    NaN also where the mixture is the true source already (no other sounds): no estimate can gain
    there. Raises SignalError as `sdr` does.
    """
    floor = metric(np.expand_dims(float64(mixtures, "mixtures"), -2), truths)
    return np.where(floor >= CEILING, np.nan, metric(estimates, truths) - floor)


def sdri(estimates: Any, truths: Any, mixtures: Any) -> np.ndarray:
    """SDR improvement over the mixture, float64 [..., n]; see `improvement`."""
    return improvement(sdr, estimates, truths, mixtures)


def si_sdri(estimates: Any, truths: Any, mixtures: Any) -> np.ndarray:
    """SI-SDR improvement over the mixture, float64 [..., n]; see `improvement`."""
    return improvement(si_sdr, estimates, truths, mixtures)


def permuted(metric: Metric, estimates: Any, truths: Any) -> Assignment:
    """Scores under the best permutation of the estimates: for sources that nothing tells apart.

    `estimates` and `truths` [..., n, T]. Where labels are known call `metric` itself: no
    permutation is then due. A silent true source has a NaN score and no say in the permutation.
    Raises SignalError as `sdr` does.
    """
    left, right = float64(estimates, "estimates"), float64(truths, "true signals")
    if left.ndim < 2 or right.ndim < 2 or left.shape[-2] != right.shape[-2]:
        raise SignalError(
            "a permutation needs as many estimates as true sources, [..., n, T]; the estimates are "
            f"{left.shape}, the true signals {right.shape}."
        )
    n = right.shape[-2]
    rows = [[metric(left[..., j, :], right[..., i, :]) for j in range(n)] for i in range(n)]
    pairs: np.ndarray = np.moveaxis(np.array(rows), (0, 1), (-2, -1))
    order = best_permutation(np.nan_to_num(pairs)).permutation
    return Assignment(np.take_along_axis(pairs, order[..., None], -1)[..., 0], order)


def kept(scores: Any) -> Kept:
    """The scores, of any shape, that are defined, in order, and the number of those that are not:
    what a mean is taken of, and what a table says beside it."""
    flat = np.asarray(scores, np.float64).reshape(-1)
    defined = ~np.isnan(flat)
    return Kept(flat[defined], int((~defined).sum()))


def _pair(estimates: Any, truths: Any) -> tuple[np.ndarray, np.ndarray]:
    left, right = float64(estimates, "estimates"), float64(truths, "true signals")
    if not (left.ndim and right.ndim) or left.shape[-1] != right.shape[-1] or not right.size:
        raise SignalError(
            "scores compare signals [..., T] of one length with one or more samples; the estimates "
            f"are {left.shape}, the true signals {right.shape}."
        )
    return left, right


def _ratio(signal: np.ndarray, noise: np.ndarray, *, defined: np.ndarray) -> np.ndarray:
    """10 log10(signal / noise) within the ceiling, NaN where not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.clip(10.0 * np.log10(signal / noise), -CEILING, CEILING)
    value = np.where(signal > 0, value, -CEILING)  # 0 / 0: a silent estimate
    return np.where(defined, value, np.nan)
