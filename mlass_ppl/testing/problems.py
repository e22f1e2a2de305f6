"""Random mixing graphs and problems on them, as strategies of hypothesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import EngineError
from ..evidence import Evidence, Feature, Soft, Token
from ..graph import Factor, Mix, MixingGraph, Site, Source
from ..infer.base import Engine, Posterior
from ..tables.smoothing import Additive, BackOff
from ..tables.table import Table
from ._draws import Draws
from ._hypothesis import strategies
from .brute import BruteForce, brute_force

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from ..infer.base import AnyTable


@dataclass(frozen=True)
class Problem:
    """One token position: log_priors {source: nats [M, C, K]}; evidence {observed site: tokens
    int64 [M], log weights [M, K] or features [M, D]}, as the graph declares."""

    graph: MixingGraph
    tables: Mapping[str, AnyTable]
    log_priors: Mapping[str, Tensor]
    evidence: Mapping[str, Tensor]

    @property
    def shape(self) -> tuple[int, int]:
        """(M, C)."""
        m, c, _ = self.log_priors[self.graph.sources[0]].shape
        return m, c

    @property
    def rows(self) -> list[tuple[int, int]]:
        """All (mixture, candidate)."""
        return [(m, c) for m in range(self.shape[0]) for c in range(self.shape[1])]

    @property
    def sizes(self) -> dict[str, int]:
        """K of each site that has a token."""
        sizes = {name: log.shape[-1] for name, log in self.log_priors.items()}
        for factor in self.graph.factors:
            table = self.tables[factor.name]
            if isinstance(table, Table):
                sizes[factor.child] = table.alphabet
        return sizes

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
            {name: given[mixture] for name, given in self.evidence.items()},
        )

    def select(self, mixtures: Sequence[int], candidates: Sequence[int]) -> Problem:
        """Some of the rows, in any order and with repetitions."""
        rows, columns = list(mixtures), list(candidates)
        return replace(
            self,
            log_priors={name: log[rows][:, columns] for name, log in self.log_priors.items()},
            evidence={name: given[rows] for name, given in self.evidence.items()},
        )

    def describe(self, mixture: int, candidate: int) -> str:
        """The graph, the alphabets and what is given in one row, as text."""
        lines = self.graph.describe(self.sizes).splitlines()[: 1 + len(self.graph.sites)]
        for name in self.graph.sources:
            lines.append(f"  log p({name}) = {_numbers(self.log_priors[name][mixture, candidate])}")
        for name in self.graph.observed:
            kind, given = self.graph.evidence(name), self.evidence[name][mixture]
            lines.append(f"  {name} = {_numbers(given)}, {kind!r}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        m, c = self.shape
        return f"<Problem of {m} x {c} rows on {self.graph!r}>"


def _numbers(values: Tensor) -> str:
    return str([round(x, 4) for x in values.tolist()] if values.ndim else values.item())


def random_graph(
    max_sources: int = 8, tree: bool = True, evidence: bool = True
) -> SearchStrategy[MixingGraph]:
    """Mixing graphs of 1 to `max_sources` sources.

    Mixtures have one to three parents, some of them a hidden part as well; partial mixtures are
    latent or observed. tree: no cycle among the latent sites; else several mixtures of the same
    sites (stereo), sources that feed several mixtures, and latent cycles. evidence: of all three
    kinds and with powers; else tokens as they are.
    """
    st = strategies()
    # Each list begins with the plainest choice, towards which failing examples shrink.
    kinds: list[Evidence] = [Token()]
    if evidence:
        kinds += [Soft(), Feature(), Token(0.5), Token(2.0), Feature(0.3)]
        kinds += [Feature(linear=True), Feature(0.3, linear=True)]

    @st.composite
    def build(draw: Any) -> MixingGraph:
        def pick(names: list[str], least: int, most: int) -> list[str]:
            size = draw(st.integers(min(least, len(names)), min(most, len(names))))
            return list(draw(st.permutations(names))[:size])

        sources = [f"source_{i + 1}" for i in range(draw(st.integers(1, max_sources)))]
        mixtures: list[Mix] = []

        def add(parts: list[str]) -> str:
            hidden = parts[1:2] if draw(st.integers(0, 9)) == 9 else []
            parents = [name for name in parts if name not in hidden]
            name = f"mix_{len(mixtures) + 1}"
            weights = (1 / len(parts),) * len(parts)
            kind = draw(st.sampled_from(kinds))
            mixtures.append(Mix(name, tuple(parents), weights, tuple(hidden), evidence=kind))
            return name

        free = list(sources)
        while len(free) > 1 or not mixtures:
            parts = pick(free, 2, 3)
            free = [name for name in free if name not in parts] + [add(parts)]
        trunk = len(mixtures)
        for _ in range(draw(st.integers(0, 2) if tree else st.integers(1, 3))):
            again = None if tree else draw(st.sampled_from([None, *mixtures[:trunk]]))
            names = [*sources, *(site.name for site in mixtures)]
            add(
                pick(names, 1 if tree else 2, 3)
                if again is None
                else [*again.parents, *again.hidden]
            )
        heard = pick([site.name for site in mixtures], 0, 1)
        graph = _assemble(sources, mixtures, heard)
        for place in reversed(range(trunk, len(mixtures))):
            if tree and not graph.is_tree:  # one parent each closes no cycle
                site = mixtures[place]
                mixtures[place] = replace(site, parents=site.parents[:1], hidden=(), weights=(1.0,))
                graph = _assemble(sources, mixtures, heard)
        return graph

    return build()


def _assemble(sources: list[str], mixtures: list[Mix], heard: list[str]) -> MixingGraph:
    """A graph that observes `heard` and whatever is part of nothing else."""
    used = {part for site in mixtures for part in (*site.parents, *site.hidden)}
    parents = {part for site in mixtures for part in site.parents}
    observed = tuple(site.name for site in mixtures if site.name not in used or site.name in heard)
    sites: list[Site] = [Source(name) for name in sources]
    leaves = {name: {name} for name in sources}
    for site in mixtures:
        parts = [leaves[part] for part in (*site.parents, *site.hidden)]
        leaves[site.name] = set().union(*parts)
        kind = site.evidence
        token = isinstance(kind, Feature) and site.name in parents  # has to have one
        if site.name not in observed or token:
            kind = Token()
        elif isinstance(kind, Feature) and len(leaves[site.name]) < sum(map(len, parts)):
            kind = replace(kind, linear=False)  # its parts are not independent
        sites.append(replace(site, evidence=kind))
    return MixingGraph("random", tuple(sites), observed)


def random_problem(
    graphs: SearchStrategy[MixingGraph],
    min_alphabet: int = 1,
    max_alphabet: int = 6,
    max_states: int = 2**12,
    max_depth: float = 500,
    engine: Engine | None = None,
) -> SearchStrategy[Problem]:
    """Problems on drawn graphs.

    Alphabets are mixed and shrink as a graph grows, so that it has at most `max_states` joint
    states (or the fewest that `min_alphabet` allows). Tables have zeros, or are smoothed by
    `Additive` or `BackOff`; Gaussian ones have impossible rows, linear ones are full or diagonal.
    Priors are flat or up to
    `max_depth` nats deep, partly -inf; evidence may be impossible, while its tokens occur in their
    tables. engine: also gives the tables that this engine asks for beside the graph's own.
    """
    st = strategies()

    @st.composite
    def build(draw: Any) -> Problem:
        graph = draw(graphs)
        draws = Draws(draw(st.integers(0, 2**31 - 1)))
        sizes, room = graph.alphabets(), max_states
        latent = draws.shuffled([name for name in graph.latent if name not in sizes])
        for place, name in enumerate(latent, 1):
            most = min(max_alphabet, room // 2 ** (len(latent) - place))
            sizes[name] = draw(st.integers(min_alphabet, max(min_alphabet, most)))
            room //= sizes[name]
        for name in graph.known:
            sizes.setdefault(name, draw(st.integers(min_alphabet, max_alphabet)))
        density = draw(st.sampled_from([1.0, 0.6, 0.2]))
        tables: dict[str, AnyTable] = {}
        for factor in graph.factors:
            smoothing = draw(st.sampled_from([None, Additive(0.1), BackOff(2.0)]))
            tables[factor.name] = draws.table(factor, sizes, density, smoothing)
        for factor in _others(graph, engine):
            tables[factor.name] = draws.table(factor, sizes, density, Additive(0.1))
        m, c = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        depth = min(max_depth, draw(st.sampled_from([1, 10, max_depth])))
        zeros = draw(st.sampled_from([0.0, 0.3]))
        log_priors = {
            name: draws.log_weights((m, c, sizes[name]), depth, zeros) for name in graph.sources
        }
        evidence = draws.evidence(graph, tables, log_priors, depth, zeros)
        return Problem(graph, tables, log_priors, evidence)

    return build()


def _others(graph: MixingGraph, engine: Engine | None) -> list[Factor]:
    """Tables that an engine needs beside the graph's own; none where it refuses the graph."""
    if engine is None:
        return []
    own = {factor.name for factor in graph.factors}
    try:
        return [factor for factor in engine.factors(graph) if factor.name not in own]
    except EngineError:
        return []
