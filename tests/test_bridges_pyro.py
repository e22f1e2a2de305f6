"""Ordinary Pyro models as mixing graphs, and `bind` backwards."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import assume, given, settings
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.ops.indexing import Vindex

from mlass_ppl import Exact, Feature, GraphError, Soft, Table, Token, bind, compile_program
from mlass_ppl.bridges import from_pyro, to_pyro
from mlass_ppl.graph import Mix, MixingGraph
from mlass_ppl.tables.gaussian import GaussianTable
from mlass_ppl.testing import Problem, brute_force, random_graph, random_problem


def counted(graph: MixingGraph) -> MixingGraph:
    """Without linear features, whose densities are no `Normal`."""
    plain = {name: Feature(graph.evidence(name).power) for name in graph.linear}
    return graph.with_evidence(plain)


GRAPHS = random_graph(max_sources=4, tree=False).map(counted)
PROBLEMS = random_problem(GRAPHS, min_alphabet=2, max_alphabet=4, max_states=400, max_depth=10)


def permuted(table, graph: MixingGraph, wanted: MixingGraph, name: str):
    """A table of `graph` with its parents in the order of `wanted`."""
    mine, theirs = graph.site(name), wanted.site(name)
    assert isinstance(mine, Mix)
    assert isinstance(theirs, Mix)
    order = [mine.parents.index(parent) for parent in theirs.parents]
    rest = len(order)
    if isinstance(table, Table):
        return table.dense().permute(*order, rest)
    possible = table.possible.permute(*order)
    spread = possible[..., None]
    mean, std = (part.permute(*order, rest) for part in (table.mean, table.std))
    return torch.where(spread, mean, 0), torch.where(spread, std, 1), possible


@settings(max_examples=60)
@given(problem=PROBLEMS)
def test_bind_and_back_gives_the_same_tables(problem: Problem) -> None:
    """All kinds of evidence and powers, cycles, observed partial mixtures, missing rows."""
    graph = problem.graph
    assume(not any(isinstance(site, Mix) and site.hidden for site in graph.sites))
    priors = {name: log[0, 0].log_softmax(-1) for name, log in problem.log_priors.items()}
    assume(not any(torch.isnan(log).any() for log in priors.values()))
    evidence = {name: value[0] for name, value in problem.evidence.items()}
    found, tables, log_priors, seen = from_pyro(bind(graph, problem.tables, priors, evidence))
    assert (found.sources, found.mixtures) == (graph.sources, graph.mixtures)
    assert set(found.observed) == set(graph.observed)
    for name in graph.observed:
        assert found.evidence(name) == graph.evidence(name)
        assert torch.allclose(torch.as_tensor(seen[name]), evidence[name], rtol=0, atol=1e-12)
    for name, log in priors.items():
        assert log_priors[name].exp() == pytest.approx(log.exp(), abs=1e-12)
    for name in graph.mixtures:
        other = permuted(tables[name], found, graph, name)
        site = problem.tables[name]
        if isinstance(site, Table):
            assert torch.allclose(other, site.dense(), rtol=1e-9, atol=1e-12)
        else:
            spread = site.possible[..., None]
            assert torch.equal(other[2], site.possible)
            assert torch.allclose(other[0], torch.where(spread, site.mean, 0), rtol=0, atol=1e-12)
            assert torch.allclose(other[1], torch.where(spread, site.std, 1), rtol=0, atol=1e-12)
    again = brute_force(found, tables, log_priors, seen)
    truth = brute_force(graph, problem.tables, priors, evidence)
    assert again.log_evidence == pytest.approx(truth.log_evidence, abs=1e-9)


def rows(*shape: int) -> torch.Tensor:
    values = torch.rand(shape, dtype=torch.float64)
    return values / values.sum(-1, keepdim=True)


PAIR, SONG, DRUMS = rows(2, 3, 4), rows(4, 2, 5), rows(2)


def band(song=None):
    """Categorical and Bernoulli sites, tables indexed in both of Pyro's ways, arithmetic."""
    drums = pyro.sample("drums", dist.Categorical(DRUMS))
    bass = pyro.sample("bass", dist.Categorical(torch.ones(3, dtype=torch.float64) / 3))
    pair = pyro.sample("pair", dist.Categorical(Vindex(PAIR)[drums, bass]))
    piano = pyro.sample("piano", dist.Bernoulli(0.25 + 0.25 * (drums == 1).double()))
    return pyro.sample("song", dist.Categorical(SONG[pair, piano.long()]), obs=song)


