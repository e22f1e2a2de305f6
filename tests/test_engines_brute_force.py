"""Every engine against the joint distribution multiplied out, on random problems."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest
import torch
from engines import ENGINES, ON_TREES, TYPES, each
from hypothesis import given, settings
from hypothesis import strategies as st

import mlass_ppl.infer
from mlass_ppl import (
    Feature,
    MixingGraph,
    Soft,
    Token,
    balanced,
    chain,
    compile_program,
    joint,
    mix,
    source,
    star,
)
from mlass_ppl.infer import Engine
from mlass_ppl.testing import Problem, check_engine, random_graph, random_problem

KINDS = st.sampled_from([Token(), Soft(), Feature(), Token(0.5), Feature(2.0)])


def shapes(shape: Callable[..., Any], most: int) -> st.SearchStrategy[MixingGraph]:
    return st.builds(
        lambda n, kind: compile_program(shape(n, evidence=kind)), st.integers(2, most), KINDS
    )


@pytest.mark.filterwarnings("ignore::mlass_ppl.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_keeps_its_word(name: str) -> None:
    """Trees and cycles, one to eight sources, evidence of all kinds, both types: equal to brute
    force where it says that it is exact, and sound elsewhere."""
    check_engine(ENGINES[name], examples=10 if "loopy" in name else 60)


@TYPES
@each(ON_TREES)
@pytest.mark.parametrize("shape", [chain, balanced])
@settings(max_examples=12)
@given(data=st.data())
def test_trees_of_partial_mixtures(
    shape: Callable[..., Any], engine: Engine, dtype: torch.dtype, tolerance: float, data: Any
) -> None:
    problem = data.draw(random_problem(shapes(shape, 8)))
    assert problem.graph.is_tree
    check_engine(engine, problem, dtype=dtype, tolerance=tolerance)


@TYPES
@each(ON_TREES)
@settings(max_examples=10)
@given(problem=random_problem(shapes(joint, 6)))
def test_joints(engine: Engine, dtype: torch.dtype, tolerance: float, problem: Problem) -> None:
    check_engine(engine, problem, dtype=dtype, tolerance=tolerance)


@TYPES
@each([*ON_TREES, "extractor"])
@settings(max_examples=10)
@given(problem=random_problem(shapes(star, 6)))
def test_stars(engine: Engine, dtype: torch.dtype, tolerance: float, problem: Problem) -> None:
    soft = bool(problem.graph.soft)  # then the site stays latent, and extractors do not answer it
    assert engine.is_exact(problem.graph) or (engine == ENGINES["extractor"] and soft)
    check_engine(engine, problem, dtype=dtype, tolerance=tolerance)


@TYPES
@settings(max_examples=40)
@given(problem=random_problem(random_graph(tree=False)))
def test_loops(dtype: torch.dtype, tolerance: float, problem: Problem) -> None:
    """Several mixtures of the same sources, shared sources, latent cycles."""
    check_engine(ENGINES["exact"], problem, dtype=dtype, tolerance=tolerance)


def stereo() -> Any:
    """Left and right hear the same three instruments in other proportions, the right one as a
    feature; a third microphone stands near two of them, and its tokens are uncertain."""
    a, b, c = source("a"), source("b"), source("c")
    left = mix("left", a, b, c, weights=(0.6, 0.3, 0.1))
    right = mix("right", a, b, c, weights=(0.1, 0.3, 0.6), evidence=Feature())
    return left, right, mix("near", a, b, evidence=Soft())


def diamond() -> Any:
    """A latent cycle: two partial mixtures share a source and meet again."""
    a, b, c = source("a"), source("b"), source("c")
    return mix("all", mix("ab", a, b), mix("bc", b, c))


@TYPES
@pytest.mark.parametrize("name", ["exact", "auto"])
@pytest.mark.parametrize("program", [stereo, diamond])
@settings(max_examples=15)
@given(data=st.data())
def test_cycles_are_exact_where_they_can_be_afforded(
    program: Callable[[], Any], name: str, dtype: torch.dtype, tolerance: float, data: Any
) -> None:
    graph = compile_program(program)
    assert not graph.is_tree
    problem = data.draw(random_problem(st.just(graph)))
    assert problem.posterior(ENGINES[name], dtype).exact
    check_engine(ENGINES[name], problem, dtype=dtype, tolerance=tolerance)


LIMITS = {
    "_STEP_BYTES": dict.fromkeys(("cpu", "cuda"), 1 << 11),
    "_KEEP_BYTES": 0,
    "_CHUNK_BYTES": 64,
    "_COLUMNS": 2,
    "_ROWS": 2,
    "_CELLS": 4,
    "_DENSE_ROWS": 1,
    "_WIDE": 2,
    "pays": lambda table: table.background is None,
    "_MANY": 1,
    "_BLOCK_BYTES": 64,
    "_MOST": 2,
}
"""Limits of memory and thresholds of speed, wherever a module of the engines has one."""


@each(["exact", "dense", "sparse"])
def test_large_problems_are_worked_off_in_pieces(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All limits so low that toys are beyond them."""
    lowered = set()
    for module in walk_packages(mlass_ppl.infer.__path__, "mlass_ppl.infer."):
        for name in LIMITS.keys() & vars(import_module(module.name)).keys():
            monkeypatch.setattr(f"{module.name}.{name}", LIMITS[name])
            lowered.add(name)
    monkeypatch.setattr("mlass_ppl.tables.gaussian._CHUNK_BYTES", 64)
    assert lowered == set(LIMITS)
    check_engine(engine, examples=12)


def solo() -> Any:
    """The other source sounds, but the table is averaged over it: its posterior is its prior."""
    return mix("m", source("a"), hidden=[source("b")])


@each([*ON_TREES, "extractor"])
@settings(max_examples=10)
@given(problem=random_problem(st.just(compile_program(solo))))
def test_sources_that_no_table_conditions_on(engine: Engine, problem: Problem) -> None:
    check_engine(engine, problem)
