"""Oracles and random problems for tests of engines, one's own included.

    @given(random_problem(random_graph()))
    def test_my_engine(problem):
        check_engine(MyEngine(), problem)

`random_graph` and `random_problem` are strategies of hypothesis, which they import when called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .graph import Mix, MixingGraph, Site, Source
from .infer.base import Engine, Posterior
from .tables.counts import Counts
from .tables.smoothing import Additive
from .tables.table import Table

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class BruteForce:
    """The whole joint posterior of one row.

    sites: latent sites. log_joint: log p(sites, evidence), nats, float64 [K_1, ..., K_n].
    """

    sites: tuple[str, ...]
    log_joint: Tensor

    @property
    def log_evidence(self) -> float:
        """log p(evidence), nats; -inf when it is impossible."""
        return float(self.log_joint.flatten().logsumexp(0))

    @property
    def joint(self) -> Tensor:
        """p(sites | evidence), [K_1, ..., K_n]; zeros when the evidence is impossible."""
        return (self.log_joint - max(self.log_evidence, torch.finfo(torch.float64).min)).exp()

    def marginal(self, name: str) -> Tensor:
        """p(site | evidence), [K]; zeros when the evidence is impossible."""
        joint = self.joint.movedim(self.sites.index(name), 0)
        return joint.reshape(len(joint), -1).sum(1)

    def log_probability(self, tokens: Mapping[str, int]) -> float:
        """log p(all latent sites = tokens, evidence), nats."""
        return float(self.log_joint[tuple(tokens[name] for name in self.sites)])


def brute_force(
    graph: MixingGraph,
    tables: Mapping[str, Table],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, int],
) -> BruteForce:
    """Multiply everything out in float64, with no cleverness at all.

    log_priors: {source: nats [K]}; evidence: {observed site: token}. Memory grows with the product
    of all latent alphabets: for toys.
    """
    sites = graph.latent
    sizes = {name: len(log_priors[name]) for name in graph.sources}
    for factor in graph.factors:
        sizes[factor.child] = tables[factor.name].alphabet
    log = torch.zeros([sizes[name] for name in sites], dtype=torch.float64)

    def spread(values: Tensor, names: tuple[str, ...]) -> Tensor:
        """Align a tensor over `names` with the axes of `log`."""
        order = sorted(range(len(names)), key=lambda axis: sites.index(names[axis]))
        values = values.permute(order)
        shape = iter(values.shape)
        return values.reshape([next(shape) if name in names else 1 for name in sites])

    for name in graph.sources:
        log = log + spread(log_priors[name].double(), (name,))
    for factor in graph.factors:
        array = tables[factor.name].dense().log()
        names = (*factor.parents, factor.child)
        for axis in reversed(range(len(names))):
            if names[axis] in evidence:
                array = array.select(axis, int(evidence[names[axis]]))
        left = tuple(name for name in names if name not in evidence)
        log = log + spread(array, left)
    return BruteForce(sites, log)


@dataclass(frozen=True)
class Problem:
    """One token position: log_priors {source: nats [M, C, K]}, evidence {observed site: [M]}."""

    graph: MixingGraph
    tables: Mapping[str, Table]
    log_priors: Mapping[str, Tensor]
    evidence: Mapping[str, Tensor]

    @property
    def shape(self) -> tuple[int, int]:
        """(M, C)."""
        m, c, _ = self.log_priors[self.graph.sources[0]].shape
        return m, c

    def posterior(self, engine: Engine, dtype: torch.dtype = torch.float64) -> Posterior:
        """The engine's answer to priors of the given type."""
        priors = {name: log.to(dtype) for name, log in self.log_priors.items()}
        return engine.plan(self.graph, self.tables).posterior(priors, self.evidence)

    def brute_force(self, mixture: int, candidate: int) -> BruteForce:
        """The truth about one row."""
        return brute_force(
            self.graph,
            self.tables,
            {name: log[mixture, candidate] for name, log in self.log_priors.items()},
            {name: int(tokens[mixture]) for name, tokens in self.evidence.items()},
        )


def check_engine(
    engine: Engine, problem: Problem, *, dtype: torch.dtype = torch.float64, tolerance: float = 1e-8
) -> None:
    """Hold an engine to brute force in every row: log evidence, marginals, mode, and a sample of
    positive probability. Raises AssertionError that says where they part.

    tolerance: absolute for marginals, to which a type's rounding of logarithms as large as the
    evidence is added; relative to max(1, |value|) for logarithms.
    """
    posterior = problem.posterior(engine, dtype)
    marginals, mode = posterior.marginals(), posterior.mode()
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    for row in product(*map(range, problem.shape)):
        truth = problem.brute_force(*row)
        place = f"in row {row} of {engine!r} on\n{problem.graph}"
        evidence = float(posterior.log_evidence[row])
        _near("log evidence", evidence, truth.log_evidence, tolerance, place)
        possible = truth.log_evidence > float("-inf")
        rounding = 16 * torch.finfo(dtype).eps * abs(truth.log_evidence) if possible else 0.0
        for name in truth.sites:
            found, wanted = marginals[name][row].double(), truth.marginal(name)
            near = (found - wanted).abs().max() <= tolerance + rounding
            assert near, f"p({name}) is {found}, expected {wanted}, {place}"
        best, some = ({k: int(v[row]) for k, v in tokens.items()} for tokens in (mode, drawn))
        if not possible:
            wrong = [tokens for tokens in (best, some) if set(tokens.values()) != {-1}]
            assert not wrong, f"expected -1 for impossible evidence, got {wrong}, {place}"
            continue
        peak = float(truth.log_joint.max())
        _near("log probability of the mode", truth.log_probability(best), peak, tolerance, place)
        possible = truth.log_probability(some) > float("-inf")
        assert possible, f"the sample {some} has probability zero {place}"


