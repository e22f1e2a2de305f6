"""Samples against the exact joint: chi-square at fixed seeds, and nothing impossible is drawn."""

from __future__ import annotations

import pytest
import torch
from engines import ENGINES, SAMPLERS, each
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from mlass_ppl import (
    BP,
    EngineError,
    Feature,
    GaussianTable,
    Soft,
    Table,
    Token,
    chain,
    compile_program,
    joint,
    mix,
    source,
    star,
)
from mlass_ppl.infer.random import draw, uniforms
from mlass_ppl.testing import BruteForce, Problem

DRAWS = 8_000
TYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def twins():
    """A balanced tree: two partial mixtures of two sources each, one of them heard as well."""
    left = mix("left", source("a"), source("b"))
    right = mix("right", source("c"), source("d"))
    return mix("all", left, right), mix("echo", left)


def kinds():
    """All kinds of evidence on one tree."""
    left = mix("left", source("a"), source("b"), evidence=Soft())
    return (
        left,
        mix("all", left, source("c"), evidence=Feature()),
        mix("low", left, evidence=Token(0.5)),
    )


def stereo():
    """Two mixtures of the same sources: a cycle."""
    a, b, c = source("a"), source("b"), source("c")
    return mix("left", a, b, c), mix("right", mix("ab", a, b), c, evidence=Feature())


GRAPHS = [compile_program(program) for program in (joint(2), joint(3), chain(3), chain(4), twins)]
SHAPES = pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
PAIRS = [
    pytest.param(graph, ENGINES[name], id=f"{graph.name}-{name}")
    for graph in (*GRAPHS, compile_program(kinds), compile_program(stereo))
    for name in SAMPLERS
    if ENGINES[name].is_exact(graph) or name == "auto"  # which can afford Exact() here
]


