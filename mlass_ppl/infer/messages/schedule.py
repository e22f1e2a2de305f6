"""The order in which messages travel on a forest of factors and latent sites."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import EngineError
from ...graph import Factor, MixingGraph


@dataclass(frozen=True)
class Step:
    """One message of the upward pass: `factor` tells `target` what lies below it.

    others: the factor's other latent sites, parents first: a table is stored by parents, and what
    is drawn from the root down is then read in the order of its cells. given: its sites whose token
    is given.
    """

    factor: Factor
    target: str
    others: tuple[str, ...]
    given: tuple[str, ...]

    def axis(self, name: str) -> int:
        return self.factor.scope.index(name)


@dataclass(frozen=True)
class Schedule:
    """roots: one latent site a tree. upward: steps from the leaves to the roots; reversed, they
    lead from the roots down. constants: factors whose tokens are all given."""

    roots: tuple[str, ...]
    upward: tuple[Step, ...]
    constants: tuple[Factor, ...]


def schedule(graph: MixingGraph, factors: tuple[Factor, ...]) -> Schedule:
    """Schedule of a graph. Raises EngineError that names the cycle when it is no forest.

    The root of each tree is its first declared latent site: on a chain that is the first source,
    so that the evidence travels backward (beta) and samples are drawn forward.
    """
    if cycle := graph.cycle():
        path = " - ".join([*cycle, cycle[0]])
        raise EngineError(
            f"BP() needs a tree; '{graph.name}' has the cycle {path}. Use LoopyBP() or Exact(), or "
            "drop one of the mixtures on the cycle."
        )
    latent = set(graph.latent)
    around: dict[str, list[Factor]] = {name: [] for name in graph.latent}
    for factor in factors:
        for name in factor.tokens:
            if name in latent:
                around[name].append(factor)
    upward: list[Step] = []
    visited: set[str] = set()

    def visit(name: str, above: Factor | None) -> None:
        visited.add(name)
        for factor in around[name]:
            if factor is above:
                continue
            family = (*(p for p in factor.tokens if p != factor.child), factor.child)
            others = tuple(part for part in family if part in latent and part != name)
            for other in others:
                visit(other, factor)
            given = tuple(part for part in factor.tokens if part not in latent)
            upward.append(Step(factor, name, others, given))

    roots = []
    for name in graph.latent:
        if name not in visited:
            roots.append(name)
            visit(name, None)
    constants = tuple(factor for factor in factors if not latent & set(factor.tokens))
    return Schedule(tuple(roots), tuple(upward), constants)
