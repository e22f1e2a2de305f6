"""Rows are strangers: no candidate, mixture or earlier question changes another one's answer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import permutations

import pytest
import torch
from engines import ENGINES, ON_TREES, each
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl import Extractor, Table, chain, compile_program, joint, star
from mlass_ppl.infer import Engine, Posterior
from mlass_ppl.testing import Problem, random_graph, random_problem

EACH = each([*ON_TREES, "marginals"])
TYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5}
PROBLEMS = random_problem(random_graph(max_sources=4), max_states=600, max_depth=100)
STARS = random_problem(st.integers(2, 4).map(lambda n: compile_program(star(n))), max_states=600)

Answer = dict[str, Tensor]


def streams(mixtures: list[int]) -> list[torch.Generator]:
    """Each mixture's own random stream."""
    return [torch.Generator().manual_seed(1000 + number) for number in mixtures]


def answer(posterior: Posterior, mixtures: list[int]) -> Answer:
    """All that a posterior says, [M, C, ...] each."""
    out = {"log_evidence": posterior.log_evidence}
    questions: dict[str, Mapping[str, Tensor]] = {
        "marginal": posterior.marginals(),
        "mode": posterior.mode(),
        "sample": posterior.sample(streams(mixtures)),
    }
    for kind, tensors in questions.items():
        out |= {f"{kind} of {name}": value for name, value in tensors.items()}
    return out


def assert_same(one: Answer, two: Answer, dtype: torch.dtype) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], two[name], atol=CLOSE[dtype], rtol=CLOSE[dtype], msg=lambda m, n=name: n + m
        )


def ask(engine: Engine, problem: Problem, dtype: torch.dtype) -> Answer:
    return answer(problem.posterior(engine, dtype), list(range(problem.shape[0])))


def part(problem: Problem, mixtures: list[int]) -> Problem:
    """Some mixtures of a problem, in the given order."""
    return Problem(
        problem.graph,
        problem.tables,
        {name: log[mixtures] for name, log in problem.log_priors.items()},
        {name: tokens[mixtures] for name, tokens in problem.evidence.items()},
    )


@TYPES
@EACH
@settings(max_examples=15)
@given(problem=PROBLEMS, data=st.data())
def test_changing_one_row_changes_no_other(
    engine: Engine, dtype: torch.dtype, problem: Problem, data: st.DataObject
) -> None:
    """The references mix every candidate's prior into every other's (their logsumexp runs over
    the candidates)."""
    changes_one_row(engine, dtype, problem, data)


@settings(max_examples=15)
@given(problem=STARS, data=st.data())
def test_changing_one_row_of_extractors_changes_no_other(
    problem: Problem, data: st.DataObject
) -> None:
    changes_one_row(Extractor(), torch.float64, problem, data)


def changes_one_row(
    engine: Engine, dtype: torch.dtype, problem: Problem, data: st.DataObject
) -> None:
    m, c = problem.shape
    row = data.draw(st.integers(0, m - 1)), data.draw(st.integers(0, c - 1))
    depth = data.draw(st.sampled_from([1.0, 300.0, float("inf")]))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    before = ask(engine, problem, dtype)
    priors = {name: log.clone() for name, log in problem.log_priors.items()}
    for log in priors.values():
        log[row] = -depth * (torch.rand(log.shape[-1], generator=random) + 1e-6)
    after = ask(engine, Problem(problem.graph, problem.tables, priors, problem.evidence), dtype)
    others = torch.ones(m, c, dtype=torch.bool)
    others[row] = False
    assert_same(
        {name: value[others] for name, value in before.items()},
        {name: value[others] for name, value in after.items()},
        dtype,
    )


@TYPES
@EACH
@settings(max_examples=15)
@given(problem=PROBLEMS, data=st.data())
def test_a_mixture_does_not_depend_on_its_batch(
    engine: Engine, dtype: torch.dtype, problem: Problem, data: st.DataObject
) -> None:
    """Any choice of the mixtures, in any order and even repeated, with their own streams."""
    m, _ = problem.shape
    chosen = data.draw(st.lists(st.integers(0, m - 1), min_size=1, max_size=5))
    whole = ask(engine, problem, dtype)
    some = answer(part(problem, chosen).posterior(engine, dtype), chosen)
    assert_same({name: value[chosen] for name, value in whole.items()}, some, dtype)


@settings(max_examples=15)
@given(problem=STARS, data=st.data())
def test_an_extracted_mixture_does_not_depend_on_its_batch(
    problem: Problem, data: st.DataObject
) -> None:
    m, _ = problem.shape
    chosen = data.draw(st.lists(st.integers(0, m - 1), min_size=1, max_size=5))
    whole = ask(Extractor(), problem, torch.float64)
    some = answer(part(problem, chosen).posterior(Extractor()), chosen)
    assert_same({name: value[chosen] for name, value in whole.items()}, some, torch.float64)


