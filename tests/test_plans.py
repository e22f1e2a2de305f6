"""Engines as values, and what their plans refuse before any token is read."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from mlass_ppl import (
    BP,
    Additive,
    Counts,
    EngineError,
    Exact,
    Extractor,
    Factor,
    OptionError,
    PlanError,
    Table,
    TableError,
    chain,
    compile_program,
    joint,
    mix,
    posterior,
    source,
    star,
)
from mlass_ppl.infer.cost import exact_cost

ENGINES = [Exact(), BP(), BP(draw="marginals", dense_limit=0), Extractor(), Exact(memory_limit=5e8)]
EACH = pytest.mark.parametrize("engine", ENGINES, ids=str)


def uniform(*shape):
    return Table.from_array(torch.full(shape, 1 / shape[-1], dtype=torch.float64))


def solo():
    return mix("m", source("a"), hidden=[source("b")])


@EACH
def test_engines_are_values(engine):
    again = eval(repr(engine))
    assert again == engine
    assert hash(again) == hash(engine)
    with pytest.raises(FrozenInstanceError):
        engine.anything = 1


def test_unknown_draws_are_refused():
    with pytest.raises(OptionError, match=r"is 'joint' or 'marginals', got 'both'"):
        BP(draw="both")


def test_the_tables_that_an_engine_needs():
    graph = compile_program(chain(3))
    assert Exact().factors(graph) == BP().factors(graph) == graph.factors
    assert Extractor().factors(graph) == tuple(
        Factor("mixture", (name,), f"mixture|{name}") for name in graph.sources
    )
    alone = compile_program(star(3))
    assert Extractor().factors(alone) == alone.factors


@pytest.mark.parametrize("engine", [Exact(), BP()], ids=str)
def test_tables_must_fit_the_graph(engine):
    graph = compile_program(chain(3))
    good = {"mix_2": uniform(4, 4, 5), "mixture": uniform(5, 4, 6)}
    engine.plan(graph, good)
    with pytest.raises(
        TableError,
        match=r"'chain\(3\)' needs a table for 'mix_2', p\(mix_2 \| source_1, source_2\); "
        r"given are \['mixture'\]",
    ):
        engine.plan(graph, {"mixture": good["mixture"]})
    with pytest.raises(
        TableError, match=r"'mixture' has 2 axes \(5, 6\); expected 3: mix_2, source_3, and last"
    ):
        engine.plan(graph, {**good, "mixture": uniform(5, 6)})
    with pytest.raises(
        TableError, match=r"site 'mix_2' has 5 tokens elsewhere, but .* counted for \(4, 4, 6\)"
    ):
        engine.plan(graph, {**good, "mixture": uniform(4, 4, 6)})


@pytest.mark.parametrize("engine", [Exact(), BP(), Extractor()], ids=str)
def test_tables_must_fit_declared_alphabets(engine):
    def program():
        return mix("m", source("a", alphabet=3), alphabet=4)

    graph = compile_program(program)
    engine.plan(graph, {"m": uniform(3, 4)})
    with pytest.raises(TableError, match="site 'a' has 3 tokens elsewhere"):
        engine.plan(graph, {"m": uniform(5, 4)})
    with pytest.raises(TableError, match="site 'm' has 4 tokens elsewhere"):
        engine.plan(graph, {"m": uniform(3, 6)})


def test_extractors_read_sources_alone():
    def program():
        return mix("m", mix("part", source("a")))

    with pytest.raises(TableError, match=r"needs a table for 'm\|a', p\(m \| a\)"):
        Extractor().plan(compile_program(program), {"part": uniform(3, 3), "m": uniform(3, 3)})
    Extractor().plan(compile_program(program), {"m|a": uniform(3, 3)})

    def both():
        part = mix("part", source("a"))
        return part, mix("m", part)

    with pytest.raises(
        EngineError, match=r"reads tables p\(mixture \| source\); 'm' is given 'part'"
    ):
        Extractor().plan(compile_program(both), {})


# --- memory -----------------------------------------------------------------------------------


def test_exact_refuses_more_states_than_fit_and_names_bp():
    """Smoothed tables leave no joint state out; but of the 60^4 no step needs more than 60^3."""
    graph = compile_program(chain(3))
    table = Table.from_counts(Counts.empty((60, 60, 60)), Additive(1.0))
    tables = dict.fromkeys(graph.mixtures, table)
    with pytest.raises(
        PlanError,
        match=r"Exact\(\) on 'chain\(3\)' needs 2\.2e\+05 joint states \(0\.00864 GB\); the limit "
        r"is 0\.008 GB \(Exact\(memory_limit=\.\.\.\)\)\. They are those of source_1, source_2, "
        r"mix_2\. "
        r"BP\(\) needs 2\.2e\+05 numbers and is exact here: the graph is a tree",
    ):
        Exact(memory_limit=8e6).plan(graph, tables)
    Exact(memory_limit=1e8).plan(graph, tables)
    BP().plan(graph, tables)


def test_exact_refuses_a_joint_that_is_too_large_and_names_the_chain():
    graph = compile_program(joint(3))
    table = Table.from_counts(Counts.empty((40, 40, 40, 40)), Additive(1.0))
    with pytest.raises(PlanError, match=r"needs 6\.4e\+04 joint states .* Count a chain"):
        Exact(memory_limit=1e6).plan(graph, {"mixture": table})


def test_exact_visits_the_counted_cells_alone():
    """The limit is of what the tables allow: of a million joint states, three were counted."""
    graph = compile_program(joint(3))
    counts = Counts.from_tokens(
        [torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]), torch.tensor([7, 8, 9])],
        torch.tensor([0, 0, 1]),
        (100, 100, 100, 100),
    )
    plan = Exact(memory_limit=1e4).plan(graph, {"mixture": Table.from_counts(counts)})
    assert plan.cost.states == 2
    assert exact_cost(graph, plan.sizes).states == 1e6


def ring():
    """Three pairs of three sources, all heard."""
    a, b, c = source("a"), source("b"), source("c")
    return mix("ab", a, b), mix("bc", b, c), mix("ca", c, a)


def test_exact_names_loopy_bp_where_the_graph_has_a_cycle():
    table = Table.from_counts(Counts.empty((30, 30, 30)), Additive(1.0))
    graph = compile_program(ring)
    tables = dict.fromkeys(graph.mixtures, table)
    match = r"needs 2\.7e\+04 joint states .* They are those of .*\. LoopyBP\(\) needs no such list"
    with pytest.raises(PlanError, match=match):
        Exact(memory_limit=1e6).plan(graph, tables)
    Exact(memory_limit=2e6).plan(graph, tables)


def test_a_smoothed_table_whose_child_is_given_is_never_listed_as_a_whole():
    """It has 27,000,000 cells, of which one observation needs 90,000."""
    graph = compile_program(joint(2))
    table = Table.from_counts(Counts.empty((300, 300, 300)), Additive(1.0))
    plan = Exact(memory_limit=5e6).plan(graph, {"mixture": table})
    assert plan.cost.states == 9e4


# --- showing ----------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("program", [star(2), solo])
def test_plans_tell_what_they_are(engine, program):
    """Also where a source's alphabet is known to no table."""
    graph = compile_program(program)
    plan = engine.plan(graph, {factor.name: uniform(3, 3) for factor in graph.factors})
    assert repr(engine) in str(plan)
    assert graph.name in str(plan)


