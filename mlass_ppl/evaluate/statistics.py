"""What a set of per-mixture scores says: mean, spread, bootstrap interval, paired difference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
    scores: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `scores` float [n], resampling mixtures.

    groups: int [n], mixtures that belong together, as the chunks of a song do: whole groups are
    resampled, since mixtures that resemble each other say less than as many strangers. Of a single
    group the mixtures are resampled after all.

    The same seed gives the same interval. Raises OptionError on no scores, on a NaN among them,
    on groups of another number, on fewer than one resample or a level outside (0, 1).
    """
    scores = _scores(scores)
    if resamples < 1 or not 0.0 < level < 1.0:
        raise OptionError(
            f"a bootstrap takes one or more resamples and a level between 0 and 1, not {resamples} "
            f"and {level}."
        )
    if groups is None:
        means = _resampled(scores, seed, resamples)
    else:
        means = _resampled_groups(scores, np.asarray(groups), seed, resamples)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def summarise(
    scores: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    groups: np.ndarray | None = None,
) -> Summary:
    """Mean, standard deviation, median and 95 % bootstrap interval of `scores` float [n]; `groups`
    as of `bootstrap`."""
    scores = _scores(scores)
    return Summary(
        n=scores.size,
        mean=float(scores.mean()),
        std=float(scores.std(ddof=1)) if scores.size > 1 else None,
        median=float(np.median(scores)),
        ci95=bootstrap(scores, seed=seed, resamples=resamples, groups=groups),
    )


def compare(
    scores: np.ndarray,
    floor: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    groups: np.ndarray | None = None,
) -> Paired:
    """Difference of `scores` to `floor`, both float [n] on the same mixtures in the same order.

    A method is better than the floor only if the interval excludes 0; `groups` as of `bootstrap`.
    Raises OptionError when the two differ in length.
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
        ci95=bootstrap(gain, seed=seed, resamples=resamples, groups=groups),
        below=float((gain < 0.0).mean()),
    )


def _resampled(scores: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means float64 [resamples] of as many scores, drawn with replacement."""
    random = np.random.default_rng(seed)
    means, chunk = [], max(1, _CHUNK // scores.size)
    for start in range(0, resamples, chunk):
        drawn = random.integers(0, scores.size, (min(chunk, resamples - start), scores.size))
        means.append(scores[drawn].mean(1))
    return np.concatenate(means)


def _resampled_groups(
    scores: np.ndarray, groups: np.ndarray, seed: int, resamples: int
) -> np.ndarray:
    """Means float64 [resamples] of all scores of as many groups, drawn with replacement."""
    if groups.shape != scores.shape:
        raise OptionError(f"{scores.size} scores need as many groups, not {groups.shape}.")
    names, place = np.unique(groups, return_inverse=True)
    if len(names) == 1:
        place = np.arange(scores.size)
    often = _often(int(place.max()) + 1, seed, resamples)
    return np.asarray((often @ np.bincount(place, scores)) / (often @ np.bincount(place)))


@lru_cache(maxsize=2)
def _often(groups: int, seed: int, resamples: int) -> np.ndarray:
    """How often each resample holds each group, float64 [resamples, groups]: the same for all the
    scores of a table."""
    random = np.random.default_rng(seed)
    return random.multinomial(groups, np.full(groups, 1.0 / groups), resamples).astype(np.float64)


def _scores(scores: np.ndarray) -> np.ndarray:
    array = np.asarray(scores, np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise OptionError(
            f"statistics need finite scores [n] with n >= 1, not an array {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} NaN or infinite values."
        )
    return array
