"""The possible cells of one factor, cut down to what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from ...graph import Factor
from ...tables.feature import FeatureTable
from ...tables.table import Table
from .support import Allow, Input, Support, matches, sort_keys


class Cells(Protocol):
    """A factor's cells. given: those of its sites whose tokens are given."""

    given: tuple[str, ...]

    def where(self, evidence: Mapping[str, int]) -> Support:
        """The cells that agree with the evidence, over the factor's other sites."""
        ...

    def frequent(self, known: Mapping[str, int], beside: Sequence[Support]) -> int:
        """The token of the child that has the most cells, among those that agree with tokens which
        are known already and, site by site, with some state of each list."""
        ...


def cells_of(
    factor: Factor, table: Table | FeatureTable, known: Sequence[str], allow: Allow
) -> Cells:
    """Cells of a table, where the tokens of the `known` sites will be given.

    allow: called with the number of cells before they are listed.
    """
    if isinstance(table, Table) and table.background is not None and factor.child in known:
        return SmoothedCells(factor, table, known, allow)
    return ListedCells(factor, table, known, allow)


class ListedCells:
    """All positive cells, sorted by the given sites.

    Of a feature's table, whose values differ from mixture to mixture, they are what parents are
    possible; `Support.places` says where in the likelihoods [K_parent1, ...] each is.
    """

    def __init__(
        self,
        factor: Factor,
        table: Table | FeatureTable,
        known: Sequence[str],
        allow: Allow,
    ) -> None:
        names = factor.parents if factor.feature else (*factor.parents, factor.child)
        places: dict[Input, Tensor] = {}
        if isinstance(table, FeatureTable):
            shape: tuple[int, ...] = table.parents
            allow(prod(shape), names)
            places[factor.name] = cell = table.possible_cells()
            index = torch.stack(torch.unravel_index(cell, shape))
            log = torch.zeros(len(cell), dtype=torch.float64)
        else:
            shape = table.shape
            allow(len(table.keys) if table.background is None else table.size, names)
            index, probability = table.entries()
            log = probability.log()
        given = [axis for axis, name in enumerate(names) if name in known]
        free = [axis for axis, name in enumerate(names) if name not in known]
        self.given = tuple(names[axis] for axis in given)
        self._sizes = tuple(shape[axis] for axis in given)
        self._alphabets = dict(zip(names, shape, strict=True))
        key = sort_keys(index[given], self._sizes)
        order = key.argsort(stable=True)
        self._key, self._tokens = key[order], index[given][:, order]
        free_names = tuple(names[axis] for axis in free)
        self._support = Support(free_names, index[free], log, places).take(order)

    def where(self, evidence: Mapping[str, int]) -> Support:
        if not self.given:
            return self._support
        wanted = torch.tensor([[evidence[name]] for name in self.given])
        ends = sort_keys(wanted, self._sizes) + torch.arange(2)
        begin, end = torch.searchsorted(self._key, ends).tolist()
        return self._support.take(slice(begin, end))

    def frequent(self, known: Mapping[str, int], beside: Sequence[Support]) -> int:
        keep = torch.ones(len(self._key), dtype=torch.bool)
        for name, tokens in zip(self.given, self._tokens, strict=True):
            if name in known:
                keep &= tokens == known[name]
        for support in beside:
            keep &= matches(self._support, support, self._alphabets)
        tokens = self._tokens[-1]
        return int(torch.bincount(tokens[keep] if keep.any() else tokens, minlength=1).argmax())


class SmoothedCells:
    """Cells of a smoothed table whose child is given: the table is never listed as a whole, which
    would take K times as long as what one observation needs."""

    def __init__(self, factor: Factor, table: Table, known: Sequence[str], allow: Allow) -> None:
        self._factor, self._table, self._allow = factor, table, allow
        self.given = (
            *(name for name in factor.parents if name in known),
            factor.child,
        )
        child = table.keys % table.alphabet
        self._order = child.argsort(stable=True)
        self._ends = torch.bincount(child, minlength=table.alphabet).cumsum(0).tolist()

    def where(self, evidence: Mapping[str, int]) -> Support:
        table, token = self._table, evidence[self._factor.child]
        *parents, size = table.shape
        self._allow(prod(parents), self._factor.parents)
        assert table.background is not None
        p = table.background.at(torch.arange(prod(parents)) * size + token, table.shape)
        seen = self._order[self._ends[token - 1] if token else 0 : self._ends[token]]
        p[table.keys[seen] // size] += table.probability[seen]
        rows = p.nonzero()[:, 0]
        index = torch.stack(torch.unravel_index(rows, tuple(parents)))
        keep = torch.ones(len(rows), dtype=torch.bool)
        free = []
        for axis, name in enumerate(self._factor.parents):
            if name in evidence:
                keep &= index[axis] == evidence[name]
            else:
                free.append(axis)
        names = tuple(self._factor.parents[axis] for axis in free)
        return Support(names, index[free][:, keep], p[rows][keep].log())

    def frequent(self, known: Mapping[str, int], beside: Sequence[Support]) -> int:
        del known, beside  # nearly every cell is possible, whatever else is known
        child = self._table.keys % self._table.alphabet
        return int(torch.bincount(child, minlength=1).argmax())
