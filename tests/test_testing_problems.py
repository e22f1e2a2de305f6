"""What `random_graph` and `random_problem` draw is as varied, and as small, as they say."""

from __future__ import annotations

import sys
from collections import Counter
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlass_ppl import (
    Exact,
    Extractor,
    Feature,
    GaussianTable,
    MixingGraph,
    MlassError,
    Soft,
    Token,
    chain,
    compile_program,
)
from mlass_ppl.graph import Mix
from mlass_ppl.tables import FeatureTable, LinearGaussianTable
from mlass_ppl.testing import Problem, check_engine, random_graph, random_problem

NEVER = float("-inf")


def drawn(strategy, examples: int = 150) -> list:
    found = []

    @settings(max_examples=examples)
    @given(strategy)
    def collect(value) -> None:
        found.append(value)

    collect()
    return found


def kinds(graphs: list[MixingGraph]) -> set:
    return {graph.evidence(name) for graph in graphs for name in graph.observed}


def test_trees_are_trees_of_every_size_and_kind() -> None:
    graphs = drawn(random_graph())
    assert all(graph.is_tree for graph in graphs)
    assert {len(graph.sources) for graph in graphs} == set(range(1, 9))
    sites = [site for graph in graphs for site in graph.sites if isinstance(site, Mix)]
    assert {len(site.parents) for site in sites} == {1, 2, 3}
    assert any(site.hidden for site in sites)
    plain = {Token(), Soft(), Token(0.5), Token(2.0), Feature(), Feature(0.3)}
    assert kinds(graphs) == plain | {Feature(linear=True), Feature(0.3, linear=True)}
    assert {len(graph.observed) for graph in graphs} >= {1, 2, 3}
    partly = [graph for graph in graphs if set(graph.observed) < set(graph.mixtures)]
    assert len(partly) > 20  # latent partial mixtures
    inside = [
        name
        for graph in graphs
        for name in graph.known
        if any(isinstance(site, Mix) and name in site.parents for site in graph.sites)
    ]
    assert len(inside) > 5  # observed partial mixtures


def test_without_trees_most_have_cycles() -> None:
    graphs = drawn(random_graph(tree=False))
    assert sum(not graph.is_tree for graph in graphs) > len(graphs) / 3
    stereo = [
        graph
        for graph in graphs
        if max(Counter(site.parents for site in graph.sites if isinstance(site, Mix)).values()) > 1
    ]
    assert len(stereo) > 20


def test_evidence_can_be_plain_and_sources_few() -> None:
    graphs = drawn(random_graph(max_sources=3, tree=False, evidence=False), 60)
    assert kinds(graphs) == {Token()}
    assert max(len(graph.sources) for graph in graphs) == 3


def test_problems_are_small_mixed_and_mostly_possible() -> None:
    problems: list[Problem] = drawn(random_problem(random_graph(tree=False)))
    possible, tables = [], Counter()
    for problem in problems:
        assert prod(problem.sizes[name] for name in problem.graph.latent) <= 2**12
        for name in problem.graph.observed:
            assert len(problem.evidence[name]) == problem.shape[0]
        for table in problem.tables.values():
            if isinstance(table, GaussianTable):
                tables["gaussian", bool(table.possible.all())] += 1
            elif isinstance(table, LinearGaussianTable):
                tables["linear", table.diagonal] += 1
            else:
                tables["exact" if table.background is None else "smooth"] += 1
        truth = problem.brute_force(0, 0)
        possible.append(truth.log_evidence > NEVER)
        Exact().plan(problem.graph, problem.tables)  # they fit, and no token is unseen:
        problem.posterior(Exact())
    assert 0.5 < sum(possible) / len(possible) < 0.95
    assert all(tables[key] > 20 for key in ("exact", "smooth"))
    assert all(tables["gaussian", whole] > 10 for whole in (False, True))
    assert all(tables["linear", diagonal] > 5 for diagonal in (False, True))
    sizes = {size for problem in problems for size in problem.sizes.values()}
    assert sizes == {1, 2, 3, 4, 5, 6}
    priors = torch.cat([log.flatten() for p in problems for log in p.log_priors.values()])
    assert (priors == NEVER).any()
    assert priors[priors > NEVER].min() < -400


def test_alphabets_have_bounds() -> None:
    graphs = st.just(compile_program(chain(3)))
    for problem in drawn(random_problem(graphs, min_alphabet=2, max_alphabet=3), 20):
        assert {2, 3} >= set(problem.sizes.values())


def test_an_engine_gets_the_tables_that_it_asks_for() -> None:
    for problem in drawn(random_problem(random_graph(max_sources=3), engine=Extractor()), 30):
        for factor in Extractor().factors(problem.graph):
            table = problem.tables[factor.name]
            assert isinstance(table, FeatureTable) == factor.feature
            assert isinstance(table, LinearGaussianTable) == factor.linear


def test_rows_can_be_selected() -> None:
    (problem,) = drawn(random_problem(st.just(compile_program(chain(2, evidence=Soft())))), 60)[-1:]
    m, c = problem.shape
    other = problem.select([m - 1, m - 1], [c - 1])
    assert other.shape == (2, 1)
    assert other.rows == [(0, 0), (1, 0)]
    assert other.brute_force(1, 0).log_joint.equal(problem.brute_force(m - 1, c - 1).log_joint)
    text = problem.describe(0, 0)
    assert "log p(source_1) = [" in text
    assert "Soft(temperature=1.0)" in text
    assert repr(problem).startswith(f"<Problem of {m} x {c} rows on MixingGraph")


def test_without_hypothesis_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    for ask in (random_graph, lambda: random_problem(None), lambda: check_engine(Exact())):
        with pytest.raises(MlassError, match=r"drawn by hypothesis .*pip install hypothesis"):
            ask()
