"""The order in which messages travel on a graph with cycles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from ...graph import Factor
from .schedule import Step


@dataclass(frozen=True)
class Sweep:
    """One round in which every factor sends one message to each of its latent sites.

    sites: the latent ones, in the order of a depth-first search. upward: messages to sites that
    were found before their factor, latest factor first; downward: the others, earliest first. On a
    forest each message thus leaves after all that it depends on, and one sweep is exact. cyclic:
    (factor, site) of the messages that lie on a cycle. constants: factors whose tokens are all
    given.
    """

    sites: tuple[str, ...]
    upward: tuple[Step, ...]
    downward: tuple[Step, ...]
    cyclic: frozenset[tuple[str, str]]
    constants: tuple[Factor, ...]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return self.upward + self.downward

    @cached_property
    def around(self) -> dict[str, tuple[str, ...]]:
        """Names of the factors around each latent site."""
        return {
            name: tuple(step.factor.name for step in self.steps if step.target == name)
            for name in self.sites
        }

    @cached_property
    def above(self) -> dict[str, Step]:
        """On a forest: the message to each site from the factor through which it was found."""
        return {step.target: step for step in self.downward}

    @cached_property
    def cut(self) -> str | None:
        """The site whose removal opens most cycles, None on a forest."""
        counts = Counter(site for _, site in self.cyclic)
        return max(self.sites, key=lambda name: counts[name]) if counts else None


def sweep(factors: tuple[Factor, ...], latent: Collection[str]) -> Sweep:
    """Sweep over the latent sites; all others are given."""
    scopes = {factor: [name for name in factor.tokens if name in latent] for factor in factors}
    around = {name: [f for f, scope in scopes.items() if name in scope] for name in latent}
    found: dict[str | Factor, int] = {}

    def visit(node: str | Factor) -> None:
        found[node] = len(found)
        for other in around[node] if isinstance(node, str) else scopes[node]:
            if other not in found:
                visit(other)

    for name in latent:
        if name not in found:
            visit(name)
    steps = [
        Step(
            factor,
            target,
            tuple(name for name in scope if name != target),
            tuple(name for name in factor.tokens if name not in latent),
        )
        for factor, scope in scopes.items()
        for target in scope
    ]
    up = [step for step in steps if found[step.target] < found[step.factor]]
    down = [step for step in steps if found[step.target] > found[step.factor]]
    return Sweep(
        tuple(node for node in found if isinstance(node, str)),
        tuple(sorted(up, key=lambda step: -found[step.factor])),
        tuple(sorted(down, key=lambda step: found[step.factor])),
        _cyclic(scopes),
        tuple(factor for factor, scope in scopes.items() if not scope),
    )


def _cyclic(scopes: dict[Factor, list[str]]) -> frozenset[tuple[str, str]]:
    """Edges whose removal would not fall the graph apart."""
    import networkx as nx

    edges = {(factor.name, name) for factor, scope in scopes.items() for name in scope}
    graph = nx.Graph((("factor", factor), ("site", name)) for factor, name in edges)
    bridges = {frozenset(edge) for edge in nx.bridges(graph)}
    return frozenset(
        edge for edge in edges if frozenset([("factor", edge[0]), ("site", edge[1])]) not in bridges
    )
