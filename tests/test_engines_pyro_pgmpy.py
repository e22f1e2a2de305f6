"""Every engine against other people's inference: Pyro's enumeration and pgmpy's elimination."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import exp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate, infer_discrete
from torch import Tensor

from mlass_ppl import BP, Exact, MixingGraph, bind, chain, compile_program, joint
from mlass_ppl.infer import Engine
from mlass_ppl.testing import Problem, random_graph, random_problem

ENGINES = (Exact(), BP(), BP(dense_limit=0))
GRAPHS = st.one_of(
    random_graph(max_sources=4),
    random_graph(max_sources=3, tree=False),
    st.sampled_from([compile_program(chain(3)), compile_program(joint(3))]),
)
# Pyro takes no alphabet of one token
PROBLEMS = random_problem(GRAPHS, min_alphabet=2, max_alphabet=4, max_states=500, max_depth=10)


def engines(graph: MixingGraph) -> tuple[Engine, ...]:
    return ENGINES if graph.is_tree else ENGINES[:1]


def rows(problem: Problem) -> Iterator[tuple[int, int, dict[str, Tensor], dict[str, int], float]]:
    """Rows whose priors are distributions once scaled: both oracles scale them, the engines do
    not, so the logarithm of that scale comes along."""
    for m, c in product(*map(range, problem.shape)):
        raw = {name: log[m, c] for name, log in problem.log_priors.items()}
        totals = {name: log.logsumexp(-1) for name, log in raw.items()}
        if all(torch.isfinite(total) for total in totals.values()):
            priors = {name: raw[name] - totals[name] for name in raw}
            evidence = {name: int(tokens[m]) for name, tokens in problem.evidence.items()}
            yield m, c, priors, evidence, float(sum(totals.values()))


@settings(max_examples=30)
@given(problem=PROBLEMS)
def test_pyro_agrees(problem: Problem) -> None:
    """Log evidence, marginals and mode from the program itself, run through `bind`."""
    answers = {engine: problem.posterior(engine) for engine in engines(problem.graph)}
    marginals = {engine: answer.marginals() for engine, answer in answers.items()}
    modes = {engine: answer.mode() for engine, answer in answers.items()}
    for m, c, priors, evidence, scale in rows(problem):
        model = config_enumerate(
            bind(problem.graph, problem.tables, priors, evidence), default="parallel"
        )
        elbo = TraceEnum_ELBO(max_plate_nesting=0)
        found = -elbo.loss(model, _guide) + scale
        if not found > float("-inf"):
            assert all(float(a.log_evidence[m, c]) == float("-inf") for a in answers.values())
            continue
        others = elbo.compute_marginals(model, _guide)
        best = poutine.trace(
            infer_discrete(model, first_available_dim=-1, temperature=0)
        ).get_trace()
        peak = {name: int(best.nodes[name]["value"]) for name in problem.graph.latent}
        truth = problem.brute_force(m, c)
        for engine, answer in answers.items():
            assert float(answer.log_evidence[m, c]) == pytest.approx(found, abs=1e-5)
            for name in problem.graph.latent:
                torch.testing.assert_close(
                    marginals[engine][name][m, c], others[name].probs, atol=1e-5, rtol=0
                )
            mode = {name: int(tokens[m, c]) for name, tokens in modes[engine].items()}
            assert truth.log_probability(mode) == pytest.approx(truth.log_probability(peak))


def _guide() -> None:
    """Nothing is left to guess: every latent site is enumerated."""


@settings(max_examples=20)
@given(problem=PROBLEMS)
def test_pgmpy_agrees(problem: Problem) -> None:
    inference = pytest.importorskip("pgmpy.inference")
    answers = {engine: problem.posterior(engine) for engine in engines(problem.graph)}
    marginals = {engine: answer.marginals() for engine, answer in answers.items()}
    for m, c, priors, evidence, scale in rows(problem):
        elimination = inference.VariableElimination(network(problem, priors))
        joint = elimination.query(list(problem.graph.observed), show_progress=False)
        probability = float(joint.get_value(**evidence))
        for engine, answer in answers.items():
            found = exp(float(answer.log_evidence[m, c]) - scale)
            assert found == pytest.approx(probability, rel=1e-5, abs=1e-12), engine
        if probability < 1e-12:  # pgmpy divides by it
            continue
        for name in problem.graph.latent:
            other = elimination.query([name], evidence=evidence, show_progress=False)
            wanted = torch.as_tensor(other.values)
            for engine in answers:
                mine = marginals[engine][name][m, c]
                torch.testing.assert_close(mine, wanted[: len(mine)], atol=1e-5, rtol=0)
                assert (wanted[len(mine) :] == 0).all()


def network(problem: Problem, priors: dict[str, Tensor]):
    """The graph as a pgmpy network. Its rows must sum to 1, so each mixture site gets one more
    token, "never", for parents without a row; its children are then "never" too, and so no
    observation ever reaches it."""
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    graph = problem.graph
    out = DiscreteBayesianNetwork(
        [(parent, factor.child) for factor in graph.factors for parent in factor.parents]
    )
    cards = {name: len(prior) for name, prior in priors.items()}
    for name, prior in priors.items():
        out.add_cpds(TabularCPD(name, cards[name], prior.exp()[:, None].tolist()))
    for factor in graph.factors:
        table = problem.tables[factor.name].dense()
        cards[factor.child] = table.shape[-1] + 1
        sizes = [cards[name] for name in factor.parents]
        full = torch.zeros(*sizes, cards[factor.child], dtype=torch.float64)
        full[tuple(slice(size) for size in table.shape)] = table
        full[..., -1] = full[..., :-1].sum(-1) == 0
        columns = full.reshape(-1, cards[factor.child]).T
        out.add_cpds(
            TabularCPD(
                factor.child, cards[factor.child], columns.tolist(), [*factor.parents], sizes
            )
        )
    return out