def problem(graph, mixtures=2, size=3, depth=3.0, seed=0):
    """Sparse random tables; every mixture observes a token of its own, and all its candidates
    share one row of priors."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(shape, generator=random, dtype=torch.float64)

    tables = {}
    for factor in graph.factors:
        if factor.feature:
            mean, std = uniform(*[size] * len(factor.parents), 2), uniform(1, 2) + 0.3
            tables[factor.name] = GaussianTable.from_arrays(mean, std.expand_as(mean))
            continue
        rows = uniform(*[size] * len(factor.scope)) ** 3
        rows = rows * (uniform(*rows.shape) < 0.6)
        total = rows.sum(-1, keepdim=True)
        tables[factor.name] = Table.from_array(rows / torch.where(total > 0, total, 1.0))
    priors = {
        name: (depth * uniform(mixtures, 1, size)).log_softmax(-1).expand(-1, DRAWS, -1)
        for name in graph.sources
    }
    evidence = {}
    for name in graph.observed:
        evidence[name] = torch.arange(mixtures) % size
        if name in graph.soft:
            evidence[name] = 2 * uniform(mixtures, size)
        elif name in graph.features:
            evidence[name] = 2 * uniform(mixtures, 2)
    out = Problem(graph, tables, priors, evidence)
    assert all(out.brute_force(m, 0).log_evidence > float("-inf") for m in range(mixtures))
    return out


def table_of(drawn, mixture, truth: BruteForce):
    """How often each joint state was drawn for a mixture, like `truth.joint`."""
    index = torch.stack([drawn[name][mixture] for name in truth.sites])
    assert (index >= 0).all()
    keys = torch.zeros(index.shape[1], dtype=torch.long)
    for tokens, size in zip(index, truth.joint.shape, strict=True):
        keys = keys * size + tokens
    return torch.bincount(keys, minlength=truth.joint.numel()).reshape(truth.joint.shape)


def chi_square(counts, probabilities):
    """p-value, cells of fewer than five expected draws pooled."""
    wanted = probabilities.flatten().double() * counts.sum()
    counts = counts.flatten().double()
    big = wanted >= 5
    found = torch.cat([counts[big], counts[~big].sum()[None]])
    expected = torch.cat([wanted[big], wanted[~big].sum()[None]])
    if expected[-1] < 1:
        found, expected = found[:-1], expected[:-1]
    assert len(found) > 2, "nothing to test"
    return stats.chisquare(found, expected, sum_check=False).pvalue


@TYPES
@pytest.mark.parametrize(("graph", "engine"), PAIRS)
def test_samples_follow_the_joint_posterior(graph, engine, dtype):
    """Of each mixture its own: evidence and priors differ between the two in the batch."""
    here = problem(graph)
    drawn = here.posterior(engine, dtype).sample(torch.Generator().manual_seed(1))
    for m in range(2):
        truth = here.brute_force(m, 0)
        counts = table_of(drawn, m, truth)
        assert (counts[truth.joint == 0] == 0).all(), "an impossible tuple was drawn"
        assert chi_square(counts, truth.joint) > 1e-3
        other = here.brute_force(1 - m, 0).joint
        assert chi_square(counts, other) < 1e-9, "the test could not tell the two mixtures apart"


@TYPES
def test_samples_that_need_logarithms_follow_the_posterior_too(dtype):
    """The peaks of the priors are impossible, so the linear pass of BP has nothing left."""
    graph = GRAPHS[2]
    here = problem(graph, seed=3)
    table = here.tables["mixture"].dense()
    table[:, 0] = 0  # no mixture holds token 0 of source_3 ...
    tables = {**here.tables, "mixture": Table.from_array(table)}
    deep = torch.tensor(
        [0.0, -2000.5, -2000.0], dtype=torch.float64
    )  # ... which its prior swears by
    priors = {**here.log_priors, "source_3": deep.expand(2, DRAWS, 3)}
    here = Problem(graph, tables, priors, here.evidence)
    for engine in (ENGINES[name] for name in SAMPLERS):
        drawn = here.posterior(engine, dtype).sample(torch.Generator().manual_seed(2))
        for m in range(2):
            truth = here.brute_force(m, 0)
            counts = table_of(drawn, m, truth)
            assert (counts[truth.joint == 0] == 0).all()
            assert chi_square(counts, truth.joint) > 1e-3


@SHAPES
@pytest.mark.parametrize("limit", [2**28, 0], ids=["dense", "sparse"])
def test_draws_from_marginals_follow_their_product(graph, limit):
    here = problem(graph)
    engine = BP(draw="marginals", dense_limit=limit)
    drawn = here.posterior(engine).sample(torch.Generator().manual_seed(4))
    for m in range(2):
        truth = here.brute_force(m, 0)
        product = torch.ones(())
        for name in truth.sites:
            product = product[..., None] * truth.marginal(name)
        counts = table_of(drawn, m, truth)
        assert chi_square(counts, product) > 1e-3
        assert chi_square(counts, truth.joint) < 1e-9


@pytest.mark.parametrize("draws", ["joint", "marginals"])
def test_only_marginals_make_impossible_tuples(draws):
    """The mixture is the sum of two tokens: of two sources that made 3, each is 0..3, and a pair
    drawn from marginals sums to 3 in a quarter of all cases."""
    size = 4
    total = torch.arange(size)[:, None] + torch.arange(size)
    table = torch.nn.functional.one_hot(total, 2 * size - 1)
    graph = compile_program(joint(2))
    flat = torch.zeros(1, DRAWS, size)
    here = Problem(
        graph,
        {"mixture": Table.from_array(table)},
        {"source_1": flat, "source_2": flat},
        {"mixture": torch.tensor([3])},
    )
    drawn = here.posterior(BP(draw=draws)).sample(torch.Generator().manual_seed(5))
    possible = (drawn["source_1"] + drawn["source_2"] == 3).double().mean()
    assert float(possible) == pytest.approx(1.0 if draws == "joint" else 0.25, abs=0.02)


@each()
def test_samples_depend_on_the_seed_alone(engine):
    here = problem(compile_program(star(3)) if engine == ENGINES["extractor"] else GRAPHS[3])
    posterior = here.posterior(engine)
    one, two, other = (posterior.sample(torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    posterior.marginals(), posterior.mode()  # asking for more changes no draw
    again = posterior.sample(torch.Generator().manual_seed(7))
    assert all(torch.equal(one[name], again[name]) for name in one)


@each()
def test_random_numbers_may_be_given(engine):
    here = problem(compile_program(star(2)) if engine == ENGINES["extractor"] else GRAPHS[0])
    posterior = here.posterior(engine)
    numbers = uniforms(torch.Generator().manual_seed(9), 2, DRAWS, len(here.graph.latent))
    given, drawn = posterior.sample(numbers), posterior.sample(torch.Generator().manual_seed(9))
    assert all(torch.equal(given[name], drawn[name]) for name in given)
    with pytest.raises(EngineError, match=r"expected uniform numbers \[2, 8000, .\]"):
        posterior.sample(numbers[:, :5])
    with pytest.raises(EngineError, match="expected 2 generators, one a mixture, got 3"):
        posterior.sample([torch.Generator() for _ in range(3)])


# --- the inverse transform itself ---------------------------------------------------------------


@given(
    weights=st.lists(
        st.one_of(st.just(0.0), st.floats(1e-300, 1e3), st.sampled_from([5e-324, 1e-40, 1.0])),
        min_size=1,
        max_size=8,
    ),
    uniform=st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1 - 2**-53])),
)
@example(weights=[0.0, 5e-324, 0.0], uniform=0.75)  # the product rounds up to the whole mass
@example(weights=[0.0, 1.0, 0.0], uniform=0.0)
@example(weights=[0.0, 1.0, 0.0], uniform=1 - 2**-53)
def test_no_uniform_number_draws_a_zero(weights, uniform):
    for dtype in (torch.float64, torch.float32):
        row = torch.tensor(weights, dtype=dtype)
        index = int(draw(row[None], torch.tensor([uniform], dtype=torch.float64))[0])
        if (row > 0).any():
            assert row[index] > 0
            if row.double().sum() < 1e-300:
                continue  # sums of subnormal numbers are rounded to one of them
            mass = row.double().cumsum(0) / row.double().sum()
            before = float(mass[index - 1]) if index else 0.0
            assert before <= uniform + 1e-12
            assert uniform <= float(mass[index]) + 1e-12
        else:
            assert index == -1


def test_rows_are_drawn_from_their_own_weights():
    weights = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1e-30]])
    assert draw(weights, torch.full((4,), 0.5, dtype=torch.float64)).tolist() == [1, 0, -1, 2]
