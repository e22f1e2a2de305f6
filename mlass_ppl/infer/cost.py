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
    """Enumerating every joint state of the latent sites."""
    states = float(prod(sizes.get(name, 1) for name in graph.latent))
    return Cost(states * max(1, len(graph.factors) + len(graph.sources)), states)


def bp_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    """One upward pass: each factor is reduced over its latent sites."""
    cells = [
        float(prod(sizes[name] for name in factor.scope if name not in graph.observed))
        for factor in graph.factors
    ]
    return Cost(sum(cells), max(cells))


def extractor_cost(graph: MixingGraph, sizes: Mapping[str, int]) -> Cost:
    states = float(sum(sizes[name] for name in graph.sources))
    return Cost(states * len(graph.observed), states)


def cost_lines(graph: MixingGraph, sizes: Mapping[str, int]) -> list[str]:
    """A line for each engine, or one that says what is missing."""
    if any(site.name not in sizes for site in graph.sites):
        return ["  cost: alphabets unknown; pass describe(alphabet=256)"]
    tree = f"  BP         {bp_cost(graph, sizes)} (exact: the graph is a tree)"
    cycle = graph.cycle()
    if cycle is not None:
        tree = f"  BP         refuses: cycle {' - '.join([*cycle, cycle[0]])}"
    return [
        f"  Exact      {exact_cost(graph, sizes)}",
        tree,
        f"  Extractor  {extractor_cost(graph, sizes)} (each source on its own)",
    ]
