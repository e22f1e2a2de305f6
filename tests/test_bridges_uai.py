"""UAI files: written, read by others, read back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings

from mlass_ppl import (
    DataError,
    Feature,
    GraphError,
    Soft,
    Table,
    TableError,
    Token,
    compile_program,
    joint,
    mix,
    source,
)
from mlass_ppl.bridges import read_uai, write_uai
from mlass_ppl.tables.gaussian import GaussianTable
from mlass_ppl.testing import Problem, brute_force, random_graph, random_problem

GRAPHS = random_graph(max_sources=4, tree=False)
PROBLEMS = random_problem(GRAPHS, max_alphabet=4, max_states=400, max_depth=10)


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


NAMES = ["drums", "bass", "rhythm", "piano", "song"]


@settings(max_examples=40)
@given(problem=PROBLEMS)
def test_files_keep_the_posterior(problem: Problem, tmp_path_factory) -> None:
    """All kinds of evidence and powers; also missing rows, and priors that do not sum to 1."""
    priors = {name: log[0, 0] for name, log in problem.log_priors.items()}
    evidence = {name: value[0] for name, value in problem.evidence.items()}
    truth = problem.brute_force(0, 0)
    assume(truth.log_evidence > -1000)
    path = tmp_path_factory.mktemp("uai") / "model.uai"
    write_uai(path, problem.graph, problem.tables, priors, evidence)
    sites = [site.name for site in problem.graph.sites]
    names = [name for name in sites if name not in problem.graph.features]
    graph, again, log, given_ = read_uai(path, names=names)
    found = brute_force(graph, again, log, given_)
    assert found.log_evidence == pytest.approx(truth.log_evidence, abs=1e-9)
    for name in problem.graph.latent:
        assert found.marginal(name) == pytest.approx(truth.marginal(name), abs=1e-9)


def test_a_network_is_written_as_it_is_and_read_back(tmp_path) -> None:
    mine, priors = tables(), log_priors()
    path, observed = write_uai(tmp_path / "trio.uai", trio, mine, priors, {"song": 3})
    lines = path.read_text().splitlines()
    assert lines[:5] == ["BAYES", "5", "2 3 4 2 5", "5", "1 0"]
    assert lines[5:9] == ["1 1", "1 3", "3 0 1 2", "3 2 3 4"]
    assert observed.name == "trio.uai.evid"
    assert observed.read_text() == "1 4 3\n"
    graph, again, log, evidence = read_uai(path, names=NAMES)
    assert (graph.name, graph.sources, graph.observed) == (
        "trio", ("drums", "bass", "piano"), ("song",)
    )  # fmt: skip
    assert evidence == {"song": 3}
    for name in mine:
        assert torch.equal(again[name].dense(), mine[name].dense())  # all digits
    for name in priors:
        assert log[name] == pytest.approx(priors[name], abs=1e-15)


def test_without_evidence_the_ends_are_observed(tmp_path) -> None:
    path, observed = write_uai(tmp_path / "trio.uai", trio, tables(), log_priors())
    assert observed.read_text() == "0\n"  # also where an older file named some
    graph, _, _, evidence = read_uai(path)
    assert (graph.observed, evidence) == (("x4",), {})
    assert read_uai(path, observed=["x4", "x2"])[0].observed == ("x4", "x2")


def test_what_is_no_network_is_markov(tmp_path) -> None:
    graph = compile_program(trio)
    cases = {
        "soft": (graph.with_evidence({"song": Soft()}), {"song": torch.zeros(5)}),
        "power": (graph.with_evidence({"song": Token(0.5)}), {"song": 3}),
    }
    for name, (program, evidence) in cases.items():
        path, _ = write_uai(tmp_path / name, program, tables(), log_priors(), evidence)
        assert path.read_text().startswith("MARKOV\n5\n2 3 4 2 5\n"), name
    holes = rows(2, 3, 4)
    holes[0, 0] = 0
    mine = {**tables(), "rhythm": Table.from_array(holes)}
    path, _ = write_uai(tmp_path / "holes", trio, mine, log_priors(), {"song": 3})
    assert path.read_text().startswith("MARKOV")


def test_a_feature_has_no_variable(tmp_path) -> None:
    graph = compile_program(joint(2, evidence=Feature()))
    table = GaussianTable.from_arrays(torch.zeros(2, 3, 2), torch.ones(2, 3, 2))
    priors = {"source_1": rows(2).log(), "source_2": rows(3).log()}
    feature = {"mixture": torch.zeros(2, dtype=torch.float64)}
    path, _ = write_uai(tmp_path / "x.uai", graph, {"mixture": table}, priors, feature)
    assert path.read_text().startswith("MARKOV\n2\n2 3\n3\n1 0\n1 1\n2 0 1\n")


def test_pgmpy_reads_the_file(tmp_path) -> None:
    readwrite = pytest.importorskip("pgmpy.readwrite")
    inference = pytest.importorskip("pgmpy.inference")
    graph = compile_program(joint(2, evidence=Soft()))
    mine = {"mixture": Table.from_array(rows(2, 2, 3))}
    priors = {name: rows(2).log() for name in graph.sources}
    weights = torch.tensor([0.0, -20.0, 1.0], dtype=torch.float64)
    path, _ = write_uai(tmp_path / "duo.uai", graph, mine, priors, {"mixture": weights})
    elimination = inference.VariableElimination(readwrite.UAIReader(str(path)).get_model())
    truth = brute_force(graph, mine, priors, {"mixture": weights})
    for place, name in enumerate(["source_1", "source_2", "mixture"]):
        values = elimination.query([f"var_{place}"], show_progress=False).values
        assert values.sum() == pytest.approx(math.exp(truth.log_evidence), rel=1e-9)
        wanted = truth.marginal(name)
        assert torch.as_tensor(values / values.sum()) == pytest.approx(wanted, abs=1e-9)


def test_evidence_on_a_root_makes_a_network_a_product_of_factors(tmp_path) -> None:
    """As in the competitions' files, where anything may be observed and much leads nowhere."""
    path, observed = write_uai(tmp_path / "trio.uai", trio, tables(), log_priors())
    observed.write_text("2 0 1 2 3\n")  # drums = 1, rhythm = 3; piano and song lead nowhere
    graph, again, log, evidence = read_uai(path, names=NAMES)
    assert graph.sources == tuple(NAMES)
    assert graph.mixtures == ("f(drums, bass, rhythm)", "f(rhythm, piano, song)")
    found = brute_force(graph, again, log, evidence)
    mine = read_uai(path, names=NAMES)
    assert found.marginal("drums").tolist() == [0.0, 1.0]
    assert found.marginal("rhythm").tolist() == [0.0, 0.0, 0.0, 1.0]
    assert mine[0] == graph