@EACH
@settings(max_examples=15)
@given(problem=PROBLEMS, seed=st.integers(0, 99))
def test_the_second_posterior_does_not_depend_on_the_first(
    engine: Engine, problem: Problem, seed: int
) -> None:
    """A plan keeps no state: what was asked before, and of what size, leaves no trace."""
    random = torch.Generator().manual_seed(seed)
    plan = engine.plan(problem.graph, problem.tables)
    fresh = answer(plan.posterior(problem.log_priors, problem.evidence), [*range(problem.shape[0])])
    first = {}
    for name, log in problem.log_priors.items():
        first[name] = torch.randn(2, 5, log.shape[-1], generator=random, dtype=torch.float64)
    given = {name: value[[0, 0]] for name, value in problem.evidence.items()}
    used = engine.plan(problem.graph, problem.tables)
    answer(used.posterior(first, given), [0, 1])
    answer(used.posterior({name: log.float() for name, log in first.items()}, given), [0, 1])
    again = answer(used.posterior(problem.log_priors, problem.evidence), [*range(problem.shape[0])])
    assert all(torch.equal(fresh[name], again[name]) for name in fresh)


@EACH
@settings(max_examples=15)
@given(problem=PROBLEMS)
def test_the_given_tensors_stay_as_they_are(engine: Engine, problem: Problem) -> None:
    priors = {name: log.clone() for name, log in problem.log_priors.items()}
    tokens = {name: token.clone() for name, token in problem.evidence.items()}
    tables = {name: copy.deepcopy(table) for name, table in problem.tables.items()}
    ask(engine, problem, torch.float64)
    assert all(torch.equal(log, problem.log_priors[name]) for name, log in priors.items())
    assert all(torch.equal(token, problem.evidence[name]) for name, token in tokens.items())
    for name, table in tables.items():
        for field, value in vars(table).items():
            if isinstance(value, Tensor):
                assert torch.equal(value, getattr(problem.tables[name], field))


@each(ON_TREES)
@pytest.mark.parametrize("n", [2, 3])
def test_permuting_the_priors_of_a_symmetric_joint_permutes_the_answer(
    engine: Engine, n: int, random: torch.Generator
) -> None:
    size = 4
    table = torch.rand([size] * (n + 1), generator=random, dtype=torch.float64) ** 4
    orders = list(permutations(range(n)))
    table = torch.stack([table.permute(*order, n) for order in orders]).mean(0)
    table = table / table.sum(-1, keepdim=True)
    graph = compile_program(joint(n))
    priors = torch.randn(n, 2, 3, size, generator=random, dtype=torch.float64)
    plan = engine.plan(graph, {"mixture": Table.from_array(table)})
    tokens = {"mixture": torch.tensor([1, 3])}
    answers = {
        order: plan.posterior(
            {f"source_{i + 1}": priors[place] for i, place in enumerate(order)}, tokens
        )
        for order in orders
    }
    first = answers[tuple(range(n))]
    for order, other in answers.items():
        torch.testing.assert_close(other.log_evidence, first.log_evidence)
        for i, place in enumerate(order):
            here, there = f"source_{i + 1}", f"source_{place + 1}"
            torch.testing.assert_close(other.marginals()[here], first.marginals()[there])
            assert torch.equal(other.mode()[here], first.mode()[there])


def test_large_batches_are_worked_off_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of bounded memory change nothing."""
    graph = compile_program(chain(3))
    random = torch.Generator().manual_seed(5)
    tables = {
        name: Table.from_array(torch.rand(5, 5, 5, generator=random).double().softmax(-1))
        for name in graph.mixtures
    }
    priors = {
        name: torch.randn(7, 9, 5, generator=random, dtype=torch.float64) for name in graph.sources
    }
    here = Problem(graph, tables, priors, {"mixture": torch.arange(7) % 5})
    engines = [ENGINES[name] for name in (*ON_TREES, "marginals")]
    whole = [ask(engine, here, torch.float64) for engine in engines]
    monkeypatch.setattr("mlass_ppl.infer.elimination.passes._STEP_BYTES", {"cpu": 3000})
    monkeypatch.setattr("mlass_ppl.infer.elimination.passes._KEEP_BYTES", 20_000)
    monkeypatch.setattr("mlass_ppl.infer.kernels.dense._CHUNK_BYTES", 600)
    monkeypatch.setattr("mlass_ppl.infer.kernels.sparse._CHUNK_BYTES", 6000)
    for engine, wanted in zip(engines, whole, strict=True):
        assert_same(ask(engine, here, torch.float64), wanted, torch.float64)
