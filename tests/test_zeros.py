"""Zeros, near-zeros and impossibilities: never NaN, and the right answer where there is one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import log

import pytest
import torch
from engines import ENGINES, ON_TREES, TYPES, each
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl import (
    Feature,
    GaussianTable,
    MixingGraph,
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
from mlass_ppl.infer import Engine, Posterior
from mlass_ppl.testing import Problem, check_engine, random_graph, random_problem

NEVER = float("-inf")
TREE_ENGINES = [ENGINES[name] for name in ON_TREES]


def assert_sound(posterior: Posterior) -> None:
    """No NaN, and impossible rows say -inf, zeros and -1, everywhere and together."""
    evidence = posterior.log_evidence
    assert not torch.isnan(evidence).any()
    assert (evidence < float("inf")).all()
    impossible = evidence == NEVER
    marginals = posterior.marginals()
    for values in marginals.values():
        assert torch.isfinite(values).all()
        wanted = torch.where(impossible, 0.0, 1.0).to(values.dtype)
        torch.testing.assert_close(values.sum(-1), wanted, atol=1e-4, rtol=0)
        assert (values >= 0).all()
    for tokens in (posterior.mode(), posterior.sample(torch.Generator().manual_seed(0))):
        assert tokens.keys() == marginals.keys()
        for name, values in tokens.items():
            assert values.dtype == torch.int64
            assert ((values == -1) == impossible).all()
            assert (values < marginals[name].shape[-1]).all()


def shift(graph: MixingGraph, size: int) -> dict[str, Table]:
    """Every mixture is the sum of its parents modulo `size`: each prior token reaches any token."""
    tables = {}
    for factor in graph.factors:
        total = torch.zeros([size] * len(factor.parents), dtype=torch.long)
        for axis in range(total.ndim):
            total = total + torch.arange(size).view([-1] + [1] * axis)
        tables[factor.name] = Table.from_array(torch.nn.functional.one_hot(total % size, size))
    return tables


def problem(graph: MixingGraph, tables: dict[str, Table], rows: dict[str, Tensor], token: int):
    """One mixture of one candidate."""
    return Problem(
        graph,
        tables,
        {name: rows[name].double()[None, None] for name in graph.sources},
        dict.fromkeys(graph.observed, torch.tensor([token])),
    )


@each([*ON_TREES, "marginals"])
@settings(max_examples=25)
@given(random_problem(random_graph()), st.sampled_from([torch.float32, torch.float64]))
def test_nothing_is_ever_nan(engine: Engine, here: Problem, dtype: torch.dtype) -> None:
    """Among them priors 500 nats deep, priors of nothing but -inf and impossible evidence."""
    assert_sound(here.posterior(engine, dtype))


@pytest.mark.filterwarnings("ignore::mlass_ppl.errors.ConvergenceWarning")
@each(["exact", "loopy", "loopy-sparse", "auto", "auto-loopy"])
@settings(max_examples=15)
@given(
    random_problem(random_graph(max_sources=5, tree=False)),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_nothing_is_ever_nan_on_cycles(engine: Engine, here: Problem, dtype: torch.dtype) -> None:
    assert_sound(here.posterior(engine, dtype))


@settings(max_examples=40)
@given(
    random_problem(
        st.builds(
            lambda n, kind: compile_program(star(n, evidence=kind)),
            st.integers(2, 5),
            st.sampled_from([Token(), Feature(), Soft()]),
        )
    )
)
def test_extractors_are_never_nan(here: Problem) -> None:
    assert_sound(here.posterior(ENGINES["extractor"]))


@each(ON_TREES)
def test_weights_of_nothing_make_their_mixture_impossible_alone(engine: Engine) -> None:
    graph = compile_program(chain(3, evidence=Soft()))
    priors = {name: torch.zeros(3, 2, 4, dtype=torch.float64) for name in graph.sources}
    weights = torch.randn(3, 4, dtype=torch.float64)
    weights[1] = NEVER
    here = Problem(graph, shift(graph, 4), priors, {"mixture": weights})
    assert_sound(here.posterior(engine))
    assert (here.posterior(engine).log_evidence == NEVER).tolist() == [[False] * 2, [True] * 2, [False] * 2]  # fmt: skip  # noqa: E501
    check_engine(engine, here)


@TYPES
@each(ON_TREES)
@pytest.mark.parametrize("depth", [0.0, -80.0, -400.0, -2000.0])
def test_weights_may_contradict_the_priors(
    depth: float, engine: Engine, dtype: torch.dtype, tolerance: float
) -> None:
    """Weights swear by the one token that the sources cannot make."""
    graph = compile_program(joint(2, evidence=Soft()))
    rows = {name: torch.tensor([0.0, NEVER, NEVER, NEVER]) for name in graph.sources}
    for rest in (depth, NEVER):
        weights = torch.tensor([[rest, rest - 3, 0.0, rest]], dtype=torch.float64)
        priors = {name: row.double()[None, None] for name, row in rows.items()}
        here = Problem(graph, shift(graph, 4), priors, {"mixture": weights})
        check_engine(engine, here, dtype=dtype, tolerance=tolerance)
        assert float(here.posterior(engine, dtype).log_evidence) == rest


def gaussian(possible: Tensor, std: float) -> GaussianTable:
    """Means at the sums of two tokens."""
    size = torch.arange(len(possible), dtype=torch.float64)
    mean = (size[:, None] + size)[..., None].expand(-1, -1, 2)
    return GaussianTable.from_arrays(mean, torch.full_like(mean, std), possible)


@TYPES
@each(ON_TREES)
@pytest.mark.parametrize("std", [0.5, 0.01])
def test_features_of_impossible_parents(
    std: float, engine: Engine, dtype: torch.dtype, tolerance: float
) -> None:
    """The feature lies where no possible parents are, thousands of nats away; and where no parents
    that the priors allow are possible, the row is impossible."""
    graph = compile_program(joint(2, evidence=Feature()))
    possible = torch.ones(4, 4, dtype=torch.bool)
    possible[3, 3] = possible[2, 0] = False
    priors = {
        "source_1": torch.tensor([[[0.0, -1, NEVER, 0], [NEVER, NEVER, 0, NEVER]]]).double(),
        "source_2": torch.tensor([[[0.0, -2, -1, 0], [0, NEVER, NEVER, NEVER]]]).double(),
    }
    feature = torch.tensor([[6.0, 6.1]], dtype=torch.float64)
    here = Problem(graph, {"mixture": gaussian(possible, std)}, priors, {"mixture": feature})
    check_engine(engine, here, dtype=dtype, tolerance=tolerance)
    answer = here.posterior(engine, dtype)
    assert_sound(answer)
    assert (answer.log_evidence == NEVER).tolist() == [[False, True]]


@pytest.mark.parametrize("name", ["exact", "auto", "loopy", "auto-loopy"])
def test_two_channels_that_contradict_each_other(name: str) -> None:
    """Left says that the tokens sum to 1, right that they sum to 2: each alone is possible."""

    def stereo():
        a, b = source("a"), source("b")
        return mix("left", a, b), mix("right", a, b)

    graph = compile_program(stereo)
    priors = dict.fromkeys(graph.sources, torch.zeros(1, 1, 4, dtype=torch.float64))
    for right, possible in ((1, True), (2, False)):
        tokens = {"left": torch.tensor([1]), "right": torch.tensor([right])}
        answer = Problem(graph, shift(graph, 4), priors, tokens).posterior(ENGINES[name])
        assert_sound(answer)
        assert (float(answer.log_evidence) > NEVER) == possible


@each(ON_TREES)
@pytest.mark.parametrize("shape", [joint, chain, star])
def test_a_prior_of_nothing_makes_its_row_impossible_alone(
    engine: Engine, shape: Callable[[int], object]
) -> None:
    graph = compile_program(shape(3))
    priors = {name: torch.zeros(2, 3, 4, dtype=torch.float64) for name in graph.sources}
    priors["source_2"][0, 1] = NEVER
    tokens = dict.fromkeys(graph.observed, torch.tensor([1, 2]))
    posterior = Problem(graph, shift(graph, 4), priors, tokens).posterior(engine)
    assert_sound(posterior)
    assert (posterior.log_evidence == NEVER).nonzero().tolist() == [[0, 1]]


@each(ON_TREES)
def test_evidence_that_the_priors_rule_out(engine: Engine) -> None:
    """Token 3 occurs in the table, but not with what these priors allow."""
    graph = compile_program(chain(3))
    rows = {name: torch.tensor([0, NEVER, NEVER, NEVER]) for name in graph.sources}
    posterior = problem(graph, shift(graph, 4), rows, 3).posterior(engine)
    assert_sound(posterior)
    assert float(posterior.log_evidence) == NEVER


def test_one_impossible_tree_of_a_forest_makes_all_impossible() -> None:
    """Independent mixtures: that source_1 is impossible is known to its own tree alone."""
    graph = compile_program(star(2))
    rows = {"source_1": torch.full((3,), NEVER), "source_2": torch.zeros(3)}
    for engine in (*TREE_ENGINES, ENGINES["extractor"]):
        assert_sound(problem(graph, shift(graph, 3), rows, 1).posterior(engine))


def test_contradicting_observations_are_impossible() -> None:
    """Also where every site of a factor is observed, so that no message ever meets it."""

    def program():
        first = mix("first", source("a"))
        return first, mix("second", first), mix("third", first)

    graph = compile_program(program)
    tables = dict.fromkeys(("first", "second", "third"), Table.from_array(torch.eye(3)))
    for tokens, possible in (((1, 1, 1), True), ((1, 2, 1), False), ((1, 1, 0), False)):
        here = Problem(
            graph,
            tables,
            {"a": torch.zeros(1, 1, 3, dtype=torch.float64)},
            {name: torch.tensor([t]) for name, t in zip(graph.observed, tokens, strict=True)},
        )
        for engine in TREE_ENGINES:
            check_engine(engine, here)
            assert (float(here.posterior(engine).log_evidence) > NEVER) == possible


@TYPES
@each(ON_TREES)
@pytest.mark.parametrize("shape", [joint, chain])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_one_hot_priors_leave_one_state(
    n: int, shape: Callable[[int], object], engine: Engine, dtype: torch.dtype, tolerance: float
) -> None:
    graph = compile_program(shape(n))
    rows = {}
    for place, name in enumerate(graph.sources):
        rows[name] = torch.full((3,), NEVER)
        rows[name][place % 3] = 0
    truth = sum(range(n)) % 3
    for token in range(3):
        here = problem(graph, shift(graph, 3), rows, token)
        check_engine(engine, here, dtype=dtype, tolerance=tolerance)
        posterior = here.posterior(engine, dtype)
        assert float(posterior.log_evidence) == (0.0 if token == truth else NEVER)
        wanted = [place % 3 if token == truth else -1 for place in range(n)]
        assert [int(posterior.mode()[name]) for name in graph.sources] == wanted


@TYPES
@each(ON_TREES)
@pytest.mark.parametrize("depth", [-50.0, -90.0, -110.0, -200.0, -400.0, -1000.0, -1e5])
@pytest.mark.parametrize("shape", [joint, chain])
def test_the_peak_of_the_prior_may_be_impossible(
    shape: Callable[[int], object],
    depth: float,
    engine: Engine,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """All that is possible lies `depth` nats below the peaks, where a linear pass underflows."""
    graph = compile_program(shape(3))
    tables = shift(graph, 4)
    peak = torch.tensor([0, depth, depth - 1, depth - 2], dtype=torch.float64)
    rows = {"source_1": peak, "source_2": peak, "source_3": peak.roll(1)}
    for token in range(4):
        check_engine(engine, problem(graph, tables, rows, token), dtype=dtype, tolerance=tolerance)
    rows = {name: torch.tensor([0.0, NEVER, NEVER, depth]) for name in graph.sources}
    for token in range(4):  # 0: the peaks; 3, 2, 1: one, two, three sources off their peak
        check_engine(engine, problem(graph, tables, rows, token), dtype=dtype, tolerance=tolerance)


@TYPES
@each(ON_TREES)
def test_rows_near_underflow_stand_beside_ordinary_ones(
    engine: Engine, dtype: torch.dtype, tolerance: float
) -> None:
    """One batch: ordinary, deep, very deep and impossible candidates."""
    graph = compile_program(chain(4))
    random = torch.Generator().manual_seed(3)
    scales = torch.tensor([1.0, 60, 200, 1000, 1e4, 1.0], dtype=torch.float64)
    priors = {}
    for name in graph.sources:
        draws = torch.rand(2, len(scales), 4, generator=random, dtype=torch.float64)
        priors[name] = -draws * scales[:, None]
    priors["source_3"][1, 5] = NEVER
    here = Problem(graph, shift(graph, 4), priors, {"mixture": torch.tensor([0, 3])})
    check_engine(engine, here, dtype=dtype, tolerance=tolerance)


@TYPES
@each(ON_TREES)
@pytest.mark.parametrize("tiny", [1e-6, 1e-9, 1e-30, 1e-200])
@pytest.mark.parametrize("n", [3, 6])
def test_long_chains_of_tiny_probabilities(
    n: int, tiny: float, engine: Engine, dtype: torch.dtype, tolerance: float
) -> None:
    """Only the improbable cell of every table explains the observation."""
    graph = compile_program(chain(n))
    table = torch.zeros(3, 3, 3, dtype=torch.float64)
    table[..., 0] = 1 - tiny
    table[..., 1] = tiny
    table[1, :, 2], table[1, :, 1] = tiny, 0  # the last token only ever follows token 1
    last = table.clone()
    last[..., 2] = 0
    last[1, :, 0], last[1, :, 2] = 1 - tiny, tiny
    last[2, :, 0], last[2, :, 2] = 1 - tiny, tiny
    tables = {
        name: Table.from_array(table / table.sum(-1, keepdim=True)) for name in graph.mixtures
    }
    tables["mixture"] = Table.from_array(last / last.sum(-1, keepdim=True))
    rows = {name: torch.tensor([0.0, -1.0, -3.0]).log_softmax(0) for name in graph.sources}
    rows["source_1"] = torch.tensor([0.0, NEVER, NEVER])
    here = problem(graph, tables, rows, 2)
    assert NEVER < here.brute_force(0, 0).log_evidence < log(tiny)
    check_engine(engine, here, dtype=dtype, tolerance=tolerance)


@each(["dense", "sparse", "loopy"])
def test_underflow_does_not_add_up_unnoticed(engine: Engine) -> None:
    """Every step loses 40 nats, which float32 can bear; after three of them the path that it
    dropped at the first (-110 nats) is the likelier one."""
    graph = compile_program(chain(4))
    step = torch.zeros(2, 2, 2)
    step[0, 1, 0] = step[1, 0, 1] = step[1, 1, 1] = 1
    last = torch.zeros(2, 2, 2)
    last[0, 0, 0] = last[0, 1, 1] = last[1, 1, 0] = last[1, 0, 1] = 1
    tables = {"mix_2": step, "mix_3": step, "mixture": last}
    rows = dict.fromkeys(("source_2", "source_3"), torch.tensor([0.0, -40.0]))
    rows |= {"source_1": torch.tensor([-40.0, 0.0]), "source_4": torch.tensor([0.0, -110.0])}
    ready = {name: Table.from_array(table) for name, table in tables.items()}
    here = problem(graph, ready, rows, 0)
    check_engine(engine, here, dtype=torch.float32, tolerance=1e-5)
    assert int(here.posterior(engine, torch.float32).mode()["source_1"]) == 1


def test_unnormalised_priors_are_weights() -> None:
    """Nothing is renormalised behind the caller's back: a shift of a prior shifts the evidence."""
    graph = compile_program(chain(3))
    rows = {name: torch.randn(4, dtype=torch.float64) for name in graph.sources}
    for engine, token in product(TREE_ENGINES, range(4)):
        here = problem(graph, shift(graph, 4), rows, token)
        more = problem(graph, shift(graph, 4), {**rows, "source_2": rows["source_2"] + 7}, token)
        one, two = here.posterior(engine), more.posterior(engine)
        torch.testing.assert_close(two.log_evidence, one.log_evidence + 7)
        torch.testing.assert_close(two.marginals()["source_1"], one.marginals()["source_1"])
