"""A program bound to tables and priors: a Pyro model that simulates, scores and renders."""

from __future__ import annotations

import re
from itertools import product

import pyro
import pytest
import torch
from hypothesis import assume, given, settings
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate, infer_discrete
from scipy import stats

from mlass_ppl import (
    Additive,
    Counts,
    EngineError,
    Feature,
    GraphError,
    Soft,
    Table,
    TableError,
    Token,
    bind,
    compile_program,
    mix,
    source,
    star,
)
from mlass_ppl.tables.gaussian import GaussianTable
from mlass_ppl.testing import Problem, brute_force, random_graph, random_problem


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
    model, draws = bind(program, tables(), log_priors()), 20_000
    with pyro.plate("draws", draws):
        trace = poutine.trace(model).get_trace()
    names = ("drums", "bass", "rhythm", "piano", "song")
    seen = torch.zeros(3, 2, 4, 2, 5)
    index = tuple(trace.nodes[name]["value"] for name in names)
    seen.index_put_(index, torch.ones(draws), accumulate=True)
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


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"log_priors": {"drums": 0}}, EngineError, "log_priors lacks 'bass', float [K] in nats"),
        ({"tables": {"song": 0}}, TableError, "'trio' needs a table for 'rhythm', p(rhythm | "),
        ({"evidence": {"sing": 1}}, GraphError, "'trio' has no site 'sing'; it has ["),
        (
            {"evidence": {"rhythm": 1}},
            GraphError,
            "'trio' does not observe 'rhythm'; it observes ['song']. What is observed is what the "
            "program returns: return it as well.",
        ),
        ({"evidence": {"song": 5}}, EngineError, "evidence['song'] must lie in [0, 5), got 5."),
        (
            {"evidence": {"song": torch.zeros(5)}},
            EngineError,
            "evidence['song'] must be one integer token, got torch.float32 [5]. For weights over "
            "tokens declare mix('song', ..., evidence=Soft()).",
        ),
        (
            {"log_priors": {"bass": torch.zeros(3)}},
            EngineError,
            "log_priors['bass'] must be float [2] (or [..., 2] in a plate), got torch.float32 [3].",
        ),
        (
            {"log_priors": {"bass": torch.tensor([0.0, float("nan")])}},
            EngineError,
            "log_priors['bass'] must not hold NaN or +inf.",
        ),
        ({"log_priors": {"bass": "flat"}}, EngineError, "log_priors['bass'] must be numbers, got"),
        ({"evidence": {"song": "snare"}}, EngineError, "evidence['song'] must be numbers, got 'sn"),
        (
            {"tables": {"rhythm": tables()["rhythm"].raised(0.5)}},
            TableError,
            "Was it raised to a power already? Give it as counted, and declare mix('rhythm', ...",
        ),
    ],
)
def test_bind_says_what_is_wrong(change, error, message):
    given = {"tables": tables(), "log_priors": log_priors(), "evidence": {}}
    for key, part in change.items():
        missing = 0 in [value for value in part.values() if isinstance(value, int)]
        given[key] = {k: given[key][k] for k in part} if missing else {**given[key], **part}
    with pytest.raises(error, match=re.escape(message)):
        bind(trio, given["tables"], given["log_priors"], given["evidence"])


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
    assert "Categorical" in drawn.source


# --- all kinds of evidence ------------------------------------------------------------------------

GRAPHS = random_graph(max_sources=4, tree=False)
# Pyro takes no alphabet of one token
PROBLEMS = random_problem(GRAPHS, min_alphabet=2, max_alphabet=4, max_states=400, max_depth=10)


def first_row(problem: Problem):
    """The bound first row, and the truth about it; Pyro scales priors to sum to 1."""
    priors = {name: log[0, 0].log_softmax(-1) for name, log in problem.log_priors.items()}
    assume(not any(torch.isnan(log).any() for log in priors.values()))
    evidence = {name: value[0] for name, value in problem.evidence.items()}
    truth = brute_force(problem.graph, problem.tables, priors, evidence)
    assume(truth.log_evidence > float("-inf"))
    return bind(problem.graph, problem.tables, priors, evidence), truth


def nothing_to_guess() -> None:
    """A guide: every latent site is enumerated."""


@settings(max_examples=30)
@given(problem=PROBLEMS)
def test_enumeration_is_brute_force(problem):
    """Tokens with powers, log weights and features, in graphs with cycles."""
    model, truth = first_row(problem)
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    enumerated = config_enumerate(model, default="parallel")
    assert -elbo.loss(enumerated, nothing_to_guess) == pytest.approx(truth.log_evidence, abs=1e-9)
    marginals = elbo.compute_marginals(enumerated, nothing_to_guess)
    for name in problem.graph.latent:
        assert marginals[name].probs == pytest.approx(truth.marginal(name), abs=1e-9)


