"""What a plan says that it costs: against counts by hand, and against what a run does take."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import prod

import pytest
import torch

from mlass_ppl import (
    BP,
    Additive,
    Auto,
    Counts,
    Exact,
    Extractor,
    Feature,
    GaussianTable,
    LoopyBP,
    Table,
    Truncated,
    chain,
    compile_program,
    joint,
    star,
)
from mlass_ppl.infer.cost import Cost, bp_cost, exact_cost, loopy_cost
from mlass_ppl.infer.report import memory


def random_table(*shape: int, filled: float = 1.0) -> Table:
    random = torch.Generator().manual_seed(0)
    values = torch.rand(shape, generator=random, dtype=torch.float64)
    values *= torch.rand(shape, generator=random) < filled
    values[..., 0] += 1e-3
    return Table.from_array(values / values.sum(-1, keepdim=True))


def test_memory_adds_up() -> None:
    cost = Cost(10, 20, held=1000, mixture=100, candidate=10, block=1)
    assert cost.bytes() == 1000 + 100 + 10 + 1
    assert cost.bytes(3, 5) == 1000 + 3 * 100 + 15 * 10 + 15
    with pytest.raises(FrozenInstanceError):
        cost.held = 0  # type: ignore[misc]


def test_intermediate_results_are_made_for_some_candidates_at_a_time() -> None:
    wide = Cost(1, 1, block=1e6)
    assert wide.bytes(1, 2) == 2e6
    assert wide.bytes(100, 100) == wide.bytes(10**6, 100) < 1e9
    huge = Cost(1, 1, block=1e12)  # of one candidate there is no part
    assert huge.bytes(5, 5) == 1e12


def test_it_is_written_as_a_line() -> None:
    line = memory(Cost(1, 1, held=2e6, mixture=3e3, candidate=100), mixtures=10, candidates=20)
    assert line == (
        "memory: 2 MB held, 3.1 kB for one candidate of one mixture; 10 x 20 take 2.05 MB together"
    )
    assert str(Cost(400, 4e5)) == "400 operations, 4.0e5 states a token"


def test_a_chain_of_dense_tables_by_hand() -> None:
    graph = compile_program(chain(3))
    tables = {"mix_2": random_table(4, 5, 6), "mixture": random_table(6, 7, 8)}
    cost = BP().plan(graph, tables).cost
    assert (cost.operations, cost.states) == (4 * 5 * 6 + 6 * 7, 4 * 5 * 6)
    assert cost.held == 4 * (4 * 5 * 6 + 6 * 7 * 8)
    assert cost.mixture == 0


def test_seen_cells_cost_what_was_seen() -> None:
    graph = compile_program(joint(2))
    few, every = random_table(40, 40, 40, filled=0.02), random_table(40, 40, 40)
    sparse, dense = (BP().plan(graph, {"mixture": table}).cost for table in (few, every))
    assert sparse.operations == pytest.approx(len(few.keys) / 40)  # of one token of the mixture
    assert dense.operations == 40 * 40
    assert dense.held == 4 * 40**3
    assert sparse.held == len(few.keys) * 4 * 12 < dense.held


def test_likelihoods_are_counted_by_mixture() -> None:
    graph = compile_program(joint(2, evidence=Feature()))
    table = GaussianTable.from_arrays(torch.zeros(9, 8, 2), torch.ones(9, 8, 2))
    for engine in (BP(), Exact(), LoopyBP()):
        cost = engine.plan(graph, {"mixture": table}).cost
        assert cost.mixture >= 3 * 8 * 9 * 8
        assert cost.bytes(2, 1) - cost.bytes(1, 1) >= cost.mixture


@pytest.mark.parametrize(
    "engine", [BP(), BP(dense_limit=0), Exact(), LoopyBP(), Extractor(), Auto()], ids=repr
)
def test_every_plan_tells_and_prints_what_it_takes(engine) -> None:
    graph = compile_program(star(2))
    tables = {factor.name: random_table(6, 5) for factor in engine.factors(graph)}
    plan = engine.plan(graph, tables)
    assert plan.cost.bytes(2, 3) > plan.cost.bytes() > 0
    assert memory(plan.cost) in str(plan)


def test_truncated_lists_are_counted_by_mixture() -> None:
    graph = compile_program(joint(3, evidence=Feature()))
    table = GaussianTable.from_arrays(torch.zeros(6, 6, 6, 2), torch.ones(6, 6, 6, 2))
    short, long = (Truncated(keep).plan(graph, {"mixture": table}).cost for keep in (4, 16))
    assert short.operations == 4 * 4
    assert long.operations == 16 * 6
    assert short.mixture < long.mixture
    assert long.held >= table.nbytes


def test_smoothing_holds_its_background_too() -> None:
    graph = compile_program(joint(2))
    counts = Counts.from_dense(torch.eye(12, dtype=torch.int64)[None].expand(12, -1, -1))
    plain, smooth = (Table.from_counts(counts, kind) for kind in (None, Additive(0.5)))
    held = [
        BP(dense_limit=0).plan(graph, {"mixture": table}).cost.held for table in (plain, smooth)
    ]
    assert held[1] >= held[0] + 8 * 12 * 12


def test_a_source_that_no_table_mentions_counts_as_one_token() -> None:
    def program():
        from mlass_ppl import mix, source

        return mix("m", source("a"), hidden=[source("b")])

    graph = compile_program(program)
    for engine in (BP(), Exact(), LoopyBP(), Extractor()):
        tables = {factor.name: random_table(5, 6) for factor in engine.factors(graph)}
        assert engine.plan(graph, tables).cost.operations > 0


def test_costs_from_alphabets_alone_are_those_of_full_tables() -> None:
    graph = compile_program(chain(3))
    sizes = {"source_1": 4, "source_2": 4, "source_3": 4, "mix_2": 4, "mixture": 4}
    tables = {name: random_table(4, 4, 4) for name in graph.mixtures}
    for engine, told in ((BP(), bp_cost), (Exact(), exact_cost), (LoopyBP(), loopy_cost)):
        cost, wanted = engine.plan(graph, tables).cost, told(graph, sizes)
        assert (cost.operations, cost.states) == (wanted.operations, wanted.states)
    assert bp_cost(graph, sizes).states == prod([4] * 3)
