"""Every engine against other people's inference: Pyro's enumeration and pgmpy's elimination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import exp, prod
from typing import Any

import pytest
import torch
from engines import exact_on
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate, infer_discrete
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from mlass_ppl import Feature, GaussianTable, MixingGraph, Soft, bind, chain, compile_program, joint
from mlass_ppl.infer import Engine, Posterior
from mlass_ppl.tables import LinearGaussianTable
from mlass_ppl.testing import Problem, random_graph, random_problem

GRAPHS = st.one_of(
    random_graph(max_sources=4),
    random_graph(max_sources=3, tree=False),
    st.sampled_from(
        [
            compile_program(program)
            for program in (
                chain(3),
                joint(3),
                chain(3, evidence=Soft()),
                joint(2, evidence=Feature()),
                joint(2, evidence=Feature(linear=True)),
                chain(3, evidence=Feature(linear=True)),
            )
        ]
    ),
)


def plain(graph: MixingGraph) -> MixingGraph:
    """Without powers, which are a `poutine.scale`: Pyro enumerates under one common scale only."""
    kinds = {name: graph.evidence(name) for name in graph.observed}
    tempered = {name: kind for name, kind in kinds.items() if not isinstance(kind, Soft)}
    return graph.with_evidence({name: replace(kind, power=1.0) for name, kind in tempered.items()})


# Pyro takes no alphabet of one token
LIMITS = {"min_alphabet": 2, "max_alphabet": 4, "max_states": 500, "max_depth": 10}
PROBLEMS = random_problem(GRAPHS, **LIMITS)


@dataclass(frozen=True)
class OneRow:
    """One row whose priors are distributions once scaled: Pyro scales them, the engines do not, so
    the logarithm of that scale comes along. evidence: [M] of each site, at this row's mixture."""

    place: tuple[int, int]
    priors: dict[str, Tensor]
    evidence: dict[str, Any]
    scale: float


def rows(problem: Problem) -> Iterator[OneRow]:
    for m, c in problem.rows:
        raw = {name: log[m, c] for name, log in problem.log_priors.items()}
        totals = {name: log.logsumexp(-1) for name, log in raw.items()}
        if all(torch.isfinite(total) for total in totals.values()):
            priors = {name: raw[name] - totals[name] for name in raw}
            evidence = {name: given[m] for name, given in problem.evidence.items()}
            yield OneRow((m, c), priors, evidence, float(sum(totals.values())))


def answers(problem: Problem) -> dict[Engine, Posterior]:
    return {engine: problem.posterior(engine) for engine in exact_on(problem.graph)}


@settings(max_examples=40)
@given(problem=random_problem(GRAPHS.map(plain), **LIMITS))
def test_pyro_agrees(problem: Problem) -> None:
    """Log evidence, marginals and mode from the program itself, run through `bind`: features are
    `Normal` or `MultivariateNormal` sites, weights over tokens a factor."""
    found = answers(problem)
    marginals = {engine: answer.marginals() for engine, answer in found.items()}
    modes = {engine: answer.mode() for engine, answer in found.items()}
    for row in rows(problem):
        model = config_enumerate(
            bind(problem.graph, problem.tables, row.priors, row.evidence), default="parallel"
        )
        elbo = TraceEnum_ELBO(max_plate_nesting=0)
        wanted = -elbo.loss(model, _guide) + row.scale
        if not wanted > float("-inf"):
            assert all(a.log_evidence[row.place] == float("-inf") for a in found.values())
            continue
        others = elbo.compute_marginals(model, _guide)
        best = poutine.trace(
            infer_discrete(model, first_available_dim=-1, temperature=0)
        ).get_trace()
        peak = {name: int(best.nodes[name]["value"]) for name in problem.graph.latent}
        truth = problem.brute_force(*row.place)
        for engine, answer in found.items():
            assert float(answer.log_evidence[row.place]) == pytest.approx(wanted, abs=1e-5)
            for name, mine in marginals[engine].items():
                torch.testing.assert_close(mine[row.place], others[name].probs, atol=1e-5, rtol=0)
            mode = {name: int(tokens[row.place]) for name, tokens in modes[engine].items()}
            if mode.keys() == peak.keys():  # extractors leave out what is no source
                assert truth.log_probability(mode) == pytest.approx(truth.log_probability(peak))


def _guide() -> None:
    """Nothing is left to guess: every latent site is enumerated."""


@settings(max_examples=40)
@given(problem=PROBLEMS)
def test_pyro_agrees_on_every_joint_state(problem: Problem) -> None:
    """The log probability of a run in which every site is given; powers included."""
    for row in rows(problem):
        truth = problem.brute_force(*row.place)
        model = bind(problem.graph, problem.tables, row.priors, row.evidence)
        for index in torch.randint(truth.log_joint.numel(), (5,)).tolist():
            state = torch.unravel_index(torch.tensor(index), truth.log_joint.shape)
            given_all = poutine.condition(model, dict(zip(truth.sites, state, strict=True)))
            wanted = float(truth.log_joint.flatten()[index]) - row.scale
            found = float(poutine.trace(given_all).get_trace().log_prob_sum())
            assert found == pytest.approx(wanted, abs=1e-9, rel=1e-9)