def test_an_ordinary_model_becomes_a_graph() -> None:
    graph, tables, log_priors, evidence = from_pyro(band, torch.tensor(3))
    assert graph.name == "band"
    assert graph.sources == ("drums", "bass")
    assert [(factor.child, factor.parents) for factor in graph.factors] == [
        ("pair", ("drums", "bass")),
        ("piano", ("drums",)),
        ("song", ("pair", "piano")),
    ]
    assert graph.alphabets() == {"drums": 2, "bass": 3, "pair": 4, "piano": 2, "song": 5}
    assert (graph.observed, evidence) == (("song",), {"song": 3})
    assert torch.allclose(tables["pair"].dense(), PAIR, rtol=1e-12)
    assert torch.allclose(tables["song"].dense(), SONG, rtol=1e-12)
    assert tables["piano"].dense() == pytest.approx(torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    assert log_priors["drums"].exp() == pytest.approx(DRUMS, abs=1e-12)
    assert graph.leaf_weights("song") == pytest.approx({"drums": 2 / 3, "bass": 1 / 3})


def test_our_engines_answer_as_pyro_does() -> None:
    graph, tables, log_priors, evidence = from_pyro(band, torch.tensor(3))
    answer = (
        Exact()
        .plan(graph, tables)
        .posterior(
            {name: log[None, None] for name, log in log_priors.items()},
            {name: torch.tensor([token]) for name, token in evidence.items()},
        )
    )
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    model = config_enumerate(lambda: band(torch.tensor(3)), default="parallel")
    wanted = -elbo.loss(model, lambda: None)
    assert float(answer.log_evidence) == pytest.approx(wanted, abs=1e-9)
    marginals = elbo.compute_marginals(model, lambda: None)
    for name in ("drums", "bass", "pair"):
        assert answer.marginals()[name][0, 0] == pytest.approx(marginals[name].probs, abs=1e-9)
    assert answer.marginals()["piano"][0, 0, 1] == pytest.approx(
        float(marginals["piano"].probs), abs=1e-9
    )


def test_nothing_observed_is_what_the_model_returns() -> None:
    graph, _, _, evidence = from_pyro(band)
    assert (graph.observed, evidence) == (("song",), {})


def test_conditioning_is_evidence() -> None:
    conditioned = pyro.condition(band, {"song": torch.tensor(1), "pair": torch.tensor(2)})
    graph, tables, _, evidence = from_pyro(conditioned)
    assert (graph.observed, evidence) == (("pair", "song"), {"pair": 2, "song": 1})
    assert torch.allclose(tables["song"].dense(), SONG, rtol=1e-12)  # with the observed axis


def test_features_scales_and_factors() -> None:
    mean, std = torch.rand(2, 3, 4, dtype=torch.float64), 0.5 + torch.rand(2, 3, 4).double()
    heard = torch.arange(4.0, dtype=torch.float64)

    def model():
        a = pyro.sample("a", dist.Categorical(DRUMS))
        b = pyro.sample("b", dist.Categorical(torch.ones(3, dtype=torch.float64) / 3))
        pyro.factor("a_hint", torch.tensor([0.0, -1.0], dtype=torch.float64)[a])
        pyro.factor("constant", torch.tensor(0.25, dtype=torch.float64))
        with poutine.scale(scale=0.5):
            pyro.sample("x", dist.Normal(mean[a, b], std[a, b]).to_event(1), obs=heard)
        with poutine.scale(scale=2.0):
            pyro.sample("t", dist.Categorical(PAIR[a, b]), obs=torch.tensor(1))
        pyro.sample("level", dist.Normal(a.double(), 2.0), obs=torch.tensor(0.3).double())
        m = pyro.sample("m", dist.Categorical(PAIR[a, b]))
        pyro.factor("m_weights", torch.tensor([0.0, -1.0, -2.0, 1.0], dtype=torch.float64)[m])

    graph, tables, log_priors, evidence = from_pyro(model)
    kinds = {name: graph.evidence(name) for name in graph.observed}
    assert kinds == {"x": Feature(0.5), "t": Token(2.0), "level": Feature(), "m": Soft()}
    assert evidence["m"].tolist() == [0.0, -1.0, -2.0, 1.0]
    assert evidence["level"] == pytest.approx([0.3])
    assert isinstance(tables["x"], GaussianTable)
    assert torch.equal(tables["x"].mean, mean)
    assert torch.equal(tables["x"].std, std)
    wanted = DRUMS.log() + torch.tensor([0.25, -0.75])
    assert log_priors["a"] == pytest.approx(wanted, abs=1e-12)
    found = brute_force(graph, tables, log_priors, evidence).log_evidence
    trace = poutine.trace(poutine.enum(config_enumerate(model, "parallel"), -1)).get_trace()
    trace.compute_log_prob()
    joint = sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample")
    assert found == pytest.approx(float(joint.logsumexp((0, 1, 2))), abs=1e-9)


def test_deterministic_statements_and_parameters_are_read_through() -> None:
    def model():
        table = pyro.param("table", PAIR)
        a = pyro.sample("a", dist.Categorical(DRUMS))
        b = pyro.deterministic("b", 1 - a)
        return pyro.sample("m", dist.Categorical(table[a, b]))

    graph, tables, _, _ = from_pyro(model)
    assert torch.allclose(tables["m"].dense(), PAIR[[0, 1], [1, 0]])
    assert [factor.parents for factor in graph.factors] == [("a",)]


def test_single_precision_is_good_enough() -> None:
    table = torch.rand(5, 300)
    table = table / table.sum(-1, keepdim=True)

    def model():
        a = pyro.sample("a", dist.Categorical(torch.ones(5)))
        return pyro.sample("m", dist.Categorical(table[a]))

    found = from_pyro(model)[1]["m"].dense()
    assert found == pytest.approx(table.double(), abs=1e-6)
    assert found.sum(-1) == pytest.approx(torch.ones(5), abs=1e-12)


def test_loops_with_and_without_markov() -> None:
    step = rows(3, 3)

    def model(markov):
        state = pyro.sample("z0", dist.Categorical(torch.ones(3) / 3))
        times = range(1, 6)
        for t in pyro.markov(times) if markov else times:
            state = pyro.sample(f"z{t}", dist.Categorical(step[state]))
        return state

    graph, tables, _, _ = from_pyro(model, True)
    assert graph == from_pyro(model, False)[0]
    assert [factor.parents for factor in graph.factors] == [(f"z{t}",) for t in range(5)]
    assert torch.allclose(tables["z5"].dense(), step)


def test_to_pyro_is_bind() -> None:
    assert to_pyro is bind


# --- refusals ---------------------------------------------------------------------------------


def cat(name, probs, obs=None):
    obs = None if obs is None else torch.tensor(obs)
    return pyro.sample(name, dist.Categorical(probs), obs=obs)


COINS = torch.tensor([0.5, 0.5])
SQUARE = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
CUBE = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.7, 0.3]]])


