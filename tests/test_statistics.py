"""Bootstrap intervals and paired differences."""

from __future__ import annotations

import numpy as np
import pytest

from mlass_ppl.errors import OptionError
from mlass_ppl.evaluate import bootstrap, compare, summarise


def test_summary_by_hand() -> None:
    found = summarise(np.array([1.0, 2.0, 3.0, 10.0]))
    assert (found.n, found.mean, found.median) == (4, 4.0, 2.5)
    assert found.std == pytest.approx(np.sqrt(50 / 3))
    assert 1.0 <= found.ci95[0] < 4.0 < found.ci95[1] <= 10.0


def test_one_score_has_no_spread() -> None:
    found = summarise(np.array([7.0]))
    assert found.std is None
    assert found.ci95 == (7.0, 7.0)


def test_the_interval_equals_scipy() -> None:
    from scipy import stats

    scores = np.random.default_rng(1).gamma(2.0, size=200)
    other = stats.bootstrap(
        (scores,), np.mean, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    assert bootstrap(scores) == pytest.approx((other.low, other.high), abs=0.02)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(3).normal(5.0, 2.0, size=(400, 80))
    hits = 0
    for row in draws:
        low, high = bootstrap(row, resamples=1_000)
        hits += low <= 5.0 <= high
    # 95 % nominal, about 94 % for 80 scores: six standard errors of 1.2 % to either side
    assert 0.87 < hits / 400 < 0.99


def test_the_interval_narrows_with_the_root_of_n() -> None:
    scores = np.random.default_rng(4).normal(size=6_400)
    wide, narrow = bootstrap(scores[:400]), bootstrap(scores)
    assert (wide[1] - wide[0]) / (narrow[1] - narrow[0]) == pytest.approx(4.0, rel=0.2)


def test_resampling_in_chunks_stays_within_the_same_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = np.random.default_rng(5).normal(size=300)
    whole = bootstrap(scores)
    monkeypatch.setattr("mlass_ppl.evaluate.statistics._CHUNK", 299 * 7)
    assert bootstrap(scores) == pytest.approx(whole, abs=0.01)


def test_the_seed_decides() -> None:
    scores = np.random.default_rng(6).normal(size=100)
    assert bootstrap(scores, seed=1) == bootstrap(scores, seed=1)
    assert bootstrap(scores, seed=1) != bootstrap(scores, seed=2)


def test_the_order_of_mixtures_pairs_them() -> None:
    random = np.random.default_rng(7)
    floor = random.normal(15.0, 5.0, size=500)
    gained = compare(floor + 0.2 + random.normal(0.0, 0.1, size=500), floor)
    assert gained.mean == pytest.approx(0.2, abs=0.02)
    assert gained.better
    # unpaired, the same gain drowns in the spread of the mixtures
    shuffled = compare(random.permutation(floor) + 0.2, floor)
    assert not shuffled.better
    assert shuffled.ci95[1] - shuffled.ci95[0] > 20 * (gained.ci95[1] - gained.ci95[0])


def test_below_counts_strictly() -> None:
    found = compare(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 2.0, 5.0]))
    assert found.below == 0.5
    same = compare(np.arange(5.0), np.arange(5.0))
    assert (same.mean, same.ci95, same.below, same.better) == (0.0, (0.0, 0.0), 0.0, False)


def test_refusals() -> None:
    with pytest.raises(OptionError, match="n >= 1"):
        summarise(np.array([]))
    with pytest.raises(OptionError, match="1 NaN"):
        summarise(np.array([1.0, np.nan]))
    with pytest.raises(OptionError, match="same mixtures on both sides"):
        compare(np.ones(3), np.ones(4))
    with pytest.raises(OptionError, match="level between 0 and 1"):
        bootstrap(np.ones(3), level=95.0)
    with pytest.raises(OptionError, match="one or more resamples"):
        bootstrap(np.ones(3), resamples=0)