@settings(max_examples=15)
@given(problem=PROBLEMS)
def test_infer_discrete_finds_the_mode_and_possible_samples(problem):
    model, truth = first_row(problem)
    model = config_enumerate(model, default="parallel")
    for temperature in (0, 1):
        found = infer_discrete(model, first_available_dim=-1, temperature=temperature)
        nodes = poutine.trace(found).get_trace().nodes
        tokens = {name: int(nodes[name]["value"]) for name in problem.graph.latent}
        log = truth.log_probability(tokens)
        assert log > float("-inf")
        if temperature == 0:
            assert log == pytest.approx(float(truth.log_joint.max()), abs=1e-9)


def heard(kind, **options):
    def program():
        return mix("song", source("drums"), source("bass"), evidence=kind, **options)

    return program


MEAN = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[-1.0, -2.0], [5.0, 5.0]]], dtype=torch.float64)
STD = torch.tensor([[[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6], [0.7, 0.8]]], dtype=torch.float64)
HEARD = [[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [[0.3, 0.3, 0.4], [0.0, 0.1, 0.9]]]
HOLE = torch.tensor([[True, True], [False, True]])


def feature_model(evidence=None, possible=HOLE, kind=Feature(), drums=(0.5, 0.5)):
    table = GaussianTable.from_arrays(MEAN, STD, possible)
    priors = {"drums": torch.tensor(drums).double().log(), "bass": torch.zeros(2).double()}
    return bind(heard(kind), {"song": table}, priors, evidence)


def test_a_feature_is_a_normal_site():
    trace = poutine.trace(feature_model({"song": torch.tensor([0.5, 0.5])})).get_trace()
    site = trace.nodes["song"]
    assert site["is_observed"]
    assert isinstance(site["fn"], pyro.distributions.Independent)
    assert isinstance(site["fn"].base_dist, pyro.distributions.Normal)
    assert site["value"].tolist() == [0.5, 0.5]


def test_a_feature_is_simulated_from_its_parents():
    model = feature_model(possible=None)
    with pyro.plate("many", 4000):
        trace = poutine.trace(model).get_trace()
    drums, bass, song = (trace.nodes[name]["value"] for name in ("drums", "bass", "song"))
    assert song.shape == (4000, 2)
    for a, b in product(range(2), range(2)):
        drawn = song[(drums == a) & (bass == b)]
        error = 5 * STD[a, b] / len(drawn) ** 0.5
        assert ((drawn.mean(0) - MEAN[a, b]).abs() < error).all()
        assert drawn.std(0) == pytest.approx(STD[a, b], rel=0.15)


def test_impossible_parents_of_a_feature_have_density_zero():
    fixed = {"drums": torch.tensor(1), "bass": torch.tensor(0)}
    model = pyro.condition(feature_model({"song": torch.zeros(2)}), fixed)
    assert poutine.trace(model).get_trace().log_prob_sum() == float("-inf")
    with pytest.raises(TableError, match="'song' cannot be simulated: its table never saw"):
        pyro.condition(feature_model(), fixed)()
    marginals = TraceEnum_ELBO(max_plate_nesting=0).compute_marginals(
        config_enumerate(feature_model({"song": torch.zeros(2)}, drums=(0.0, 1.0)), "parallel"),
        nothing_to_guess,
    )
    assert marginals["bass"].probs.tolist() == [0.0, 1.0]


def soft_model(evidence, **options):
    priors = {name: torch.zeros(2).double() for name in ("drums", "bass")}
    return bind(heard(Soft(), **options), {"song": Table.from_array(HEARD)}, priors, evidence)


def test_log_weights_are_a_factor_beside_a_latent_site():
    weights = torch.tensor([0.0, -1.0, 2.0])
    trace = poutine.trace(soft_model({"song": weights})).get_trace()
    trace.compute_log_prob()
    assert not trace.nodes["song"]["is_observed"]
    token = int(trace.nodes["song"]["value"])
    assert float(trace.nodes["song_weights"]["log_prob"]) == float(weights[token])
    assert "song_weights" not in poutine.trace(soft_model(None)).get_trace().nodes


def test_the_factor_does_not_take_the_name_of_a_site():
    def program():
        a = mix("song", source("song_weights"), evidence=Soft())
        return a

    table = {"song": Table.from_array([[0.5, 0.5], [0.1, 0.9]])}
    priors = {"song_weights": torch.zeros(2)}
    model = bind(program, table, priors, {"song": torch.zeros(2)})
    trace = poutine.trace(model).get_trace()
    assert set(trace.nodes) >= {"song", "song_weights", "song_weights_"}


POWERED = pytest.mark.parametrize(
    ("kind", "value"), [(Token(0.5), torch.tensor(1)), (Feature(0.5), torch.tensor([1.0, 0.0]))]
)


def powered(kind, evidence):
    if isinstance(kind, Feature):
        return feature_model(evidence, kind=kind)
    priors = {name: torch.zeros(2).double() for name in ("drums", "bass")}
    return bind(heard(kind), {"song": Table.from_array(HEARD)}, priors, evidence)


@POWERED
def test_a_power_acts_while_its_site_is_observed(kind, value):
    """By evidence, by pyro.condition, and not while it is simulated."""
    plain, observed = type(kind)(), {"song": value}
    fixed = {"drums": torch.tensor(1), "bass": torch.tensor(1)}

    def log_prob(model):
        trace = poutine.trace(pyro.condition(model, fixed)).get_trace()
        trace.compute_log_prob()
        return float(trace.nodes["song"]["log_prob"])

    once = log_prob(powered(plain, observed))
    assert log_prob(powered(kind, observed)) == pytest.approx(once / 2)
    assert log_prob(pyro.condition(powered(kind, None), observed)) == pytest.approx(once / 2)
    conditioned = pyro.condition(powered(kind, observed), observed)
    assert log_prob(conditioned) == pytest.approx(once / 2)
    if isinstance(kind, Token):  # the sum over an unobserved site stays 1
        elbo = TraceEnum_ELBO(max_plate_nesting=0)
        model = config_enumerate(powered(kind, None), "parallel")
        assert elbo.loss(model, nothing_to_guess) == pytest.approx(0.0, abs=1e-9)


def test_do_cuts_a_site_off_its_parents():
    model = poutine.do(bind(trio, tables(), log_priors()), {"rhythm": torch.tensor(2)})
    given_ = pyro.condition(model, {"song": torch.tensor(1)})
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    marginals = elbo.compute_marginals(config_enumerate(given_, "parallel"), nothing_to_guess)
    drums, piano = (log_priors()[name].exp() for name in ("drums", "piano"))
    assert marginals["drums"].probs == pytest.approx(drums, abs=1e-6)  # nothing learned
    likelihood = piano * tables()["song"].dense(torch.float32)[2, :, 1]
    assert marginals["piano"].probs == pytest.approx(likelihood / likelihood.sum(), abs=1e-6)


def test_conditioning_is_the_same_as_evidence():
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    by_hand = pyro.condition(bind(trio, tables(), log_priors()), {"song": torch.tensor(3)})
    for model in (by_hand, bind(trio, tables(), log_priors(), {"song": 3})):
        found = elbo.compute_marginals(config_enumerate(model, "parallel"), nothing_to_guess)
        truth = brute_force(compile_program(trio), tables(), log_priors(), {"song": 3})
        for name in ("drums", "bass", "rhythm", "piano"):
            assert found[name].probs == pytest.approx(truth.marginal(name).float(), abs=1e-6)


def test_pyro_draws_features_and_weights():
    pytest.importorskip("graphviz")
    drawn = pyro.render_model(feature_model({"song": torch.zeros(2)}), render_distributions=True)
    assert "drums -> song" in drawn.source
    assert "song ~ Normal" in drawn.source
    drawn = pyro.render_model(soft_model({"song": torch.zeros(3)}))
    assert "song -> song_weights" in drawn.source


def test_many_positions_at_once_in_a_plate():
    with pyro.plate("many", 1000):
        trace = poutine.trace(soft_model(None)).get_trace()
    drums, bass, song = (trace.nodes[name]["value"] for name in ("drums", "bass", "song"))
    assert drums.shape == bass.shape == song.shape == (1000,)
    assert not ((drums == 1) & (bass == 1) & (song == 0)).any()  # of probability zero
    assert trace.log_prob_sum() > float("-inf")


@pytest.mark.parametrize("kind", [Token(), Token(0.5), Soft(), Feature()])
def test_rows_in_a_plate_are_rows(kind):
    """Priors and evidence of several rows at once, as one by one."""
    n, graph = 3, compile_program(heard(kind))
    priors = {name: torch.rand(n, 2).double().log_softmax(-1) for name in graph.sources}
    tables_ = {"song": Table.from_array(HEARD)}
    given_ = torch.tensor([0, 1, 2])
    if isinstance(kind, Feature):
        tables_ = {"song": GaussianTable.from_arrays(MEAN, STD, HOLE)}
        given_ = torch.rand(n, 2).double()
    elif isinstance(kind, Soft):
        given_ = torch.rand(n, 3).double()
    bound = bind(graph, tables_, priors, {"song": given_})

    @config_enumerate
    def model():
        with pyro.plate("rows", n):
            bound()

    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    marginals = elbo.compute_marginals(model, nothing_to_guess)
    truths = [
        brute_force(graph, tables_, {k: v[i] for k, v in priors.items()}, {"song": given_[i]})
        for i in range(n)
    ]
    total = sum(truth.log_evidence for truth in truths)
    assert -elbo.loss(model, nothing_to_guess) == pytest.approx(total, abs=1e-9)
    for name in graph.latent:
        for i, truth in enumerate(truths):
            assert marginals[name].probs[i] == pytest.approx(truth.marginal(name), abs=1e-9)


def test_the_observed_values_are_returned():
    graph = compile_program(trio)
    for model, value in (
        (feature_model({"song": torch.ones(2)}), [1.0, 1.0]),
        (bind(graph, tables(), log_priors(), {"song": 1}), 1),
    ):
        returned = poutine.trace(model).get_trace().nodes["_RETURN"]["value"]
        assert returned.tolist() == value
