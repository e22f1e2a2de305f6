"""The engine that picks an engine: what it picks, what it says, and that it does as it says."""

from __future__ import annotations

import pytest
import torch

from mlass_ppl import (
    BP,
    Auto,
    Exact,
    LoopyBP,
    OptionError,
    Table,
    TableError,
    chain,
    compile_program,
    joint,
    mix,
    source,
)
from mlass_ppl.infer import Choice

PROGRAMS = [chain(4), joint(3)]


def stereo(alphabet: int | None = None):
    def program():
        a, b = source("a", alphabet=alphabet), source("b", alphabet=alphabet)
        return mix("left", a, b, alphabet=alphabet), mix("right", a, b, alphabet=alphabet)

    return compile_program(program)


def tables(graph, size: int = 4):
    random = torch.Generator().manual_seed(0)
    out = {}
    for factor in graph.factors:
        values = torch.rand([size] * len(factor.scope), generator=random, dtype=torch.float64)
        out[factor.name] = Table.from_array(values.softmax(-1))
    return out


def ask(engine, graph, size: int = 4):
    plan = engine.plan(graph, tables(graph, size))
    priors = {name: torch.zeros(1, 2, size, dtype=torch.float64) for name in graph.sources}
    return plan, plan.posterior(priors, {name: torch.tensor([1]) for name in graph.observed})


def one_sentence(reason: str) -> bool:
    return reason.endswith(".") and ". " not in reason and "\n" not in reason


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_trees_are_passed_messages(program) -> None:
    graph = compile_program(program)
    choice = Auto().select(graph)
    reason = f"BP(), since '{graph.name}' is a tree, on which one pass is exact."
    assert choice == Choice(BP(), reason)
    assert one_sentence(choice.reason)
    assert Auto().is_exact(graph)
    _, posterior = ask(Auto(), graph)
    assert posterior.exact
    assert posterior.plan.engine == BP()


def test_a_cycle_is_summed_out_where_that_can_be_afforded() -> None:
    graph = stereo()
    choice = Auto(memory_limit=1e9).select(graph, tables(graph))
    assert choice.engine == Exact(memory_limit=1e9)
    assert choice.reason.startswith("Exact(), since 'program' has the cycle a - b - a, and takes")
    assert one_sentence(choice.reason)
    _, posterior = ask(Auto(), graph)
    assert posterior.exact


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (Auto(memory_limit=100), "joint states"),
        (Auto(operations_limit=5), "operations"),
    ],
    ids=["memory", "operations"],
)
def test_else_it_is_approximated(engine: Auto, why: str) -> None:
    graph = stereo()
    choice = engine.select(graph, tables(graph))
    assert choice.engine == LoopyBP()
    assert choice.reason.startswith("LoopyBP(), since 'program' has the cycle a - b - a, and Exact")
    assert why in choice.reason
    assert one_sentence(choice.reason)
    assert not engine.is_exact(graph)
    _plan, posterior = ask(engine, graph)
    assert not posterior.exact
    assert posterior.plan.engine == LoopyBP()


@pytest.mark.parametrize(
    ("alphabet", "wanted"), [(16, Exact), (256, Exact), (40_000, LoopyBP)], ids=str
)
def test_without_tables_it_goes_by_the_declared_alphabets(alphabet: int, wanted: type) -> None:
    assert type(Auto().select(stereo(alphabet)).engine) is wanted


def test_it_says_how_much_memory_would_be_too_much() -> None:
    choice = Auto(memory_limit=1e5).select(stereo(40))
    assert choice.engine == LoopyBP()
    assert "and Exact() would need 1" in choice.reason
    assert choice.reason.endswith(" kB, more than is allowed.")
    assert isinstance(Auto(memory_limit=1e6).select(stereo(40)).engine, Exact)


def test_without_alphabets_it_takes_them_as_256() -> None:
    assert Auto().select(stereo()).reason == Auto().select(stereo(256)).reason


def test_the_plan_does_and_prints_what_was_picked() -> None:
    for engine in (Auto(), Auto(operations_limit=5)):
        graph = stereo()
        plan, posterior = ask(engine, graph)
        assert plan.choice == engine.select(graph, tables(graph))
        assert plan.engine == engine
        assert str(plan).splitlines()[0] == plan.choice.reason == str(plan.choice)
        assert str(plan).splitlines()[1:] == str(plan.picked).splitlines()
        _, wanted = ask(plan.choice.engine, graph)
        for name, marginal in wanted.marginals().items():
            assert torch.equal(posterior.marginals()[name], marginal)
        assert plan.cost == plan.picked.cost
        assert plan.graph is graph
        assert plan.sizes["a"] == 4


def test_it_needs_the_tables_of_the_graph() -> None:
    graph = stereo()
    assert Auto().factors(graph) == graph.factors
    with pytest.raises(TableError, match="right"):
        Auto().plan(graph, {"left": tables(graph)["left"]})


def test_it_prints_itself() -> None:
    engine = Auto(memory_limit=1e6)
    assert eval(repr(engine)) == engine
    for word in ("BP()", "Exact()", "LoopyBP()", "0.001 GB"):
        assert word in str(engine)


@pytest.mark.parametrize("options", [{"memory_limit": 0}, {"operations_limit": float("nan")}])
def test_options_are_checked(options: dict) -> None:
    with pytest.raises(OptionError, match="must be positive"):
        Auto(**options)
