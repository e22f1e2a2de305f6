"""Gaussian tables: shrunk moments, densities by matrix products, impossible parents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from mlass_ppl.errors import TableError
from mlass_ppl.tables import GaussianTable, Moments, Shrink


def draw(shape: tuple[int, ...], width: int, number: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """Features that are whole units of 2^-16, so that nothing is lost to rounding."""
    random = torch.Generator().manual_seed(seed)
    parents = [
        (size * torch.rand(number, generator=random).square()).long().clamp_max(size - 1)
        for size in shape
    ]
    units = torch.randint(-(2**16), 2**16, (number, width), generator=random)
    return parents, units.double() / 2**16


def slow(
    parents: list[Tensor], features: Tensor, shape: tuple[int, ...], shrink: Shrink
) -> tuple[Tensor, Tensor]:
    """The documented rule, one configuration after the other, by pooling real pseudo-samples."""

    def spread(chosen: Tensor) -> tuple[int, Tensor, Tensor]:
        return len(chosen), chosen.mean(0), chosen.var(0, correction=0)

    def pulled(chosen: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        s = shrink.strength
        if not len(chosen):
            return mean, variance
        n, own, var = spread(chosen)
        first = (n * own + s * mean) / (n + s)
        second = (n * (var + own**2) + s * (variance + mean**2)) / (n + s)
        return first, second - first**2

    _, mean, variance = spread(features)
    single = [
        [pulled(features[parent == k], mean, variance) for k in range(size)]
        for parent, size in zip(parents, shape, strict=True)
    ]
    means = torch.zeros(*shape, features.shape[1], dtype=torch.float64)
    variances = torch.zeros_like(means)
    for row in torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape)).tolist():
        parts = [single[axis][token] for axis, token in enumerate(row)]
        first = sum(m for m, _ in parts) - (len(row) - 1) * mean
        second = sum(v for _, v in parts) - (len(row) - 1) * variance
        if len(row) > 1:
            here = torch.stack([p == t for p, t in zip(parents, row, strict=True)]).all(0)
            first, second = pulled(features[here], first, second.clamp_min(shrink.min_std**2))
        means[tuple(row)], variances[tuple(row)] = first, second
    return means, variances.clamp_min(shrink.min_std**2).sqrt()


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    st.integers(1, 60),
    st.sampled_from([Shrink(), Shrink(0.1, 1e-4), Shrink(100.0, 0.2)]),
    st.integers(0, 2**20),
)
def test_moments_are_shrunk_as_documented(shape, number, shrink, seed):
    parents, features = draw(shape, 2, number, seed)
    table = GaussianTable.from_moments(Moments.from_features(parents, features, shape), shrink)
    mean, std = slow(parents, features, shape, shrink)
    assert torch.allclose(table.mean, mean, atol=1e-9)
    assert torch.allclose(table.std, std, atol=1e-6)  # the root of a difference of squares
    assert table.possible.all()
    assert (table.parents, table.width) == (shape, 2)


def test_linear_mixing_of_independent_sources_needs_no_pairs():
    """The mean of two sources: pairs that were never seen together have their true moments."""
    random = torch.Generator().manual_seed(0)
    number, size = 400_000, 16
    means = torch.linspace(0, 1, size)
    stds = 0.1 + 0.2 * torch.rand(size, generator=random)
    a, b = (torch.randint(size, (number,), generator=random) for _ in "ab")
    first, second = (
        means[token] + stds[token] * torch.randn(number, generator=random) for token in (a, b)
    )
    x = ((first + second) / 2)[:, None]
    keep = (a != 12) | (b != 14)
    moments = Moments.from_features([a[keep], b[keep]], x[keep], (size, size))
    assert len(moments.keys) == size**2 - 1
    table = GaussianTable.from_moments(moments, Shrink(strength=1e-6, min_std=1e-3))
    # what is left out correlates the parents, by one pair in 256
    centre = float(means[12] + means[14]) / 2
    assert table.mean[12, 14, 0].item() == pytest.approx(centre, abs=0.03)
    spread = (stds[12] ** 2 + stds[14] ** 2).sqrt() / 2
    assert table.std[12, 14, 0].item() == pytest.approx(float(spread), rel=0.12)
    assert abs(float(x.mean()) - centre) > 0.3


def test_many_samples_are_trusted_and_none_take_the_back_off():
    parents = [torch.tensor([0] * 1000 + [1] * 1000), torch.tensor([0] * 1000 + [1] * 1000)]
    random = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(1000, 1, generator=random), 5 + torch.randn(1000, 1)])
    table = GaussianTable.from_moments(Moments.from_features(parents, x, (2, 2)))
    assert table.mean[0, 0, 0].item() == pytest.approx(float(x[:1000].mean()), abs=0.05)
    assert table.mean[0, 1, 0].item() == pytest.approx(2.5, abs=0.1)  # 0 + 5 - 2.5


def test_variances_survive_features_far_from_zero():
    """n S2 - S1^2 would cancel: features near 15.9 that differ by one unit of 2^-16."""
    unit = 2.0**-16
    x = 15.9 + unit * torch.tensor([0.0, 1.0] * 500_000, dtype=torch.float64)[:, None]
    x = (x / unit).round() * unit
    moments = Moments.from_features([torch.zeros(len(x), dtype=torch.int64)], x, (1,))
    table = GaussianTable.from_moments(moments, Shrink(1e-9, min_std=1e-9))
    assert table.std.item() == pytest.approx(unit / 2, rel=1e-9)
    assert table.mean.item() == pytest.approx(float(x.mean()), abs=1e-12)
    constant = Moments.from_features([torch.zeros(9, dtype=torch.int64)], x[:1].repeat(9, 1), (1,))
    table = GaussianTable.from_moments(constant, Shrink(1e-9, min_std=0.25))
    assert table.std.item() == 0.25  # the floor, no less


def expected(table: GaussianTable, features: Tensor) -> Tensor:
    spread = Normal(table.mean, table.std)
    shape = [len(features), *[1] * len(table.parents), table.width]
    return spread.log_prob(features.double().reshape(shape)).sum(-1)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    st.integers(1, 16),
    st.sampled_from([0.02, 1.0, 1e-5]),
    st.integers(0, 2**20),
)
def test_densities_are_those_of_torch(shape, width, narrow, seed):
    random = torch.Generator().manual_seed(seed)
    mean = 4 * torch.rand(*shape, width, generator=random, dtype=torch.float64) - 2
    std = narrow * (1 + torch.rand(*shape, width, generator=random, dtype=torch.float64))
    table = GaussianTable.from_arrays(mean, std)
    features = 4 * torch.rand(7, width, generator=random, dtype=torch.float64) - 2
    # half of them a few deviations from some mean, where answers matter
    features[::2] = (mean + 2 * std).reshape(-1, width)[torch.arange(4) % mean[..., 0].numel()]
    found = table.log_likelihood(features)
    assert found.shape == (7, *shape)
    assert found.dtype == torch.float64
    exact = expected(table, features)
    assert torch.allclose(found, exact, rtol=1e-12, atol=1e-6)
    assert torch.allclose(table.raised(0.3).log_likelihood(features), 0.3 * exact, rtol=1e-9)
    assert table.raised(2.0).raised(0.5).power == 1.0
    assert torch.allclose(table.log_likelihood(features.float()).double(), exact, rtol=1e-2)
    assert table.log_likelihood(features.float()).dtype == torch.float32


@pytest.mark.parametrize("narrow", [0.02, 1e-3, 1e-5, 1e-8])
def test_narrow_gaussians_far_from_zero_keep_a_millionth_of_a_nat(narrow):
    random = torch.Generator().manual_seed(0)
    mean = 16 * torch.rand(8, 8, 16, generator=random, dtype=torch.float64)
    std = narrow * (1 + torch.rand(8, 8, 16, generator=random, dtype=torch.float64))
    table = GaussianTable.from_arrays(mean, std)
    near = mean[2, 3] + std[2, 3] * torch.randn(5, 16, generator=random, dtype=torch.float64)
    error = table.log_likelihood(near)[:, 2, 3] - expected(table, near)[:, 2, 3]
    assert error.abs().max() < 1e-6


def test_impossible_parents_have_no_density():
    mean = torch.tensor([[0.0], [float("nan")], [1.0]])
    std = torch.tensor([[1.0], [0.0], [2.0]])
    table = GaussianTable.from_arrays(mean, std, possible=[True, False, True])
    found = table.log_likelihood(torch.tensor([[0.5], [40.0]]))
    assert (found[:, 1] == float("-inf")).all()
    assert torch.isfinite(found[:, [0, 2]]).all()
    assert (table.raised(0.5).log_likelihood(torch.tensor([[0.5]]))[:, 1] == float("-inf")).all()


def test_it_says_what_it_takes():
    table = GaussianTable.from_arrays(torch.zeros(4, 5, 3), torch.ones(4, 5, 3))
    assert repr(table) == "GaussianTable(parents=(4, 5), width=3, 0.00192 MB)"
    assert "power=0.5" in repr(table.raised(0.5))
    assert table.log_likelihood(torch.zeros(0, 3)).shape == (0, 4, 5)


ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianTable.from_arrays(ONES, ONES * 0), "deviations positive"),
        (lambda: GaussianTable.from_arrays(ONES, -ONES), "deviations positive"),
        (lambda: GaussianTable.from_arrays(ONES * float("nan"), ONES), "means must be finite"),
        (lambda: GaussianTable.from_arrays(ONES, ONES * float("inf")), "positive and finite"),
        (lambda: GaussianTable.from_arrays(ONES, ONES[:1]), r"\[2, 3\] and \[1, 3\]"),
        (lambda: GaussianTable.from_arrays([1.0, 2.0], [1.0, 2.0]), r"K_parents"),
        (lambda: GaussianTable.from_arrays(ONES, "std"), "expected arrays"),
        (lambda: GaussianTable.from_arrays(ONES, ONES, [True]), r"possible must be \[2\]"),
        (lambda: GaussianTable.from_arrays(ONES, ONES, [False, False]), "somewhere true"),
        (lambda: GaussianTable.from_arrays(ONES, ONES).raised(0.0), "power must be positive"),
        (
            lambda: GaussianTable.from_arrays(ONES, ONES).log_likelihood(torch.zeros(2, 4)),
            r"expected features \[M, 3\], got \[2, 4\]",
        ),
        (
            lambda: GaussianTable.from_arrays(ONES, ONES).log_likelihood(ONES * float("nan")),
            "finite",
        ),
        (
            lambda: GaussianTable.from_arrays(ONES, ONES).log_likelihood(ONES.long()),
            "must be floats",
        ),
        (lambda: GaussianTable.from_moments(Moments.empty((2,), 3)), "no feature was counted"),
        (
            lambda: GaussianTable.from_moments(Moments.empty((2**10,) * 3, 16)),
            r"takes 550 GB; the limit is 4 GB.*chain",
        ),
        (lambda: Shrink(strength=0), "strength of Shrink"),
        (lambda: Shrink(min_std=float("nan")), "min_std of Shrink"),
    ],
)
def test_malformed_tables_are_refused(make, message):
    with pytest.raises(TableError, match=message):
        make()
