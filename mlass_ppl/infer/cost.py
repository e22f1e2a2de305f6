"""What an engine needs for one token of one candidate: operations and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ..tables import AnyTable, FeatureTable

if TYPE_CHECKING:
    from ..graph import MixingGraph

_BLOCK = 1 << 27
"""Bytes of intermediate results that kernels make at once; of more rows they take some at a time.
"""


@dataclass(frozen=True)
class Cost:
    """operations: multiplications for each token and candidate. states: joint states that are
    visited at once for each candidate.

    Bytes: held by tables and lists, whatever the batch; mixture: more for each mixture; candidate:
    more for each of its candidates; block: intermediate results of a candidate, which are made for
    some candidates at a time. An estimate from sizes, of sampling in 32 bits (64 with features).
    """

    operations: float
    states: float
    held: float = 0.0
    mixture: float = 0.0
    candidate: float = 0.0
    block: float = 0.0

    def bytes(self, mixtures: int = 1, candidates: int = 1) -> float:
        """Memory that mixtures with so many candidates each take together."""
        rows = mixtures * candidates
        block = max(self.block, min(self.block * rows, _BLOCK))
        return self.held + block + self.mixture * mixtures + self.candidate * rows

    def __str__(self) -> str:
        return f"{_short(self.operations)} operations, {_short(self.states)} states a token"


def _short(value: float) -> str:
    return f"{value:.0f}" if value < 1e4 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def item_size(graph: MixingGraph) -> int:
    """Bytes of a number: densities of features lie too far apart for 32 bits."""
    return 8 if graph.features else 4


def priors_bytes(graph: MixingGraph, sizes: Mapping[str, int]) -> float:
    """Of each candidate's log weights as given and as weights, before and after candidates are
    resampled, and of drawing from them in 64 bits."""
    own = [name for name in graph.latent if name in {*graph.sources, *graph.soft}]
    total = sum(sizes.get(name, 1) for name in own)
    widest = max(sizes.get(name, 1) for name in graph.latent)
    return 4.0 * item_size(graph) * total + 32.0 * widest


def likelihood_bytes(graph: MixingGraph, sizes: Mapping[str, int]) -> float:
    """Of each mixture's densities of what is observed as a feature, in logarithms and lifted."""
    factors = [factor for factor in graph.factors if factor.feature]
    return sum(24.0 * prod(sizes.get(name, 1) for name in factor.parents) for factor in factors)


def kernel_bytes(table: AnyTable, dense: bool, item: int) -> float:
    """Of a table and its kernel: all cells, or those that were seen in one order for each axis, and
    the background that smoothing adds."""
    if isinstance(table, FeatureTable):
        return float(table.nbytes)
    if dense:
        return float(item * table.size)
    held = float(len(table.keys)) * (len(table.shape) + 1) * (8 + item)
    if table.background is not None:
        held += 2 * item * sum(part.numel() for part in table.background.tables)
        held += 8.0 * min(prod(table.shape[:-1]), 1 << 24)  # shares; of more, the seen ones alone
    return held


def exact_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    """Variable elimination, each step over all joint states of its clique."""
    from .elimination.order import buckets

    steps = buckets(graph, sizes)
    states = [bucket.states(sizes) for bucket in steps]
    return Cost(
        sum(bucket.operations(sizes) for bucket in steps),
        max(states),
        mixture=sum(16.0 * (len(b.clique) + 2) * n for b, n in zip(steps, states, strict=True)),
        candidate=priors_bytes(graph, sizes),
        block=2.0 * item_size(graph) * max(states),
    )


def bp_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    """One upward pass: each factor is reduced over its latent sites."""
    cells = _cells(graph, sizes)
    return Cost(
        sum(cells),
        max(cells),
        mixture=likelihood_bytes(graph, sizes),
        candidate=priors_bytes(graph, sizes),
    )


def loopy_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    """One step: each factor is reduced once for each of its latent sites. Messages are kept in both
    directions, new ones beside old ones."""
    latent = [
        [sizes.get(name, 1) for name in factor.tokens if name in graph.latent]
        for factor in graph.factors
    ]
    cells = _cells(graph, sizes)
    return Cost(
        sum(len(scope) * size for scope, size in zip(latent, cells, strict=True)),
        max(cells),
        mixture=likelihood_bytes(graph, sizes),
        candidate=priors_bytes(graph, sizes) + 4.0 * item_size(graph) * sum(map(sum, latent)),
    )


def truncated_cost(graph: MixingGraph, sizes: Mapping[str, int], keep: int) -> Cost:
    """All pairs of the tuples on the lists of two groups, each of up to `keep` tuples."""
    from .shortlist import halves

    groups = halves(graph.sources)
    lists = [float(min(keep, prod(sizes.get(name, 1) for name in group))) for group in groups]
    pairs = prod(lists)
    return Cost(
        pairs,
        pairs,
        mixture=16.0 * pairs,
        candidate=priors_bytes(graph, sizes) + 24.0 * sum(lists),
        block=8.0 * max(lists),
    )


def extractor_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    states = float(sum(sizes.get(name, 1) for name in graph.sources))
    return Cost(states * len(graph.observed), states, candidate=priors_bytes(graph, sizes))


def cost_lines(graph: MixingGraph, sizes: Mapping[str, int]) -> list[str]:
    """A line for each engine, or one that says what is missing."""
    if any(name not in sizes for name in (*graph.latent, *graph.known)):
        return ["  cost: alphabets unknown; pass describe(alphabet=256)"]
    from .flat import KEEP, refusal

    lines = [f"  Exact      {exact_cost(graph, sizes)}"]
    cycle = graph.cycle()
    if cycle is None:
        lines.append(f"  BP         {bp_cost(graph, sizes)} (exact: the graph is a tree)")
    else:
        lines.append(f"  BP         refuses: cycle {' - '.join([*cycle, cycle[0]])}")
        lines.append(f"  LoopyBP    {loopy_cost(graph, sizes)}, for each step (approximate)")
    if refusal(graph) is None and len(graph.sources) > 1:
        lines.append(f"  Truncated  {truncated_cost(graph, sizes, KEEP)} (the promising tuples)")
    lines.append(f"  Extractor  {extractor_cost(graph, sizes)} (each source on its own)")
    return lines


def _cells(graph: MixingGraph, sizes: Mapping[str, int]) -> list[float]:
    """Joint states of each factor's latent sites."""
    return [
        float(prod(sizes.get(name, 1) for name in factor.tokens if name in graph.latent))
        for factor in graph.factors
    ]
