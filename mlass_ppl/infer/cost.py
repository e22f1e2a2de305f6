"""What an engine needs for one token of one candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graph import MixingGraph


@dataclass(frozen=True)
class Cost:
    """operations: multiplications for each token and candidate, tables taken as dense.
    states: numbers held at once for each candidate."""

    operations: float
    states: float

    def __str__(self) -> str:
        return f"{_short(self.operations)} operations, {_short(self.states)} states a token"


def _short(value: float) -> str:
    return f"{value:.0f}" if value < 1e4 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def exact_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    """Variable elimination, each step over all joint states of its clique."""
    from .elimination.order import buckets

    steps = buckets(graph, sizes)
    operations = sum(bucket.operations(sizes) for bucket in steps)
    return Cost(operations, max(bucket.states(sizes) for bucket in steps))


def bp_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    """One upward pass: each factor is reduced over its latent sites."""
    cells = _cells(graph, sizes)
    return Cost(sum(cells), max(cells))


def loopy_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    """One step: each factor is reduced once for each of its latent sites."""
    latent = [len(set(factor.tokens) & set(graph.latent)) for factor in graph.factors]
    cells = _cells(graph, sizes)
    return Cost(sum(n * size for n, size in zip(latent, cells, strict=True)), max(cells))


def truncated_cost(graph: MixingGraph, sizes: Mapping[str, int], keep: int) -> Cost:
    """All pairs of the tuples on the lists of two groups, each of up to `keep` tuples."""
    from .shortlist import halves

    pairs = 1.0
    for group in halves(graph.sources):
        pairs *= min(keep, prod(sizes[name] for name in group))
    return Cost(pairs, pairs)


def extractor_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    states = float(sum(sizes[name] for name in graph.sources))
    return Cost(states * len(graph.observed), states)


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
        float(prod(sizes[name] for name in factor.tokens if name in graph.latent))
        for factor in graph.factors
    ]
