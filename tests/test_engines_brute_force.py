"""Every engine against the joint distribution multiplied out, on random problems."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlass_ppl import (
    BP,
    Exact,
    Extractor,
    MixingGraph,
    chain,
    compile_program,
    joint,
    mix,
    source,
    star,
)
from mlass_ppl.infer import Engine
from mlass_ppl.testing import Problem, check_engine, random_graph, random_problem

TREE_ENGINES = [Exact(), BP(), BP(dense_limit=0)]
ENGINES = pytest.mark.parametrize("engine", TREE_ENGINES, ids=["exact", "dense", "sparse"])
TYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)], ids=["f64", "f32"]
)


def shapes(
    shape: Callable[[int], Callable[[], object]], most: int
) -> st.SearchStrategy[MixingGraph]:
    return st.integers(2, most).map(lambda n: compile_program(shape(n)))


@TYPES
@ENGINES
@given(problem=random_problem(shapes(chain, 6)))
def test_chains(engine: Engine, dtype: torch.dtype, tolerance: float, problem: Problem) -> None:
    check_engine(engine, problem, dtype=dtype, tolerance=tolerance)


@TYPES
@ENGINES
@given(problem=random_problem(shapes(joint, 6)))
def test_joints(engine: Engine, dtype: torch.dtype, tolerance: float, problem: Problem) -> None:
    check_engine(engine, problem, dtype=dtype, tolerance=tolerance)


@TYPES
@pytest.mark.parametrize("engine", [*TREE_ENGINES, Extractor()], ids=str)
@settings(max_examples=20)
@given(problem=random_problem(shapes(star, 6)))
def test_stars(engine: Engine, dtype: torch.dtype, tolerance: float, problem: Problem) -> None:
    check_engine(engine, problem, dtype=dtype, tolerance=tolerance)


@TYPES
@ENGINES
@settings(max_examples=60)
@given(problem=random_problem(random_graph()))
def test_trees(engine: Engine, dtype: torch.dtype, tolerance: float, problem: Problem) -> None:
    """One to six sources, one to three parents, several and intermediate observations."""
    assert problem.graph.is_tree
    check_engine(engine, problem, dtype=dtype, tolerance=tolerance)


@TYPES
@settings(max_examples=60)
@given(problem=random_problem(random_graph(max_sources=4, tree=False)))
def test_any_graph(dtype: torch.dtype, tolerance: float, problem: Problem) -> None:
    check_engine(Exact(), problem, dtype=dtype, tolerance=tolerance)
    if problem.graph.is_tree:
        check_engine(BP(), problem, dtype=dtype, tolerance=tolerance)


def solo():
    """The other source sounds, but the table is averaged over it: its posterior is its prior."""
    return mix("m", source("a"), hidden=[source("b")])


@pytest.mark.parametrize("engine", [*TREE_ENGINES, Extractor()], ids=str)
@settings(max_examples=20)
@given(problem=random_problem(st.just(compile_program(solo))))
def test_sources_that_no_table_conditions_on(engine: Engine, problem: Problem) -> None:
    check_engine(engine, problem)
