"""The part of a graph's tables that lies between some tokens of its sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from ..graph import Factor, MixingGraph
from ..tables.background import Background
from ..tables.table import Table
from .base import AnyTable
from .kernels.layout import Layout


class Cutter:
    """The tables of tokens of a graph, laid out so that the cells between some tokens are found
    without a look at the others. Costs the memory of the cells once more."""

    def __init__(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> None:
        made: dict[tuple[Table, bool], Layout] = {}
        self._laid: list[tuple[Factor, Table, Layout]] = []
        # What is observed rules out most cells, so its tables are the first to be looked into.
        for factor in sorted(graph.factors, key=lambda factor: factor.child not in graph.known):
            if isinstance(table := tables[factor.name], Table):
                given = factor.child in graph.known
                if (table, given) not in made:
                    made[table, given] = _layout(table, given)
                self._laid.append((factor, table, made[table, given]))

    def cut(self, allowed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Table]]:
        """The tokens {site: int64 [K'], ascending} that are left, at least one a site, and the
        tables {factor: Table} of these alone, whose rows do not sum to 1.

        allowed: {site: bool [K]}, on the CPU. Tokens that occur in no cell together with allowed
        ones of the other sites go as well, as far as a pass over the tables and one back find out.
        """
        left = dict(allowed)
        cells: dict[str, _Cells] = {}
        for factor, table, layout in self._laid:
            if table.background is None:  # else every cell is possible
                cells[factor.name] = _Cells.of(layout, factor.scope, left)
                cells[factor.name].narrow(left)
        for factor, _, _ in reversed(self._laid):
            if factor.name in cells:
                cells[factor.name] = cells[factor.name].within(left)
                cells[factor.name].narrow(left)
        for name, mask in left.items():
            if not mask.any():  # some token has to stand for none
                left[name] = torch.arange(len(mask)) == 0
        kept = {name: mask.nonzero()[:, 0] for name, mask in left.items()}
        places = {name: mask.cumsum(0) - 1 for name, mask in left.items()}
        out = {}
        for factor, table, layout in self._laid:
            if table.background is None:
                found = cells[factor.name].within(left)
            else:
                found = _Cells.of(layout, factor.scope, left)
            axes = (*factor.parents, factor.child)
            shape = tuple(len(kept[name]) for name in axes)
            keys = torch.zeros_like(found.tokens[factor.child])
            for name, size in zip(axes, shape, strict=True):
                keys = keys * size + places[name][found.tokens[name]]
            background = _background(table, [kept[name] for name in axes])
            out[factor.name] = Table(shape, keys, found.value, background)
        return kept, out


def _layout(table: Table, given: bool) -> Layout:
    """By parents, or by the child where its token is given."""
    *parents, child = table.shape
    axes = range(1, len(parents) + 1)
    order = (0, *axes) if given else (*axes, 0)
    sizes, dtype = (child, *parents), table.probability.dtype
    layout = Layout.of(table.keys, table.probability, sizes, order, dtype)
    return layout if given else replace(layout, value=table.probability)  # no need for a copy


@dataclass(frozen=True)
class _Cells:
    """Cells of a table in the order of its keys. tokens: {site: int64 [E]}. value: [E]."""

    tokens: Mapping[str, Tensor]
    value: Tensor

    @classmethod
    def of(cls, layout: Layout, scope: tuple[str, ...], left: Mapping[str, Tensor]) -> _Cells:
        """Those whose tokens are all left. left: {site: bool [K]}."""
        *front, last = layout.order
        bags = _bags(layout, {axis: left[scope[axis]] for axis in front})
        begin, end = layout.ends[bags], layout.ends[bags + 1]
        counts = (end - begin).long()
        which = torch.repeat_interleave(counts)
        cell = torch.arange(len(which)) + (end - counts.cumsum(0))[which]
        place = layout.place[cell]
        inside = left[scope[last]][place].nonzero()[:, 0]
        bag = bags[which[inside]]
        tokens = {scope[axis]: layout.tokens(bag, axis) for axis in front}
        tokens[scope[last]] = place[inside].long()
        return cls(tokens, layout.value[cell[inside]])

    def within(self, left: Mapping[str, Tensor]) -> _Cells:
        """Those whose tokens are still left."""
        keep = torch.stack([left[name][tokens] for name, tokens in self.tokens.items()]).all(0)
        index = keep.nonzero()[:, 0]
        tokens = {name: tokens[index] for name, tokens in self.tokens.items()}
        return _Cells(tokens, self.value[index])

    def narrow(self, left: dict[str, Tensor]) -> None:
        """Leave the tokens that occur."""
        for name, tokens in self.tokens.items():
            left[name] = torch.zeros_like(left[name]).index_fill_(0, tokens, True)


def _bags(layout: Layout, masks: Mapping[int, Tensor]) -> Tensor:
    """Bags whose tokens are all allowed, ascending. masks: of all axes but the last, in order."""
    number = len(layout.ends) - 1
    if prod(int(mask.sum()) for mask in masks.values()) > number:
        bags = torch.arange(number)
        for axis, mask in masks.items():
            bags = bags[mask[layout.tokens(bags, axis)]]
        return bags
    flat = torch.zeros(1, dtype=torch.int64)
    for mask in masks.values():
        flat = (flat[:, None] * len(mask) + mask.nonzero()[:, 0]).flatten()
    if layout.keys is None:
        return flat
    bags = layout.bags(flat).clamp_max(number - 1)
    return bags[layout.keys[bags] == flat]


def _background(table: Table, kept: list[Tensor]) -> Background | None:
    """What smoothing gives to the cells between some tokens. kept: of parents, then child."""
    if table.background is None:
        return None
    *parents, child = kept
    rows = torch.zeros(1, dtype=torch.int64)
    for tokens, size in zip(parents, table.shape, strict=False):
        rows = (rows[:, None] * size + tokens).flatten()
    share, tables = table.background.share_of(rows), table.background.tables
    if not table.background.common:
        tables = tuple(part[own] for part, own in zip(tables, parents, strict=True))
    return Background(torch.arange(len(rows)), share, tuple(part[:, child] for part in tables))