def one_after_the_other():
    a, b = cat("a", COINS), cat("b", COINS)
    return cat("m", CUBE[a][b])


def branching():
    a = cat("a", COINS)
    return cat("m", SQUARE[0] if int(a) else SQUARE[1])


def plates():
    a = cat("a", COINS)
    with pyro.plate("many", 3):
        return cat("m", SQUARE[a])


def batch():
    a = cat("a", COINS)
    b = pyro.sample("b", dist.Categorical(torch.full((3, 2), 0.5)))
    return cat("m", CUBE[a, b])


def weighted():
    a = cat("a", COINS)
    pyro.sample("x", dist.Normal(a.float(), 1.0), obs=torch.tensor(0.5))
    pyro.factor("hint", a.float())


def twice():
    cat("a", COINS)
    return cat("a", COINS)


def several():
    a, b = cat("a", COINS), cat("b", COINS)
    pyro.factor("tie", (a == b).float())
    return cat("m", CUBE[a, b])


REFUSED = {
    "continuous latent": (
        lambda: pyro.sample("level", dist.Normal(0, 1)),
        r"site 'level' of '.*' is latent and samples Normal; .* Discretise it, or leave it out\.",
    ),
    "continuous observation": (
        lambda: pyro.sample("x", dist.Gamma(1 + cat("a", COINS).float(), 1), obs=torch.ones(())),
        r"site 'x' of '.*' is observed and samples Gamma; .* only observed Normal",
    ),
    "infinite support": (
        lambda: pyro.sample("n", dist.Poisson(3.0)),
        "site 'n' of '.*' is latent and samples Poisson; a mixing graph has discrete sites of fin",
    ),
    "vector": (
        lambda: pyro.sample("v", dist.OneHotCategorical(COINS)),
        "site 'v' of '.*' samples OneHotCategorical, a vector; expected a token",
    ),
    "plate": (plates, r"'plates' uses plate 'many'; .* Drop the plate, or write its sites out"),
    "batch": (batch, r"site 'b' of 'batch' has a batch of shape \[3\], .* without batches"),
    "two sites of one name": (twice, r"'twice' has two sites 'a'; give each a name of its own"),
    "one index after the other": (
        one_after_the_other,
        r"site 'm' of 'one_after.*T\[a, b\] or Vindex\(T\)\[a, b\], not T\[a\]\[b\]",
    ),
    "branch": (branching, r"'branching' failed while its sites were .* use no `if`, int\(\) or"),
    "mask": (
        lambda: poutine.mask(lambda: cat("m", SQUARE[cat("a", COINS)]), mask=torch.tensor(True))(),
        r"site 'a' of '.*' is masked; a mixing graph has no masks",
    ),
    "masked distribution": (
        lambda: pyro.sample("m", dist.Categorical(SQUARE[cat("a", COINS)]).mask(False)),
        r"site 'm' of '.*' is masked; a mixing graph has no masks",
    ),
    "latent scale": (
        lambda: poutine.scale(lambda: cat("m", SQUARE[cat("a", COINS)]), scale=0.5)(),
        "site 'a' of '.*' is latent and scaled; only the likelihood of an observed site",
    ),
    "factor of several sites": (several, r"pyro.factor 'tie' of 'several' depends on \['a', 'b'\]"),
    "roots alone": (
        lambda: cat("a", COINS),
        r"no site of '.*' depends on another, so that nothing is mixed: \['a'\]",
    ),
    "observed root": (
        lambda: (cat("m", SQUARE[cat("a", COINS)]), cat("b", COINS, obs=1)),
        r"'.*' observes 'b', which depends on no other site",
    ),
    "independent site": (
        lambda: (cat("b", COINS), cat("m", SQUARE[cat("a", COINS)], obs=1))[1],
        "declares 'b', which the observed 'm' does not depend on",
    ),
    "nothing observed": (
        lambda: [cat("m", SQUARE[cat("a", COINS)]), None][1],
        r"observes nothing: none of its sites has obs=, .* Condition it, pyro\.condition\(model",
    ),
    "token beyond the support": (
        lambda: cat("m", SQUARE[cat("a", COINS)], obs=2),
        r"observes tensor\(2\) at site 'm'; expected one value of its support, which has 2",
    ),
}


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_other_models_are_refused_by_name(model, message) -> None:
    with pytest.raises(GraphError, match=message):
        from_pyro(model)