def test_large_graphs_are_refused_before_anything_is_made_dense(tmp_path) -> None:
    with pytest.raises(TableError, match=r"'trio' has 71 numbers, about 1\.42e-06 GB .*limit=50"):
        write_uai(tmp_path / "x.uai", trio, tables(), log_priors(), limit=50)
    assert not (tmp_path / "x.uai").exists()


def test_likelihoods_beyond_the_range_of_numbers_are_refused(tmp_path) -> None:
    graph = compile_program(trio).with_evidence({"song": Soft()})
    weights = {"song": torch.full((5,), -1e5)}
    with pytest.raises(
        TableError, match=r"likelihood of about e\^-1e\+05, .* Shift its log weights"
    ):
        write_uai(tmp_path / "x.uai", graph, tables(), log_priors(), weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends where BAYES or MARKOV was expected"),
        ("LIMID 1", "starts with 'LIMID'; expected BAYES or MARKOV"),
        ("MARKOV two", "has 'two'; expected number of variables, a whole number of at least 1"),
        ("MARKOV 1 2 1 1 4", r"has '4'; expected a variable, a whole number in \[0, 1\)"),
        ("MARKOV 1 2 1 1 0 3 1 1 1", r"lists 3 values for a function of shape \[2\]"),
        ("MARKOV 1 2 1 1 0 2 1 much", "has 'much'; expected a number"),
        ("MARKOV 1 2 1 1 0 2 1 1 1", "goes on with '1' where its end was expected"),
        ("BAYES 2 2 2 1 1 0 2 .5 .5", "BAYES, but has not one function for each variable"),
        ("BAYES 2 1 1 2 2 0 1 2 1 0 1 1 1 1", "BAYES, but its functions have a cycle"),
    ],
)
def test_malformed_files_are_refused(text, message, tmp_path) -> None:
    path = tmp_path / "x.uai"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_uai(path)


def test_files_that_are_not_there_or_do_not_fit(tmp_path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*no\.uai"):
        read_uai(tmp_path / "no.uai")
    path, observed = write_uai(tmp_path / "trio.uai", trio, tables(), log_priors())
    with pytest.raises(DataError, match="has 5 variables; names= gives 1"):
        read_uai(path, names=["a"])
    observed.write_text("1 4 7")
    with pytest.raises(DataError, match=r"evid has '7'; expected its value, .* in \[0, 5\)"):
        read_uai(path)
    observed.write_text("0")
    with pytest.raises(
        GraphError, match="declares 'piano' and 'song', which the observed 'rhythm'"
    ):
        read_uai(path, names=NAMES, observed=["rhythm"])
