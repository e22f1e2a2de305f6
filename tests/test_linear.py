"""Tables of linear features: moments of parts add up, and so does every density made of them."""

from __future__ import annotations

from itertools import product

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate, infer_discrete
from torch import Tensor
from torch.distributions import MultivariateNormal

from mlass_ppl import Exact, Feature, bind, mix, posterior, source
from mlass_ppl.errors import TableError
from mlass_ppl.tables import CellMoments, LinearGaussianTable, Shrink, diagonal
from mlass_ppl.tables import linear as module

NARROW = Shrink(strength=1e-6, min_std=1e-3)


def signal(alphabet: int, width: int, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens and features of a signal whose cells have centres and covariances of their own."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(alphabet, (number,), generator=random)
    centres = torch.rand(alphabet, width, generator=random, dtype=torch.float64)
    roots = torch.rand(alphabet, width, width, generator=random, dtype=torch.float64) - 0.5
    noise = torch.randn(number, width, generator=random, dtype=torch.float64)
    return tokens, centres[tokens] + 0.2 * torch.einsum("nij,nj->ni", roots[tokens], noise)


def cells(alphabet: int = 3, width: int = 2, number: int = 200, seed: int = 0) -> CellMoments:
    return CellMoments.from_features(*signal(alphabet, width, number, seed), alphabet)


def table(sizes: tuple[int, ...], width: int = 2, diagonal: bool | None = None, **options):
    parts = [cells(size, width, seed=seed) for seed, size in enumerate(sizes)]
    weights = [(place + 1) / sum(range(len(sizes) + 1)) for place in range(len(sizes))]
    return LinearGaussianTable.from_cells(parts, weights, diagonal=diagonal, **options)


def truth(of: LinearGaussianTable, features: Tensor) -> Tensor:
    """One configuration at a time, from the table's parts."""
    out = torch.zeros(len(features), *of.parents, dtype=torch.float64)
    for tokens in product(*map(range, of.parents)):
        mean = sum(means[token] for means, token in zip(of.means, tokens, strict=True))
        spread = sum(part[token] for part, token in zip(of.covariances, tokens, strict=True))
        if of.diagonal:
            spread = of.axes @ (of.axes.T @ spread @ of.axes).diagonal().diag() @ of.axes.T
        spread = spread + of.noise * torch.eye(of.width, dtype=torch.float64)
        out[(slice(None), *tokens)] = MultivariateNormal(mean, spread).log_prob(features)
    return of.power * out


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from([1.0, 0.4]),
    st.integers(0, 2**20),
)
def test_densities_are_those_of_torch(sizes, width, diagonal, power, seed):
    made = table(sizes, width, diagonal).raised(power)
    random = torch.Generator().manual_seed(seed)
    features = 3 * torch.rand(4, width, generator=random, dtype=torch.float64) - 1
    found = made.log_likelihood(features)
    assert found.shape == (4, *sizes)
    wanted = truth(made, features)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-8)
    assert made.log_likelihood(features.float()).dtype == torch.float32
    assert made.possible_cells().tolist() == list(range(wanted[0].numel()))
    config = tuple(size - 1 for size in sizes)
    one = MultivariateNormal(*made.gaussian(*config)).log_prob(features)
    torch.testing.assert_close(power * one, wanted[(slice(None), *config)], rtol=1e-9, atol=1e-8)


