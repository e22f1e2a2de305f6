"""What has to be encoded and counted for a graph's tables, by recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..graph import Factor, MixingGraph
from .recipe import Recipe
from .terms import terms


@dataclass(frozen=True)
class Encoding:
    """The signal of one site as the codec of a site, `reader`, encodes it: tokens or features."""

    signal: str
    reader: str
    tokens: bool


@dataclass(frozen=True)
class Job:
    """What is counted for one recipe: `heard` given the tokens of `given`; tokens as `Counts`,
    features as `Moments` or, where they are cells, `CellMoments`.

    alone: the source that is the whole signal, so that nothing needs mixing; None where
    there are more.
    """

    given: tuple[Encoding, ...]
    heard: Encoding
    cells: bool = False
    alone: str | None = None

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        return (*self.given, self.heard)


def recipes_of(
    graph: MixingGraph, factor: Factor, kind: Callable[[str], str]
) -> tuple[Recipe, ...]:
    """The recipe of a factor's table; of a linear feature, those of the cells of its `terms`, in
    their order. `kind` names what a source is drawn from."""
    if not factor.linear:
        return (Recipe.of(graph, factor, kind),)
    return tuple(
        Recipe.of_cells(graph, term.site, factor.child, kind) for term in terms(graph, factor)
    )


def jobs_of(
    graph: MixingGraph, factors: Iterable[Factor], kind: Callable[[str], str]
) -> dict[Recipe, Job]:
    """What these factors need, in their order."""
    out: dict[Recipe, Job] = {}
    for factor in factors:
        recipes = recipes_of(graph, factor, kind)
        if not factor.linear:
            given = tuple(_tokens(name) for name in factor.parents)
            heard = Encoding(factor.child, factor.child, not factor.feature)
            out.setdefault(recipes[0], Job(given, heard))
            continue
        for term, recipe in zip(terms(graph, factor), recipes, strict=True):
            leaves = list(graph.leaf_weights(term.site))
            alone = leaves[0] if len(leaves) == 1 else None
            heard = Encoding(term.site, factor.child, tokens=False)
            out.setdefault(recipe, Job((_tokens(term.site),), heard, True, alone))
    return out


def _tokens(name: str) -> Encoding:
    return Encoding(name, name, tokens=True)
