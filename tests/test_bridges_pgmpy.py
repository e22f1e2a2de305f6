"""pgmpy as it takes mixing graphs, and mixing graphs as they take pgmpy's models."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

from mlass_ppl import (
    EngineError,
    Exact,
    Feature,
    GraphError,
    MlassError,
    Soft,
    Table,
    TableError,
    Token,
    chain,
    compile_program,
    joint,
    mix,
    source,
)
from mlass_ppl.bridges import (
    from_pgmpy,
    from_pgmpy_factors,
    to_pgmpy_factors,
    to_pgmpy_network,
)
from mlass_ppl.errors import PriorError
from mlass_ppl.testing import Problem, brute_force, random_graph, random_problem

pgmpy = pytest.importorskip("pgmpy")

from pgmpy.factors.discrete import DiscreteFactor, TabularCPD  # noqa: E402
from pgmpy.inference import BeliefPropagation, VariableElimination  # noqa: E402
from pgmpy.models import DiscreteBayesianNetwork, FactorGraph  # noqa: E402

GRAPHS = random_graph(max_sources=4, tree=False)
PROBLEMS = random_problem(GRAPHS, min_alphabet=2, max_alphabet=4, max_states=400, max_depth=10)
PLAIN = random_graph(max_sources=4, tree=False, evidence=False)
NETWORKS = random_problem(PLAIN, min_alphabet=2, max_alphabet=4, max_states=400, max_depth=10)


def first_row(problem: Problem):
    """Arguments of a bridge, of the first row, and the truth about it."""
    priors = {name: log[0, 0] for name, log in problem.log_priors.items()}
    evidence = {name: value[0] for name, value in problem.evidence.items()}
    truth = problem.brute_force(0, 0)
    assume(truth.log_evidence > -200)  # pgmpy divides by it
    return (problem.graph, problem.tables, priors, evidence), truth


def query(model, name, **given) -> torch.Tensor:
    """A marginal by elimination."""
    found = VariableElimination(model).query([name], show_progress=False, **given)
    values = torch.as_tensor(found.values)
    return values / values.sum()


@settings(max_examples=25)
@given(problem=PROBLEMS)
def test_elimination_on_the_factors_is_brute_force(problem: Problem) -> None:
    """All kinds of evidence, powers, cycles; marginals and evidence."""
    row, truth = first_row(problem)
    model = to_pgmpy_factors(*row)
    assert set(model.get_variable_nodes()) == set(problem.graph.latent)
    for name in problem.graph.latent:
        found = query(model.to_markov_model(), name)
        assert found == pytest.approx(truth.marginal(name), abs=1e-9)
    log_evidence = math.log(model.get_partition_function()) + model.graph["log_scale"]
    assert log_evidence == pytest.approx(truth.log_evidence, abs=1e-9)


@settings(max_examples=25)
@given(problem=NETWORKS)
def test_elimination_on_the_network_is_brute_force(problem: Problem) -> None:
    """Also where tables lack rows: the state "never" gets no mass under evidence."""
    row, truth = first_row(problem)
    network, seen = to_pgmpy_network(*row)
    for name in problem.graph.latent:
        found = query(network, name, **seen)
        size = truth.marginal(name).numel()
        assert found[:size] == pytest.approx(truth.marginal(name), abs=1e-9)
        assert (found[size:] == 0).all()


@settings(max_examples=25)
@given(problem=PROBLEMS)
def test_factors_come_back_with_the_same_posterior(problem: Problem) -> None:
    row, truth = first_row(problem)
    graph, tables, log_priors, evidence = from_pgmpy_factors(to_pgmpy_factors(*row))
    assert set(graph.sources) == set(problem.graph.latent)
    assert set(evidence.values()) == {1}
    again = brute_force(graph, tables, log_priors, evidence)
    assert again.log_evidence == pytest.approx(truth.log_evidence, abs=1e-9)
    for name in problem.graph.latent:
        assert again.marginal(name) == pytest.approx(truth.marginal(name), abs=1e-9)


def trio():
    rhythm = mix("rhythm", source("drums"), source("bass"))
    return mix("song", rhythm, source("piano"))


def rows(*shape: int) -> torch.Tensor:
    values = torch.rand(shape, dtype=torch.float64)
    return values / values.sum(-1, keepdim=True)


def tables():
    return {"rhythm": Table.from_array(rows(2, 3, 4)), "song": Table.from_array(rows(4, 2, 5))}


def log_priors():
    return {"drums": rows(2).log(), "bass": rows(3).log(), "piano": rows(2).log()}


def test_a_network_comes_back_as_it_was() -> None:
    mine, priors = tables(), log_priors()
    network, seen = to_pgmpy_network(trio, mine, priors)
    assert seen == {}
    graph, again, log = from_pgmpy(network, "song")
    wanted = compile_program(trio)
    assert (graph.sources, graph.mixtures, graph.observed) == (
        wanted.sources, wanted.mixtures, wanted.observed
    )  # fmt: skip
    assert [factor.parents for factor in graph.factors] == [
        factor.parents for factor in wanted.factors
    ]
    for name, table in mine.items():
        assert torch.equal(again[name].dense(), table.dense())
    for name, prior in priors.items():
        assert log[name] == pytest.approx(prior, abs=1e-12)


def test_soft_evidence_is_virtual_evidence() -> None:
    graph = compile_program(trio).with_evidence({"song": Soft()})
    mine, priors, weights = tables(), log_priors(), torch.tensor([0.0, -2.0, 1.0, -9.0, 0.5])
    network, seen = to_pgmpy_network(graph, mine, priors, {"song": weights})
    assert set(seen) == {"virtual_evidence"}
    truth = brute_force(graph, mine, priors, {"song": weights})
    for name in graph.latent:
        found = query(network, name, **seen)
        assert found == pytest.approx(truth.marginal(name), abs=1e-9)


def test_rows_that_were_never_seen_are_a_state_of_their_own() -> None:
    rhythm = rows(2, 3, 4)
    rhythm[1, 2] = 0
    mine = {**tables(), "rhythm": Table.from_array(rhythm)}
    network, seen = to_pgmpy_network(trio, mine, log_priors(), {"song": 3})
    assert network.get_cardinality("rhythm") == 5
    assert network.states["rhythm"] == [0, 1, 2, 3, "never"]
    assert network.states["song"] == [0, 1, 2, 3, 4, "never"]
    assert query(network, "rhythm", **seen)[-1] == 0
    assert query(network, "rhythm")[-1] > 0  # without evidence it is what the table left out


def test_junction_tree_takes_the_factors() -> None:
    mine, priors = tables(), log_priors()
    model = to_pgmpy_factors(trio, mine, priors, {"song": 3})
    truth = brute_force(compile_program(trio), mine, priors, {"song": 3})
    found = BeliefPropagation(model).query(["rhythm"], show_progress=False)
    assert torch.as_tensor(found.values) == pytest.approx(truth.marginal("rhythm"), abs=1e-9)


def test_factors_without_evidence_are_the_joint_distribution() -> None:
    model = to_pgmpy_factors(joint(2), {"mixture": Table.from_array(rows(2, 2, 3))}, {
        "source_1": rows(2).log(), "source_2": rows(2).log()
    })  # fmt: skip
    assert sorted(model.get_variable_nodes()) == ["mixture", "source_1", "source_2"]
    log_z = math.log(model.get_partition_function()) + model.graph["log_scale"]
    assert log_z == pytest.approx(0.0, abs=1e-12)


def test_factors_hundreds_of_nats_apart_do_not_underflow() -> None:
    graph = compile_program(trio).with_evidence({"song": Soft()})
    mine, priors = tables(), log_priors()
    weights = torch.tensor([-2000.0, -2003.0, -2001.0, -2000.5, -2002.0], dtype=torch.float64)
    model = to_pgmpy_factors(graph, mine, priors, {"song": weights})
    truth = brute_force(graph, mine, priors, {"song": weights})
    found = query(model.to_markov_model(), "song")
    assert found == pytest.approx(truth.marginal("song"), abs=1e-9)
    log_evidence = math.log(model.get_partition_function()) + model.graph["log_scale"]
    assert log_evidence == pytest.approx(truth.log_evidence, abs=1e-9)


def test_a_pgmpy_model_is_separated_by_our_engines() -> None:
    """Sprinkler: rain and sprinkler make the grass wet (Pearl, 1988)."""
    model = DiscreteBayesianNetwork([("rain", "sprinkler"), ("sprinkler", "wet"), ("rain", "wet")])
    model.add_cpds(
        TabularCPD("rain", 2, [[0.8], [0.2]]),
        TabularCPD("sprinkler", 2, [[0.6, 0.99], [0.4, 0.01]], ["rain"], [2]),
        TabularCPD(
            "wet", 2, [[1.0, 0.1, 0.2, 0.01], [0.0, 0.9, 0.8, 0.99]], ["rain", "sprinkler"], [2, 2]
        ),
    )
    graph, mine, priors = from_pgmpy(model, ["wet"])
    assert graph.site("wet").parents == ("rain", "sprinkler")
    answer = (
        Exact()
        .plan(graph, mine)
        .posterior(
            {name: log[None, None] for name, log in priors.items()}, {"wet": torch.tensor([1])}
        )
    )
    for name in ("rain", "sprinkler"):
        wanted = query(model, name, evidence={"wet": 1})
        assert answer.marginals()[name][0, 0] == pytest.approx(wanted, abs=1e-9)
    assert float(answer.marginals()["rain"][0, 0, 1]) == pytest.approx(0.3577, abs=1e-4)


def test_a_factor_graph_without_ties_and_with_two_factors_on_one_scope() -> None:
    model = FactorGraph()
    model.add_nodes_from(["a", "b", "c"])
    factors = [
        DiscreteFactor(["a", "b"], [2, 3], np.arange(6.0)),
        DiscreteFactor(["a", "b"], [2, 3], np.arange(6.0, 0.0, -1.0)),
        DiscreteFactor(["a"], [2], [3.0, 1.0]),
        DiscreteFactor(["c"], [2], [1.0, 4.0]),
    ]
    for factor in factors:
        model.add_factors(factor)
        model.add_node(factor)
        model.add_edges_from((name, factor) for name in factor.variables)
    graph, mine, priors, evidence = from_pgmpy_factors(model)
    assert graph.mixtures == ("f(a, b)", "f(a, b) #2", "f(c)")
    truth = brute_force(graph, mine, priors, evidence)
    assert truth.marginal("c") == pytest.approx([0.2, 0.8])
    joint_ab = np.arange(6.0) * np.arange(6.0, 0.0, -1.0) * np.repeat([3.0, 1.0], 3)
    assert truth.log_evidence == pytest.approx(math.log(joint_ab.sum() * 5))
    found = truth.project("a", "b").joint.flatten()
    assert found == pytest.approx(torch.as_tensor(joint_ab / joint_ab.sum()), abs=1e-12)


FEATURES = compile_program(chain(2, evidence=Feature()))
POWERS = compile_program(chain(2, evidence=Token(0.5)))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (FEATURES, r"'mixture' is observed with a feature, .* Use to_pgmpy_factors"),
        (POWERS, r"'mixture' is observed with a power \(0.5\), .* Use to_pgmpy_factors"),
    ],
)
def test_what_no_network_can_hold_is_refused(graph, message) -> None:
    from mlass_ppl.tables.gaussian import GaussianTable

    arrays = torch.zeros(2, 2, 3), torch.ones(2, 2, 3)
    table = (
        GaussianTable.from_arrays(*arrays) if graph.features else Table.from_array(rows(2, 2, 3))
    )
    priors = {name: rows(2).log() for name in graph.sources}
    with pytest.raises(GraphError, match=message):
        to_pgmpy_network(graph, {"mixture": table}, priors)


def test_a_prior_of_nothing_is_refused() -> None:
    priors = {**log_priors(), "bass": torch.full((3,), float("-inf"))}
    with pytest.raises(PriorError, match=r"log_priors\['bass'\] gives no token any probability"):
        to_pgmpy_network(trio, tables(), priors)


def test_a_batch_is_refused() -> None:
    priors = {name: log[None, None] for name, log in log_priors().items()}
    with pytest.raises(EngineError, match=r"got torch\.float64 \[1, 1, 2\]\. .* log_prior\[0, 0\]"):
        to_pgmpy_factors(trio, tables(), priors)
    with pytest.raises(EngineError, match=r"evidence\['song'\] must be one integer token"):
        to_pgmpy_factors(trio, tables(), log_priors(), {"song": torch.tensor([1, 2])})


def sprinkler() -> DiscreteBayesianNetwork:
    model = DiscreteBayesianNetwork([("a", "m"), ("b", "m"), ("b", "x")])
    pair = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]
    model.add_cpds(
        TabularCPD("a", 2, [[0.8], [0.2]]),
        TabularCPD("b", 2, [[0.5], [0.5]]),
        TabularCPD("m", 2, pair, ["a", "b"], [2, 2]),
        TabularCPD("x", 2, [[0.1, 0.2], [0.9, 0.8]], ["b"], [2]),
    )
    return model


def test_models_that_are_no_mixing_graphs_are_refused() -> None:
    with pytest.raises(GraphError, match=r"declares 'x', which the observed 'm' does not depend"):
        from_pgmpy(sprinkler(), "m")
    with pytest.raises(GraphError, match="returns the source 'a', but sources"):
        from_pgmpy(sprinkler(), ["m", "x", "a"])
    with pytest.raises(GraphError, match="returns 'y', which it does not declare"):
        from_pgmpy(sprinkler(), ["m", "x", "y"])
    with pytest.raises(GraphError, match=r"expected pgmpy's Disc.* got FactorGraph.* from_pgmpy_f"):
        from_pgmpy(FactorGraph(), "m")
    with pytest.raises(GraphError, match=r"expected pgmpy's FactorGraph, got Disc.* from_pgmpy\(m"):
        from_pgmpy_factors(sprinkler())
    model = sprinkler()
    model.remove_cpds("m")
    with pytest.raises(TableError, match=r"node 'm' has no CPD; add one with model\.add_cpds"):
        from_pgmpy(model, ["m", "x"])
    model = sprinkler()
    model.get_cpds("m").values[0] *= 0.9
    with pytest.raises(TableError, match=r"CPD of 'm' is no .* model\.get_cpds\('m'\)\.normalize"):
        from_pgmpy(model, ["m", "x"])
    alone = DiscreteBayesianNetwork()
    alone.add_node("a")
    alone.add_cpds(TabularCPD("a", 2, [[0.8], [0.2]]))
    with pytest.raises(GraphError, match=r"no site of 'network' depends on another"):
        from_pgmpy(alone, "a")
    numbers = DiscreteBayesianNetwork([(1, 2)])
    with pytest.raises(GraphError, match=r"sites are named by strings, got \[1, 2\]"):
        from_pgmpy(numbers, "2")


def test_without_pgmpy_the_message_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pgmpy", None)
    monkeypatch.setitem(sys.modules, "pgmpy.models", None)
    with pytest.raises(
        MlassError, match=r"this bridge needs pgmpy .* pip install 'mlass-ppl\[pgmpy"
    ):
        to_pgmpy_network(trio, tables(), log_priors())