def test_densities_of_groups_are_those_of_the_whole_table():
    made = table((2, 3, 4), 3, diagonal=True).raised(0.7)
    feature = torch.tensor([[0.1, 0.6, 0.3], [2.0, 0.0, -1.0]], dtype=torch.float64)
    (a, b), (c, d) = made.centres[1:], made.spreads[1:]
    pairs = [(x[:, None] + y).reshape(-1, 3).T[None] for x, y in ((a, b), (c, d))]
    first = made.centres[0].T[None], made.spreads[0].T[None]
    found = made.log_density(feature, first, (pairs[0], pairs[1]))
    wanted = made.log_likelihood(feature).reshape(2, 2, 12)
    torch.testing.assert_close(found, wanted)
    short = [(x.float(), y.float()) for x, y in (first, pairs)]
    torch.testing.assert_close(
        made.log_density(feature, *short), wanted.float(), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_densities_of_groups_are_the_same_in_blocks_and_in_any_batch(dtype, monkeypatch):
    """Bit for bit, also where some groups are shared by all mixtures."""
    made = table((30, 20), 3, diagonal=True)
    random = torch.Generator().manual_seed(0)
    features = torch.rand(5, 3, generator=random, dtype=torch.float64)
    chosen = torch.randint(30, (5, 12), generator=random)
    first = tuple(part[0][chosen].mT.to(dtype) for part in (made.centres, made.spreads))
    second = tuple(part[1].T[None].to(dtype) for part in (made.centres, made.spreads))
    every = made.log_density(features, first, second)
    for block in (1, 7 * 20, 2 * 12 * 20):
        monkeypatch.setattr(diagonal, "_BLOCK", block)
        assert torch.equal(made.log_density(features, first, second), every)
    for row in range(5):
        alone = tuple(part[row : row + 1] for part in first)
        found = made.log_density(features[row : row + 1], alone, second)
        assert torch.equal(found[0], every[row])
    wanted = made.log_likelihood(features)[torch.arange(5)[:, None], chosen]
    torch.testing.assert_close(every.double(), wanted, rtol=1e-4, atol=1e-3)
    assert made.log_density(features[:0], tuple(p[:0] for p in first), second).numel() == 0


def test_many_variances_that_lie_far_apart_do_not_overflow():
    """The product of 40 of them is beyond 32 bits: logarithms are taken in between."""
    width = 40
    means = torch.zeros(2, width, dtype=torch.float64)
    spread = torch.stack([torch.eye(width).double() * 1e-6, torch.eye(width).double() * 1e4])
    made = LinearGaussianTable(
        (means, means), (spread, spread), 1e-6, torch.eye(width).double(), True
    )
    groups = [(made.centres[i].T[None].float(), made.spreads[i].T[None].float()) for i in (0, 1)]
    features = torch.full((1, width), 0.5, dtype=torch.float64)
    found = made.log_density(features, *groups)
    torch.testing.assert_close(found, made.log_likelihood(features).float(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("power", [1.0, 0.4])
def test_of_parents_that_sound_alike_half_of_the_configurations_are_kept(power):
    part = cells(6, 3)
    made = LinearGaussianTable.from_cells([part, part], (0.5, 0.5), diagonal=False).raised(power)
    features = torch.rand(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for count in (1, 2, 3, 7):  # products of some numbers of rows are padded
        found = made.log_likelihood(features[:count])
        torch.testing.assert_close(found, truth(made, features[:count]), rtol=1e-9, atol=1e-8)
        assert torch.equal(found, found.mT)
    assert len(made._precisions.offset) == 21
    unlike = LinearGaussianTable.from_cells([part, part], (0.6, 0.4), diagonal=False)
    assert len(unlike._precisions.offset) == 36
    assert made.nbytes < unlike.nbytes


def test_axes_change_nothing_but_what_a_diagonal_leaves_out():
    full, diagonal = table((3, 2), 4, False), table((3, 2), 4, True)
    for tokens in product(range(3), range(2)):
        mean, spread = full.gaussian(*tokens)
        other, kept = diagonal.gaussian(*tokens)
        torch.testing.assert_close(mean, other)
        along = full.axes.T @ spread @ full.axes
        torch.testing.assert_close(full.axes.T @ kept @ full.axes, along.diagonal().diag())
    many = full.gaussian(torch.arange(3)[:, None], torch.arange(2))
    assert [part.shape for part in many] == [(3, 2, 4), (3, 2, 4, 4)]


def test_a_mixture_of_real_signals_has_the_moments_that_are_put_together():
    """Two signals, mixed at random and looked at cell by cell."""
    number, weights = 200_000, (0.7, 0.3)
    (a, x), (b, y) = signal(3, 2, number, 4), signal(4, 2, number, 5)
    made = LinearGaussianTable.from_cells(
        [CellMoments.from_features(a, x, 3), CellMoments.from_features(b, y, 4)], weights, NARROW
    )
    mixed = weights[0] * x + weights[1] * y
    for tokens in product(range(3), range(4)):
        rows = mixed[(a == tokens[0]) & (b == tokens[1])]
        mean, covariance = made.gaussian(*tokens)
        error = 5 * rows.std(0) / len(rows) ** 0.5
        assert ((rows.mean(0) - mean).abs() < error + 1e-5).all()
        torch.testing.assert_close(rows.T.cov(), covariance, rtol=0.1, atol=1e-4)
    hidden = LinearGaussianTable.from_cells(
        [CellMoments.from_features(a, x, 3)],
        weights[:1],
        NARROW,
        hidden=[(CellMoments.from_features(b, y, 4), weights[1])],
    )
    assert hidden.parents == (3,)
    for token in range(3):
        rows = mixed[a == token]
        mean, covariance = hidden.gaussian(token)
        torch.testing.assert_close(rows.mean(0), mean, rtol=0, atol=5e-3)
        torch.testing.assert_close(rows.T.cov(), covariance, rtol=0.05, atol=1e-4)


def test_what_is_hidden_is_heard_whatever_the_parents():
    """Averaging a parent out is one more Gaussian beside the others, in every configuration."""
    first, second, third = cells(3, seed=1), cells(2, seed=2), cells(4, seed=3)
    whole = LinearGaussianTable.from_cells([first, second, third.pooled()], (0.5, 0.3, 0.2))
    made = LinearGaussianTable.from_cells([first, second], (0.5, 0.3), hidden=[(third, 0.2)])
    x = torch.tensor([[0.3, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(made.log_likelihood(x), whole.log_likelihood(x)[..., 0])


def test_many_configurations_are_diagonal(monkeypatch):
    assert not table((3, 4)).diagonal
    monkeypatch.setattr(module, "FULL", 11)
    assert table((3, 4)).diagonal
    assert not table((3, 4), diagonal=False).diagonal


def test_it_says_what_it_takes():
    full, diagonal = table((3, 4)), table((3, 4), diagonal=True)
    assert repr(full).startswith("LinearGaussianTable(parents=(3, 4), width=2, full, 0.00")
    assert repr(diagonal.raised(0.5)).startswith(
        "LinearGaussianTable(parents=(3, 4), width=2, diagonal, power=0.5, "
    )
    assert diagonal.nbytes == 8 * (7 * 2 + 7 * 4) < full.nbytes
    assert full.raised(2.0).raised(0.5).power == 1.0
    assert full.log_likelihood(torch.zeros(0, 2)).shape == (0, 3, 4)


def singular() -> LinearGaussianTable:
    none = torch.zeros(1, 1, 2, 2, dtype=torch.float64)[0]
    return LinearGaussianTable((none[0, :1],), (none,), 0.0, torch.eye(2).double(), False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearGaussianTable.from_cells([], []), "0 weights for 0 moments"),
        (lambda: LinearGaussianTable.from_cells([cells()], [0.5, 0.5]), "2 weights for 1 moments"),
        (
            lambda: LinearGaussianTable.from_cells([cells(), cells(width=3)], [0.5, 0.5]),
            r"different widths: \[2, 3\]",
        ),
        (
            lambda: LinearGaussianTable.from_cells([cells()], [0.5], hidden=[(cells(width=1), 1)]),
            r"different widths: \[2, 1\]",
        ),
        (
            lambda: LinearGaussianTable.from_cells([CellMoments.empty(2, 2)], [1.0]),
            "no feature was counted",
        ),
        (lambda: table((2,)).raised(0.0), "power must be positive"),
        (lambda: table((2,)).log_likelihood(torch.zeros(1, 3)), r"features \[M, 2\], got \[1, 3\]"),
        (lambda: table((2,)).log_likelihood(torch.full((1, 2), float("inf"))), "finite"),
        (lambda: singular().log_likelihood(torch.zeros(1, 2)), r"singular.*Shrink\(min_std"),
        (
            lambda: table((300,) * 3).log_likelihood(torch.zeros(1, 2)),
            r"each of 2.70e\+07 configurations .*Truncated\(\)",
        ),
    ],
)
def test_malformed_tables_are_refused(make, message):
    with pytest.raises(TableError, match=message):
        make()


# --- as a site -----------------------------------------------------------------------------------


def song():
    return mix("song", source("drums"), source("bass"), evidence=Feature(linear=True))


PRIORS = {
    "drums": torch.tensor([0.5, 0.3, 0.2]).double().log(),
    "bass": torch.tensor([0.1, 0.2, 0.3, 0.4]).double().log(),
}


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_bound_program_samples_its_density(diagonal):
    made, x = table((3, 4), diagonal=diagonal), torch.tensor([0.4, 0.7], dtype=torch.float64)
    model = bind(song, {"song": made}, PRIORS, {"song": x})
    assert isinstance(
        poutine.trace(model).get_trace().nodes["song"]["fn"], pyro.distributions.MultivariateNormal
    )
    enumerated = config_enumerate(model, default="parallel")
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    answer = posterior(
        song,
        {"song": made},
        {name: log.exp() for name, log in PRIORS.items()},
        {"song": x},
        infer=Exact(),
    )
    wanted = -elbo.loss(enumerated, lambda: None)
    assert float(answer.log_evidence) == pytest.approx(wanted, abs=1e-6)
    for name, other in elbo.compute_marginals(enumerated, lambda: None).items():
        torch.testing.assert_close(answer.marginals()[name][0, 0], other.probs, atol=1e-6, rtol=0)
    best = poutine.trace(infer_discrete(enumerated, first_available_dim=-1, temperature=0))
    nodes = best.get_trace().nodes
    for name, token in answer.mode().items():
        assert int(token) == int(nodes[name]["value"])


def test_a_bound_program_simulates():
    made = table((3, 4))
    with pyro.plate("many", 4000):
        trace = poutine.trace(bind(song, {"song": made}, PRIORS)).get_trace()
    drums, bass, drawn = (trace.nodes[name]["value"] for name in ("drums", "bass", "song"))
    assert drawn.shape == (4000, 2)
    rows = drawn[(drums == 0) & (bass == 3)]
    mean, covariance = made.gaussian(0, 3)
    assert ((rows.mean(0) - mean).abs() < 5 * rows.std(0) / len(rows) ** 0.5).all()
    torch.testing.assert_close(rows.T.cov(), covariance, rtol=0.3, atol=1e-3)


def test_a_power_counts_where_the_site_is_observed():
    made, x = table((3, 4)), torch.tensor([0.4, 0.7], dtype=torch.float64)

    def quiet():
        return mix(
            "song", source("drums"), source("bass"), evidence=Feature(power=0.3, linear=True)
        )

    fixed = {"drums": torch.tensor(1), "bass": torch.tensor(2)}
    logs = []
    for program in (song, quiet):
        model = pyro.condition(bind(program, {"song": made}, PRIORS, {"song": x}), fixed)
        trace = poutine.trace(model).get_trace()
        trace.compute_log_prob()
        logs.append(float(trace.nodes["song"]["log_prob"]))
    assert logs[0] == pytest.approx(float(made.log_likelihood(x[None])[0, 1, 2]), abs=1e-9)
    assert logs[1] == pytest.approx(0.3 * logs[0], abs=1e-9)
    with pytest.raises(TableError, match=r"raised to the power 0.3 already"):
        bind(song, {"song": made.raised(0.3)}, PRIORS)
