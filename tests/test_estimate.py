"""Estimates: which candidate, or which mean of candidates, a separation answers."""

from __future__ import annotations

import pytest
import torch

from mlass_ppl import OptionError
from mlass_ppl.estimate import Candidates, Mean, MostProbable, Nearest


def candidates(n: int = 3, m: int = 4, c: int = 5, seed: int = 0, **changed: object) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    names = ["abcdef"[place] for place in range(n)]
    parts: dict[str, object] = {
        "signals": {name: torch.rand(m, c, 1, 6, 6, generator=generator) for name in names},
        "errors": torch.rand(m, c, generator=generator),
        "log_prior": -50 * torch.rand(m, c, generator=generator),
        "log_weights": torch.randn(m, c, generator=generator),
        "interchangeable": [names],
    }
    return Candidates(**{**parts, **changed})  # type: ignore[arg-type]


def test_nearest_is_the_candidate_of_the_smallest_error() -> None:
    given = candidates()
    chosen = Nearest().choose(given)
    for row in range(4):
        assert float(given.errors[row, chosen[row]]) == float(given.errors[row].min())
    signals = Nearest().signals(given, chosen)
    assert torch.equal(signals["b"][2], given.signals["b"][2, chosen[2]])


def test_most_probable_weighs_prior_against_error() -> None:
    given = candidates()
    narrow, wide = MostProbable(1e-4).choose(given), MostProbable(1e4).choose(given)
    assert torch.equal(narrow, Nearest().choose(given))
    assert torch.equal(wide, given.log_prior.argmax(1))
    std = 0.4
    scores = given.log_prior - given.errors * 36 / (2 * std**2)
    assert torch.equal(MostProbable(std).choose(given), scores.argmax(1))


@pytest.mark.parametrize("std", [0, -1.0, float("nan"), float("inf"), "wide"])
def test_a_deviation_is_positive(std: float) -> None:
    with pytest.raises(OptionError, match="must be positive"):
        MostProbable(std)


def test_mean_of_sources_that_are_not_interchangeable_is_the_weighted_mean() -> None:
    given = candidates(interchangeable=[["a"], ["b"], ["c"]])
    signals = Mean().signals(given, Mean().choose(given))
    shares = given.log_weights.exp() / given.log_weights.exp().sum(1, keepdim=True)
    for name, values in given.signals.items():
        expected = (values * shares[..., None, None, None]).sum(1)
        torch.testing.assert_close(signals[name], expected)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_mean_undoes_any_exchange_of_interchangeable_sources(n: int) -> None:
    """Candidates that are one separation in different orders: their mean is that separation."""
    generator = torch.Generator().manual_seed(n)
    truth = torch.rand(3, n, 1, 6, 6, generator=generator)
    orders = [[torch.randperm(n, generator=generator) for _ in range(7)] for _ in range(3)]
    stacked = torch.stack(
        [torch.stack([truth[row, order] for order in orders[row]]) for row in range(3)]
    )
    names = ["abcd"[place] for place in range(n)]
    given = Candidates(
        {name: stacked[:, :, place] for place, name in enumerate(names)},
        torch.rand(3, 7, generator=generator),
        torch.zeros(3, 7),
        torch.randn(3, 7, generator=generator),
        [names],
    )
    chosen = Mean().choose(given)
    for name, values in Mean().signals(given, chosen).items():
        torch.testing.assert_close(values, given.of(chosen)[name])


def test_mean_exchanges_sources_of_one_group_only() -> None:
    given = candidates(interchangeable=[["a", "c"], ["b"]])
    signals = Mean().signals(given, Mean().choose(given))
    shares = given.log_weights.softmax(1)[..., None, None, None]
    torch.testing.assert_close(signals["b"], (given.signals["b"] * shares).sum(1))
    both = sum((given.signals[name] * shares).sum(1) for name in "ac")
    torch.testing.assert_close(signals["a"] + signals["c"], both)


def test_rows_do_not_mix_and_lost_weights_count_alike() -> None:
    given = candidates()
    log_weights = given.log_weights.clone()
    log_weights[1] = float("-inf")
    lost = candidates(log_weights=log_weights)
    chosen = Mean().choose(given)
    before, after = Mean().signals(given, chosen), Mean().signals(lost, chosen)
    even = Mean().signals(candidates(log_weights=torch.zeros(4, 5)), chosen)
    for name in given.signals:
        assert torch.equal(before[name][[0, 2, 3]], after[name][[0, 2, 3]])
        torch.testing.assert_close(after[name][1], even[name][1])


def test_too_many_interchangeable_sources_are_refused() -> None:
    names = list("abcdefg")
    given = candidates(
        1, signals={name: torch.rand(4, 5, 1, 2, 2) for name in names}, interchangeable=[names]
    )
    with pytest.raises(OptionError, match="at most six"):
        Mean().signals(given, Mean().choose(given))