def test_the_plan_of_exact_is_a_table():
    """Order, what each step is over, how many states it visits and how many there could be."""
    graph = compile_program(chain(3))
    first = torch.zeros(4, 4, 4)
    first[..., 0] = 1  # mix_2 is always 0
    tables = {"mix_2": Table.from_array(first), "mixture": uniform(4, 4, 5)}
    table = """\
Exact(memory_limit=4000000000.0) on chain(3): variable elimination, exact
  step  sums out  leaves           states  if all  operations      holds     needs  how
     1  source_1  source_2, mix_2      16      64          16  352 bytes  16 bytes  \
p(mix_2 | source_1, source_2)
     2  source_2  mix_2                 4      16           4  112 bytes   4 bytes  step 1
     3  source_3  mix_2                16      16          16  320 bytes  16 bytes  \
p(mixture | mix_2, source_3)
     4  mix_2     -                     1       4           2   40 bytes   4 bytes  step 2 x step 3
        total                          37     100          38  824 bytes  40 bytes
  states given the most frequent tokens, mixture=0; lists of up to 4 GB are kept
  memory: 0 bytes held, 2.14 kB for one candidate of one mixture; 64 x 64 take 2.1 MB together"""
    assert str(Exact().plan(graph, tables)) == table


def test_messages_are_beliefs_of_each_side():
    """Brute force over what lies behind a message equals the message, up to scale."""
    graph = compile_program(joint(2))
    random = torch.Generator().manual_seed(0)
    array = torch.rand(3, 4, 5, generator=random, dtype=torch.float64)
    array = array / array.sum(-1, keepdim=True)
    priors = {
        "source_1": torch.rand(3, generator=random),
        "source_2": torch.rand(4, generator=random),
    }
    found = posterior(joint(2), {"mixture": array}, priors, {"mixture": 2}).messages()
    wanted = {
        ("mixture", "source_1"): array[..., 2] @ priors["source_2"].double(),
        ("mixture", "source_2"): priors["source_1"].double() @ array[..., 2],
    }
    assert found.keys() == wanted.keys() == {("mixture", name) for name in graph.sources}
    for key, message in found.items():
        torch.testing.assert_close(message[0, 0], wanted[key] / wanted[key].sum())


# --- posterior(): one position without codec or bundle -------------------------------------------


@pytest.mark.parametrize("engine", [None, Exact(), BP()], ids=str)
def test_the_toy_interface_by_hand(engine):
    """Two coins, and whether they show the same."""
    same = torch.tensor([[[0.0, 1], [1, 0]], [[1, 0], [0, 1]]])
    coins = {"source_1": [0.5, 0.5], "source_2": [0.9, 0.1]}
    found = posterior(joint(2), {"mixture": same}, coins, {"mixture": 1}, infer=engine)
    assert float(found.log_evidence.exp()) == pytest.approx(0.5)
    assert found.marginals()["source_1"][0, 0].tolist() == pytest.approx([0.9, 0.1])
    assert {name: int(token) for name, token in found.mode().items()} == {
        "source_1": 0,
        "source_2": 0,
    }


@pytest.mark.parametrize("prior", [[-0.1, 1.1], [float("nan"), 1], [[0.5, 0.5]]])
def test_the_toy_interface_takes_probabilities(prior):
    tables = {"mixture": torch.full((2, 2, 2), 0.5)}
    with pytest.raises(EngineError, match=r"priors\['source_1'\] must be probabilities \[K\] or"):
        posterior(joint(2), tables, {"source_1": prior, "source_2": [1, 0]}, {"mixture": 0})
