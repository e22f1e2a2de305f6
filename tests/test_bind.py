"""A program bound to tables and priors: a Pyro model that simulates, scores and renders."""

from __future__ import annotations

import re

import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

from mlass_ppl import (
    Additive,
    Counts,
    GraphError,
    Table,
    TableError,
    bind,
    compile_program,
    mix,
    source,
    star,
)


def trio():
    rhythm = mix("rhythm", source("drums"), source("bass"))
    return mix("song", rhythm, source("piano"))


def tables():
    """Exact support: bass 1 never meets drums 0."""
    rhythm = torch.zeros(3, 2, 4)
    rhythm[0, 0, 0] = rhythm[1, 0, 1] = 1
    rhythm[1, 1, 2] = rhythm[2, 0, 2] = 1
    rhythm[2, 1] = torch.tensor([0, 0, 0.25, 0.75])
    song = torch.rand(4, 2, 5, generator=torch.Generator().manual_seed(1))
    return {
        "rhythm": Table.from_array(rhythm),
        "song": Table.from_array(song / song.sum(-1, keepdim=True)),
    }


def log_priors(drums=(0.0, 0.4, 0.6)):
    values = {"drums": drums, "bass": (0.3, 0.7), "piano": (0.5, 0.5)}
    return {name: torch.tensor(value).log() for name, value in values.items()}


@pytest.mark.parametrize("program", [trio, compile_program(trio)], ids=["program", "graph"])
def test_simulated_mixtures_follow_the_tables(program):
    model, draws = bind(program, tables(), log_priors()), 1500
    seen = torch.zeros(3, 2, 4, 2, 5)
    for _ in range(draws):
        trace = poutine.trace(model).get_trace()
        names = ("drums", "bass", "rhythm", "piano", "song")
        seen[tuple(int(trace.nodes[name]["value"]) for name in names)] += 1
        assert trace.log_prob_sum() > float("-inf")
    p = {name: log.exp() for name, log in log_priors().items()}
    t = {name: table.dense(torch.float32) for name, table in tables().items()}
    wanted = torch.einsum(
        "d,b,dbr,p,rps->dbrps", p["drums"], p["bass"], t["rhythm"], p["piano"], t["song"]
    )
    assert (seen[wanted == 0] == 0).all()
    cells = wanted > 0
    found = stats.chisquare(seen[cells].double(), wanted[cells].double() * draws, sum_check=False)
    assert found.pvalue > 1e-3


def test_a_run_returns_the_observed_values():
    value = bind(trio, tables(), log_priors())()
    assert 0 <= int(value) < 5
    graph = compile_program(star(2))
    alone = Table.from_array(torch.eye(3))
    some = {"source_1": torch.zeros(3), "source_2": torch.zeros(3)}
    values = bind(graph, {"mixture_1": alone, "mixture_2": alone}, some)()
    assert len(values) == 2


def test_evidence_is_observed_and_scored():
    trace = poutine.trace(bind(trio, tables(), log_priors(), {"song": 3})).get_trace()
    assert trace.nodes["song"]["is_observed"]
    assert int(trace.nodes["song"]["value"]) == 3
    values = [int(trace.nodes[name]["value"]) for name in ("rhythm", "piano")]
    wanted = tables()["song"].dense()[*values, 3].log()
    assert float(trace.nodes["song"]["fn"].log_prob(torch.tensor(3))) == pytest.approx(
        float(wanted)
    )


def test_pyro_condition_works_as_well():
    model = pyro.condition(bind(trio, tables(), log_priors()), {"song": torch.tensor(2)})
    assert int(model()) == 2


def test_parents_that_were_never_seen_cannot_be_simulated():
    model = bind(trio, tables(), log_priors(drums=(1.0, 0.0, 0.0)))
    with pytest.raises(TableError, match=r"'rhythm' cannot be simulated: .* Additive\(alpha\)"):
        [model() for _ in range(50)]
    smooth = Table.from_counts(Counts.from_dense(tables()["rhythm"].dense() * 4), Additive(0.1))
    model = bind(trio, {**tables(), "rhythm": smooth}, log_priors(drums=(1.0, 0.0, 0.0)))
    assert len([model() for _ in range(50)]) == 50


def test_never_seen_parents_have_probability_zero_and_never_nan():
    model = bind(trio, tables(), log_priors())
    values = {"drums": 0, "bass": 1, "rhythm": 0, "piano": 0, "song": 0}
    fixed = pyro.condition(model, {name: torch.tensor(value) for name, value in values.items()})
    trace = poutine.trace(fixed).get_trace()
    assert trace.log_prob_sum() == float("-inf")


def test_bind_says_what_is_missing():
    priors, given = log_priors(), tables()
    with pytest.raises(GraphError, match=re.escape("bind needs log_priors['bass']")):
        bind(trio, given, {name: priors[name] for name in ("drums", "piano")})
    with pytest.raises(GraphError, match=re.escape("bind needs tables['rhythm']")):
        bind(trio, {"song": given["song"]}, priors)
    with pytest.raises(GraphError, match="has no site 'sing'; it has"):
        bind(trio, given, priors, {"sing": 1})


def test_types_follow_the_priors():
    priors = {name: log.double() for name, log in log_priors().items()}
    trace = poutine.trace(bind(trio, tables(), priors, {"song": 1})).get_trace()
    assert trace.log_prob_sum().dtype == torch.float64


DRUMS = pytest.mark.parametrize("drums", [(0.0, 0.4, 0.6), (1.0, 0.0, 0.0)], ids=["seen", "unseen"])


@DRUMS
def test_pyro_sees_the_dependencies(drums):
    """Also where the priors lead to parents that the table never saw: that needs no values."""
    relations = pyro.infer.inspect.get_model_relations(bind(trio, tables(), log_priors(drums)))
    assert relations["sample_sample"]["rhythm"] == ["drums", "bass"]
    assert relations["sample_sample"]["song"] == ["rhythm", "piano"]


@DRUMS
def test_pyro_renders_the_program(drums):
    pytest.importorskip("graphviz")
    model = bind(trio, tables(), log_priors(drums), {"song": 1})
    drawn = pyro.render_model(model, render_distributions=True)
    for edge in ("drums -> rhythm", "bass -> rhythm", "rhythm -> song", "piano -> song"):
        assert edge in drawn.source
    assert "Conditional" in drawn.source
