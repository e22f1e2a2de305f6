"""Variable elimination for some rows of a position: the numbers behind `Elimination`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..algebra import Linear
from ..joint import Kind
from ..position import Position
from .cliques import Cliques
from .layout import NEVER, Grid, Layout, lay_out
from .segments import Segments


class Blocks:
    """The rows of a grid, B blocks of C.

    Messages are [S + 1, C], or [S + 1, 1] where they are the same for all candidates; the last
    state has no mass. In linear space ("linear") the largest of each row is 1, and what that takes
    is kept apart; else they are logarithms, summed ("sum") or maximised ("max").

    weak: of all rows of the position, bool [R]; those that lost so much of their mass in linear
    space that more may have underflowed are marked in it, in place.
    """

    def __init__(
        self, cliques: Cliques, position: Position, grid: Grid, kind: Kind, weak: Tensor
    ) -> None:
        self.grid, self._cliques, self._position, self._kind = grid, cliques, position, kind
        like = position.like
        self._linear = kind == "linear"
        self._safe = Linear().safe(like.dtype) if self._linear else NEVER
        self._unary: dict[str, Tensor] = {}
        self._top = like.new_zeros(grid.shape)
        for name, log in position.unary.items():
            own = grid.of(log).detach()
            if self._linear:
                top = own.amax(2)
                top = torch.where(top > NEVER, top, 0.0)
                self._top += top
                own = (own - top[..., None]).exp_()
            self._unary[name] = own
        self._layouts: dict[int, Layout] = {}
        self._messages: dict[int, Tensor] = {}
        self._scales: dict[int, Tensor] = {}
        self._weak = grid.of(weak)

    def release(self, room: float) -> None:
        """Forget the largest intermediate results until the others take `room` bytes; they are
        made again when they are asked for."""
        stocks: tuple[dict[int, Any], ...] = (self._layouts, self._messages)
        sizes = [(x.nbytes, place, key) for place in (0, 1) for key, x in stocks[place].items()]
        total = sum(size for size, *_ in sizes)
        for size, place, key in sorted(sizes, reverse=True):
            if total <= room:
                break
            del stocks[place][key]
            total -= size

    def log_evidence(self) -> Tensor:
        """[B, C], nats; of a max-product run the log probability of the best assignment."""
        position, cliques = self._position, self._cliques
        constant = [cliques.constant(tokens) for tokens in self.grid.tokens]
        out = self._top + torch.tensor(constant, dtype=torch.float64).to(self._top)[:, None]
        for factor in cliques.constant_factors:
            if factor.feature:  # all its parents are given
                given = (position.mixture, *(position.known[name] for name in factor.parents))
                out = out + self.grid.of(position.likelihood[factor.name][given])
        mass = torch.zeros_like(out)
        for number, bucket in enumerate(cliques.buckets):
            message = self.message(number)
            if self._linear:
                # What all steps divided out together counts: each did what underflowed before it.
                mass = mass + self._scales[number]
                self._weak |= mass < self._safe
                out = out + self._layout(number).top
            elif not bucket.separator:
                mass = mass + message[:-1]
        return out + mass

    def message(self, number: int) -> Tensor:
        """What a bucket tells the one above it."""
        if number not in self._messages:
            self._messages[number] = self._summed_out(number)
        return self._messages[number]

    def _layout(self, number: int) -> Layout:
        if number not in self._layouts:
            self._layouts[number] = lay_out(
                self._cliques, self._position, self.grid, number, self._linear
            )
        return self._layouts[number]

    def _summed_out(self, number: int) -> Tensor:
        layout, (narrow, wide) = self._layout(number), self._inputs(number)
        segments = layout.segments
        if not self._linear:
            values = self._product(narrow, wide)
            return segments.log_sum(values) if self._kind == "sum" else segments.max(values)
        if self._single(wide):
            out = segments.matrix(narrow, wide[0][1], len(wide[0][0])) @ wide[0][0]
        else:
            out = segments.sum(self._product(narrow, wide))
        top = layout.blocks.max(out[:-1])[:-1].clamp_(0)  # of a block without states: nothing
        self._scales[number] = top.log()
        out[:-1] /= torch.where(top > 0, top, 1.0).index_select(0, layout.blocks.number)
        return out

    def _inputs(self, number: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Weights of the states of a bucket: [E], the same for all candidates, and the others as
        values [X, C] and where each state finds its own, int64 [E]."""
        layout = self._layout(number)
        narrow, wide = layout.weight[:-1], []
        for child, place in layout.below.items():
            message = self.message(child)
            if message.shape[1] == 1:
                narrow = self._times(narrow, message[:, 0][place[:-1]])
            else:
                wide.append((message, place[:-1]))
        site = self._cliques.buckets[number].site
        if site in self._unary:
            wide.append((self._unary[site].transpose(1, 2).flatten(0, 1), layout.token[:-1]))
        return narrow, wide

    def _times(self, one: Tensor, other: Tensor) -> Tensor:
        return one * other if self._linear else one + other

    def _product(self, narrow: Tensor, wide: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Weight of each state, [E, C], or [E, 1] where there are narrow ones alone."""
        if not wide:
            return narrow[:, None]
        combine = torch.mul if self._linear else torch.add
        first, *others = (values.index_select(0, place) for values, place in wide)
        for other in (narrow[:, None], *others):
            combine(first, other, out=first)
        return first

    def _single(self, wide: list[tuple[Tensor, Tensor]]) -> bool:
        """Whether a sum over states is one product with a sparse matrix: on a CPU several times as
        fast as spreading the values over the states first."""
        return self._linear and len(wide) == 1 and self._top.device.type == "cpu"

    def candidates(self, number: int, state: Tensor) -> tuple[Tensor, Tensor]:
        """States of a bucket that agree with a state of its separator, int64 [B, C] or [B, 1]:
        where they are, int64 [B, C or 1, L], and their weights [B, C, L], in each row up to a
        factor."""
        layout, (blocks, columns) = self._layout(number), self.grid.shape
        begin, end = layout.segments.offsets[state], layout.segments.offsets[state + 1]
        cells = begin[..., None] + torch.arange(max(1, layout.longest), device=state.device)
        cells = torch.where(cells < end[..., None], cells, len(layout.weight) - 1)
        out = layout.weight[cells]
        for child, place in layout.below.items():
            message = self.message(child)
            if cells.shape[1] == 1:  # the same states in all columns
                found = message.index_select(0, place[cells.flatten()])
                out = self._times(out, found.unflatten(0, (blocks, -1)).transpose(1, 2))
            else:
                width = message.shape[1]
                column = torch.arange(columns, device=cells.device)[:, None] % width
                out = self._times(out, message.flatten()[place[cells] * width + column])
        out = out.expand(blocks, columns, -1)
        site = self._cliques.buckets[number].site
        if site in self._unary:
            token = self._token(number, cells).expand(blocks, columns, -1)
            out = self._times(out, self._unary[site].gather(2, token))
        if self._linear:
            self._weak |= out.sum(2) < math.exp(self._safe)
            return cells, out
        top = out.amax(2, keepdim=True)
        return cells, (out - torch.where(top > NEVER, top, 0.0)).exp_()

    def choose(self, number: int, cells: Tensor, index: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Token of a bucket's site, int64 [B, C], and state of the separator of each bucket below
        it, where each row takes the candidate `index` [B, C], or none (-1)."""
        layout = self._layout(number)
        cell = cells.expand(*self.grid.shape, -1).gather(2, index.clamp_min(0)[..., None])
        cell = torch.where(index[..., None] >= 0, cell, len(layout.weight) - 1)
        token = torch.where(index >= 0, self._token(number, cell)[..., 0], -1)
        return token, {child: place[cell[..., 0]] for child, place in layout.below.items()}

    def _token(self, number: int, cells: Tensor) -> Tensor:
        """Tokens of a bucket's site in states [B, C, L]; any in the one of weight zero."""
        size = self._cliques.sizes[self._cliques.buckets[number].site]
        block = torch.arange(len(cells), device=cells.device)[:, None, None]
        return (self._layout(number).token[cells] - block * size).clamp_(0, size - 1)

    def marginals(self, possible: Tensor) -> dict[str, Tensor]:
        """p(site | evidence) [B, C, K] of each site; zero where not `possible` [B, C]."""
        blocks, columns = self.grid.shape
        share: dict[int, Tensor] = {}  # probability of each separator state, [S, C]
        out = {}
        for number, bucket in reversed(list(enumerate(self._cliques.buckets))):
            layout, (narrow, wide) = self._layout(number), self._inputs(number)
            above = share.pop(number) if bucket.separator else possible.to(self._top)
            size = self._cliques.sizes[bucket.site]
            if not bucket.children and self._single(wide):
                values, place = wide[0]
                matrix = layout.segments.matrix(narrow, place, len(values))
                ratio = _ratio(above, (matrix @ values)[:-1])
                found = values * (matrix.t() @ torch.cat([ratio, ratio.new_zeros(1, columns)]))
            else:
                p = self._beliefs(layout.segments, self._product(narrow, wide), above)
                found = _spread(p, layout.token, blocks * size)
                for child, place in layout.below.items():
                    share[child] = _spread(p, place, len(self.message(child)) - 1)
            out[bucket.site] = found.unflatten(0, (blocks, size)).transpose(1, 2)
        return out

    def _beliefs(self, segments: Segments, values: Tensor, above: Tensor) -> Tensor:
        """Probability of each state, [E, C], by that of the separator states, [S, C]."""
        if not self._linear:
            top = segments.max(values)
            values = (values - torch.where(top > NEVER, top, 0.0)[segments.number]).exp_()
        ratio = _ratio(above, segments.sum(values)[:-1])
        return ratio.index_select(0, segments.number).mul_(values)


def _ratio(above: Tensor, mass: Tensor) -> Tensor:
    return above / torch.where(mass > 0, mass, 1.0)


def _spread(p: Tensor, place: Tensor, size: int) -> Tensor:
    """Sum of p [E, C] by place [E + 1]: [size, C]."""
    out = p.new_zeros(size, p.shape[1])
    return out.scatter_add_(0, place[:-1, None].expand_as(p), p)