@settings(max_examples=30)
@given(problem=PROBLEMS)
def test_pgmpy_agrees(problem: Problem) -> None:
    """Evidence and marginals of one network: evidence of every kind is a coin whose probability of
    heads, given the parents, is proportional to the likelihood."""
    inference = pytest.importorskip("pgmpy.inference")
    found = answers(problem)
    marginals = {engine: answer.marginals() for engine, answer in found.items()}
    for row in rows(problem):
        model, coins, scale = network(problem, row)
        elimination = inference.VariableElimination(model)
        heads = dict.fromkeys(coins, 1)
        query = elimination.query(coins, show_progress=False) if coins else None
        probability = 1.0 if query is None else float(query.get_value(**heads))
        for engine, answer in found.items():
            mine = exp(float(answer.log_evidence[row.place]) - row.scale - scale)
            assert mine == pytest.approx(probability, rel=1e-5, abs=1e-12), engine
        if probability < 1e-12:  # pgmpy divides by it
            continue
        for name in problem.graph.latent:
            other = elimination.query([name], evidence=heads, show_progress=False)
            wanted = torch.as_tensor(other.values)
            for engine in found:
                if name not in marginals[engine]:
                    continue
                mine = marginals[engine][name][row.place]
                torch.testing.assert_close(mine, wanted[: len(mine)], atol=1e-5, rtol=0)
                assert (wanted[len(mine) :] == 0).all()


def network(problem: Problem, row: OneRow) -> tuple[Any, list[str], float]:
    """The latent sites as a pgmpy network, with a coin for each observation: its log likelihood
    over its latent parents is the log of heads, but for a scale that all rows share; the sum of
    those scales comes along.

    Rows of a network must sum to 1, so each mixture site gets one more token, "never", for parents
    without a row in its table; its children are then "never" too, and no coin shows heads.
    """
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    graph, out = problem.graph, DiscreteBayesianNetwork()
    cards = {name: len(prior) for name, prior in row.priors.items()}
    likelihoods: list[tuple[str, list[str], Tensor]] = []
    for name, prior in row.priors.items():
        out.add_node(name)
        out.add_cpds(TabularCPD(name, cards[name], prior.exp()[:, None].tolist()))
    for factor in graph.factors:
        names, log = [*factor.parents], log_table(problem, row, factor.name)
        if factor.child in graph.latent:
            names.append(factor.child)
        cut = tuple(
            int(row.evidence[name]) if name in graph.known else slice(None) for name in names
        )
        log, names = log[cut], [name for name in names if name not in graph.known]
        if factor.child not in graph.latent:
            likelihoods.append((f"coin {factor.child}", names, log))
            continue
        parents = names[:-1]
        cards[factor.child] = log.shape[-1] + 1
        sizes = [cards[name] for name in parents]
        full = torch.zeros(*sizes, cards[factor.child], dtype=torch.float64)
        full[tuple(slice(size) for size in log.shape)] = log.exp()
        full[..., -1] = full[..., :-1].sum(-1) == 0
        add(out, factor.child, parents, full, sizes)
        if factor.child in graph.soft:
            likelihoods.append((f"coin {factor.child}", [factor.child], row.evidence[factor.child]))
    scale = 0.0
    for coin, parents, log in likelihoods:
        top = float(log.max().clamp_min(-1e300))
        scale += top
        sizes = [cards[name] for name in parents]
        heads = torch.zeros(sizes, dtype=torch.float64)
        heads[tuple(slice(size) for size in log.shape)] = (log - top).exp()
        add(out, coin, parents, torch.stack([1 - heads, heads], -1), sizes)
    return out, [coin for coin, _, _ in likelihoods], scale


def add(out: Any, name: str, parents: list[str], table: Tensor, sizes: list[int]) -> None:
    from pgmpy.factors.discrete import TabularCPD

    out.add_node(name)
    out.add_edges_from((parent, name) for parent in parents)
    columns = table.reshape(prod(sizes), -1).T.tolist()
    card = table.shape[-1]
    out.add_cpds(
        TabularCPD(name, card, columns, parents, sizes)
        if parents
        else TabularCPD(name, card, columns)
    )


def log_table(problem: Problem, row: OneRow, name: str) -> Tensor:
    """log p(child | parents), of a feature its log density, to the power of the observation."""
    graph, table = problem.graph, problem.tables[name]
    power = getattr(graph.evidence(name), "power", 1.0) if name in graph.observed else 1.0
    if isinstance(table, LinearGaussianTable):
        grid = torch.meshgrid(*map(torch.arange, table.parents), indexing="ij")
        return power * MultivariateNormal(*table.gaussian(*grid)).log_prob(row.evidence[name])
    if not isinstance(table, GaussianTable):
        log = table.dense().log()
        return (log[..., int(row.evidence[name])] if name in graph.known else log) * power
    log = Normal(table.mean, table.std).log_prob(row.evidence[name]).sum(-1)
    return torch.where(table.possible, power * log, float("-inf"))