def _near(what: str, found: float, wanted: float, tolerance: float, place: str) -> None:
    near = found == wanted or abs(found - wanted) <= tolerance * max(1.0, abs(wanted))
    assert near, f"{what} is {found}, expected {wanted}, {place}"


def random_graph(max_sources: int = 6, tree: bool = True) -> SearchStrategy[MixingGraph]:
    """Mixing graphs of 1 to `max_sources` sources, factors of one to three parents, latent and
    observed partial mixtures; with `tree` false also with cycles."""
    from hypothesis import strategies as st

    @st.composite
    def build(draw: Any) -> MixingGraph:
        def pick(names: list[str], least: int, most: int) -> tuple[str, ...]:
            size = draw(st.integers(min(least, len(names)), min(most, len(names))))
            return tuple(draw(st.permutations(names))[:size])

        sites: list[Site] = []
        used: set[str] = set()

        def add(parents: tuple[str, ...]) -> str:
            name = f"mix_{sum(isinstance(site, Mix) for site in sites) + 1}"
            sites.append(Mix(name, parents, (1 / len(parents),) * len(parents)))
            used.update(parents)
            return name

        free = [f"source_{i + 1}" for i in range(draw(st.integers(1, max_sources)))]
        sites += [Source(name) for name in free]
        while len(free) > 1 or len(sites) == 1:
            parents = pick(free, 2, 3)
            free = [name for name in free if name not in parents] + [add(parents)]
        for _ in range(draw(st.integers(0, 2))):
            add(pick([site.name for site in sites], 1, 1 if tree else 3))
        mixed = [site.name for site in sites if isinstance(site, Mix)]
        observed = {name for name in mixed if name not in used} | set(pick(mixed, 0, 1))
        return MixingGraph("random", tuple(sites), tuple(n for n in mixed if n in observed))

    return build()


def random_problem(
    graphs: SearchStrategy[MixingGraph],
    min_alphabet: int = 1,
    max_alphabet: int = 6,
    max_states: int = 4096,
    max_depth: float = 500,
) -> SearchStrategy[Problem]:
    """Problems on drawn graphs: mixed alphabets within bounds with at most about `max_states`
    joint states, counted tables with many zeros, smoothed or not, priors that are flat or up to
    `max_depth` nats deep and partly -inf, and evidence that may be impossible."""
    from hypothesis import strategies as st

    @st.composite
    def build(draw: Any) -> Problem:
        graph = draw(graphs)
        sizes, room = graph.alphabets(), max_states
        free = [name for name in (*graph.observed, *graph.latent) if name not in sizes]
        for place, name in enumerate(free, 1):
            latent = name in graph.latent
            most = room // 2 ** (len(free) - place) if latent else max_alphabet
            most = max(2, min_alphabet, min(max_alphabet, most))
            sizes[name] = draw(st.integers(min_alphabet, most))
            room //= sizes[name] if latent else 1
        random = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=random, dtype=torch.float64)

        density, smoothing = draw(st.sampled_from([0.2, 0.6, 1.0])), draw(st.booleans())
        tables = {}
        for factor in graph.factors:
            shape = [sizes[name] for name in (*factor.parents, factor.child)]
            counts = (1000 ** uniform(*shape)).long() * (uniform(*shape) < density)
            counts.view(-1)[0] += not counts.any()
            prior = Additive(0.1) if smoothing else None
            tables[factor.name] = Table.from_counts(Counts.from_dense(counts), prior)
        m, c = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        depth = min(max_depth, draw(st.sampled_from([1, 10, max_depth])))
        zeros = draw(st.sampled_from([0.0, 0.3]))
        log_priors = {}
        for name in graph.sources:
            log = (depth * uniform(m, c, sizes[name])).log_softmax(-1)
            log_priors[name] = log.masked_fill(uniform(*log.shape) < zeros, float("-inf"))
        evidence = {}
        for name in graph.observed:
            seen = tables[name].seen().nonzero()[:, 0]
            evidence[name] = seen[torch.randint(len(seen), (m,), generator=random)]
        return Problem(graph, tables, log_priors, evidence)

    return build()
