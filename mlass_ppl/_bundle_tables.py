"""The tables of a bundle: what they are made of, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .codecs.encoding import tokens_of
from .errors import TableError
from .graph import Factor, Mix, MixingGraph
from .tables import (
    AnyCounts,
    AnyTable,
    CellMoments,
    GaussianTable,
    LinearGaussianTable,
    Moments,
    Recipe,
    Table,
)
from .tables.terms import terms

if TYPE_CHECKING:
    from .bundle import Bundle


def shapes(bundle: Bundle, graph: MixingGraph, factor: Factor) -> list[tuple[int, ...]]:
    """The alphabets that each of the factor's recipes is to be counted for."""

    def alphabet(name: str) -> int:
        return bundle.codec_of(graph, name).alphabet

    if factor.linear:
        return [(alphabet(term.site),) for term in terms(graph, factor)]
    names = factor.parents if factor.feature else (*factor.parents, factor.child)
    return [tuple(alphabet(name) for name in names)]


def is_counted(counts: AnyCounts | None, shape: tuple[int, ...]) -> bool:
    """Whether anything was counted for these alphabets."""
    return counts is not None and len(counts.keys) > 0 and counts.shape == shape


def how_counted(
    bundle: Bundle, recipe: Recipe, counts: AnyCounts, mixtures: int, seed: int
) -> dict[str, Any]:
    """The facts that a card tells of a table that was counted."""
    if isinstance(counts, CellMoments) and len(recipe.leaves) == 1:  # each signal once
        return {"signals": counts.samples // tokens_of(bundle.codec)}
    return {"mixtures": mixtures, "seed": seed}


def is_symmetric(graph: MixingGraph, factor: Factor) -> bool:
    """Whether the factor's parents are those that its site declares exchangeable."""
    site = graph.site(factor.child)
    return isinstance(site, Mix) and site.symmetric and factor.parents == site.parents


def make_table(bundle: Bundle, graph: MixingGraph, factor: Factor) -> AnyTable:
    """The factor's table from what was counted. Raises TableError where that is missing, or of
    other alphabets."""
    needed = zip(bundle.recipes(graph, factor), shapes(bundle, graph, factor), strict=True)
    found = [_found(bundle, graph, factor, recipe, shape) for recipe, shape in needed]
    if factor.linear:
        cells = [counts for counts in found if isinstance(counts, CellMoments)]
        parts = list(zip(terms(graph, factor), cells, strict=True))
        return LinearGaussianTable.from_cells(
            [counts for term, counts in parts if term.given],
            [term.weight for term, _ in parts if term.given],
            bundle.shrink,
            hidden=[(counts, term.weight) for term, counts in parts if not term.given],
        )
    counts = found[0]
    assert not isinstance(counts, CellMoments)  # its recipe is none of cells
    if is_symmetric(graph, factor):
        counts = counts.symmetrised()
    if isinstance(counts, Moments):
        return GaussianTable.from_moments(counts, bundle.shrink)
    return Table.from_counts(counts, bundle.smoothing)


def _found(
    bundle: Bundle, graph: MixingGraph, factor: Factor, recipe: Recipe, shape: tuple[int, ...]
) -> AnyCounts:
    counts = bundle.counts.get(recipe)
    command = f"mlass count --program FILE --bundle {bundle.path or bundle.name}"
    smoothed = bundle.smoothing is not None and not factor.feature
    if counts is None or not (len(counts.keys) or smoothed):
        raise TableError(
            f"bundle '{bundle.name}' has no table for '{factor.name}' of '{graph.name}' "
            f"({recipe}).\n  Count it: {command}"
        )
    if counts.shape != shape:
        raise TableError(
            f"the table of '{factor.name}' was counted for alphabets {counts.shape}, but "
            f"the codec of '{bundle.name}' needs {shape}.\n  Count it for this codec: "
            f"{command} --force"
        )
    return counts