def test_a_site_that_comes_and_goes_is_noticed() -> None:
    """No branch is taken while everything is enumerated, but one is state by state."""

    def model():
        a = cat("a", COINS)
        if a.numel() == 1:
            cat("sometimes", COINS)
        return cat("m", SQUARE[a])

    with pytest.raises(GraphError, match="'model' does not reach site 'sometimes' in every state"):
        from_pyro(model)


def test_a_table_that_enumeration_reads_otherwise_is_noticed() -> None:
    """Such as T[a][b] where all sizes happen to agree: wrong for all states at once, right for
    one."""

    def model():
        a = cat("a", COINS)
        return cat("m", SQUARE[a] if a.numel() == 1 else SQUARE[1 - a])

    with pytest.raises(
        GraphError, match=r"site 'm' of 'model' has another distribution .* \{'a': "
    ):
        from_pyro(model)


def test_reading_a_model_leaves_pyro_as_it_was() -> None:
    with poutine.trace() as trace:
        with pytest.raises(GraphError):
            from_pyro(plates)
        from_pyro(band)
        from_pyro(weighted)
        pyro.sample("outside", dist.Bernoulli(0.5))
    assert [name for name in trace.trace.nodes if name != "_INPUT"] == ["outside"]


def test_a_mixing_program_is_pointed_to_its_own_way() -> None:
    from mlass_ppl import chain

    with pytest.raises(GraphError, match=r"is a mixing program already; .* by compile_program"):
        from_pyro(chain(2))
    assert compile_program(chain(2)).sources == ("source_1", "source_2")
