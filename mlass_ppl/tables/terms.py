"""The parts of which a linear feature's table is put together."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import Factor, MixingGraph


@dataclass(frozen=True)
class Term:
    """weight * (signal of `site`) in the signal of a factor's child. given: whether the table is
    conditioned on the site's token; else it is averaged over the site."""

    site: str
    weight: float
    given: bool


def terms(graph: MixingGraph, factor: Factor) -> tuple[Term, ...]:
    """The child's signal as a sum: the factor's parents in their order, and then the sources that
    none of them holds. The parents hold no source in common (`MixingGraph` sees to that)."""
    left = graph.leaf_weights(factor.child)
    out = []
    for parent in factor.parents:
        own = graph.leaf_weights(parent)
        leaf = next(iter(own))
        out.append(Term(parent, left[leaf] / own[leaf], True))
        left = {name: weight for name, weight in left.items() if name not in own}
    return (*out, *(Term(name, weight, False) for name, weight in left.items()))
