"""What a set of per-mixture scores says: mean, spread, bootstrap interval, paired difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import OptionError

_CHUNK = 4_000_000  # resampled scores held at once (two arrays of 32 MB)


@dataclass(frozen=True)
class Summary:
    """Statistics of n scores. `std` is the sample's (n - 1), None for a single score."""

    n: int
    mean: float
    std: float | None
    median: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Paired:
    """Difference to a baseline on the same mixtures: its mean and 95 % interval, and the share of
    mixtures that score below the baseline."""

    mean: float
    ci95: tuple[float, float]
    below: float

    @property
    def better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.ci95[0] > 0.0


def bootstrap(
    scores: np.ndarray, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `scores` float [n], resampling mixtures.

    The same seed gives the same interval. Raises OptionError on no scores, on a NaN among them,
    on fewer than one resample or a level outside (0, 1).
    """
    scores = _scores(scores)
    if resamples < 1 or not 0.0 < level < 1.0:
        raise OptionError(
            f"a bootstrap takes one or more resamples and a level between 0 and 1, not {resamples} "
            f"and {level}."
        )
    random = np.random.default_rng(seed)
    means, chunk = [], max(1, _CHUNK // scores.size)
    for start in range(0, resamples, chunk):
        drawn = random.integers(0, scores.size, (min(chunk, resamples - start), scores.size))
        means.append(scores[drawn].mean(1))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)


def summarise(scores: np.ndarray, *, seed: int = 0, resamples: int = 10_000) -> Summary:
    """Mean, standard deviation, median and 95 % bootstrap interval of `scores` float [n]."""
    scores = _scores(scores)
    return Summary(
        n=scores.size,
        mean=float(scores.mean()),
        std=float(scores.std(ddof=1)) if scores.size > 1 else None,
        median=float(np.median(scores)),
        ci95=bootstrap(scores, seed=seed, resamples=resamples),
    )


def compare(
    scores: np.ndarray, floor: np.ndarray, *, seed: int = 0, resamples: int = 10_000
) -> Paired:
    """Difference of `scores` to `floor`, both float [n] on the same mixtures in the same order.

    A method is better than the floor only if the interval excludes 0. Raises OptionError when the
    two differ in length.
    """
    scores, floor = _scores(scores), _scores(floor)
    if scores.shape != floor.shape:
        raise OptionError(
            f"a paired difference needs the same mixtures on both sides, not {scores.size} scores "
            f"and {floor.size} of the floor."
        )
    gain = scores - floor
    return Paired(
        mean=float(gain.mean()),
        ci95=bootstrap(gain, seed=seed, resamples=resamples),
        below=float((gain < 0.0).mean()),
    )


def _scores(scores: np.ndarray) -> np.ndarray:
    array = np.asarray(scores, np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise OptionError(
            f"statistics need finite scores [n] with n >= 1, not an array {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} NaN or infinite values."
        )
    return array
