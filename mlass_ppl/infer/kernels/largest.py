"""The largest cells of a table's background, by branch and bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce as fold
from math import log

import torch
from torch import Tensor

from .shares import Shares

_CELLS = 1 << 22
"""Bounds computed at once."""


@dataclass
class _Items:
    """N partial assignments: which answer each is for, its row, the tokens assigned so far by axis,
    the sum of their messages, and a bound on the best cell that completes it; all [N]."""

    answer: Tensor
    row: Tensor
    tokens: dict[int, Tensor]
    weight: Tensor
    bound: Tensor

    def pick(self, index: Tensor | slice) -> _Items:
        tokens = {axis: token[index] for axis, token in self.tokens.items()}
        parts = (self.answer[index], self.row[index], tokens, self.weight[index])
        return _Items(*parts, self.bound[index])


class LargestBackground:
    """max over cells of share(row) q(row, m) times the messages, in logarithms and exactly.

    A sum inside a maximum has no product form, so cells are searched: axis after axis, with the
    bound that shares are at most 1 and every axis still open has its best token. Assignments whose
    bound is no better than what was found are dropped; the seen cells' maximum, found before,
    drops most of them.
    """

    def __init__(
        self, shape: tuple[int, ...], shares: Shares, logs: Sequence[Tensor], common: bool
    ) -> None:
        self.shape, self.shares, self.logs, self.common = shape, shares, logs, common

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor], floor: Tensor
    ) -> Tensor:
        """The larger of the background's answer and `floor` [R, K_to]."""
        if not self.common:
            return _Search(self, to, incoming, given, floor).run()
        (row,) = self.logs[0]  # one q for all rows: the child is maximised on its own
        messages = {axis: message for axis, message in incoming.items() if axis}
        tokens = {axis: token for axis, token in given.items() if axis}
        if to == 0:
            nothing = floor.new_full((len(floor), 1), float("-inf"))
            return torch.maximum(floor, _Search(self, None, messages, tokens, nothing).run() + row)
        child = row[given[0]] if 0 in given else (row + incoming[0]).amax(-1)
        child = child[:, None]
        ready = torch.where(child > float("-inf"), floor - child, float("inf"))
        found = _Search(self, to, messages, tokens, ready).run() + child
        return torch.where(child > float("-inf"), torch.maximum(found, floor), floor)


class _Search:
    """One message. `to` None asks for the maximum over all parents, [R, 1]."""

    def __init__(
        self,
        table: LargestBackground,
        to: int | None,
        incoming: Mapping[int, Tensor],
        given: Mapping[int, Tensor],
        floor: Tensor,
    ) -> None:
        self.table, self.to, self.incoming, self.given = table, to, incoming, given
        self.shape = floor.shape
        self.best = floor.reshape(-1).clone()
        self.tops = {axis: message.amax(-1) for axis, message in incoming.items()}
        self._reaches: dict[int, Tensor] = {}

    def run(self) -> Tensor:
        """The best of every answer, [R, K_to]."""
        rows, size = self.shape
        device = self.best.device
        row = torch.arange(rows, device=device).repeat_interleave(size)
        tokens = {axis: token[row] for axis, token in self.given.items()}
        if self.to is not None:
            tokens[self.to] = torch.arange(size, device=device).repeat(rows)
        answer = torch.arange(len(row), device=device)
        weight = torch.zeros_like(self.best)
        items = _Items(answer, row, tokens, weight, torch.full_like(weight, float("inf")))
        free = sorted(self.incoming)  # the child first: bounds need its token
        if not free:
            items.bound = self._bound(items, items.tokens, weight, [])
        self._descend(items, free)
        return self.best.reshape(self.shape)

    def _descend(self, items: _Items, free: list[int]) -> None:
        """Complete the assignments over the free axes, best bound first, and note what is best."""
        if not free:
            parents = range(1, len(self.table.shape))
            share = self.table.shares.log_at([items.tokens[axis] for axis in parents])
            score = items.bound + share.to(items.bound.dtype)
            self.best.scatter_reduce_(0, items.answer, score, "amax")
            return
        axis, *rest = free
        size = self.table.shape[axis]
        every = torch.arange(size, device=self.best.device)[None]
        step = max(1, _CELLS // size)
        for begin in range(0, len(items.row), step):
            part = items.pick(slice(begin, begin + step))
            part = part.pick(part.bound > self.best[part.answer])
            if not len(part.row):
                continue
            weight = part.weight[:, None] + self.incoming[axis][part.row]
            tokens = {a: token[:, None] for a, token in part.tokens.items()} | {axis: every}
            bound = self._bound(part, tokens, weight, rest).expand_as(weight)
            first = bound.argmax(1, keepdim=True)
            self._descend(_grown(part, axis, weight, bound, _one(first)), rest)
            better = bound > self.best[part.answer][:, None]
            better.scatter_(1, first, False)
            self._descend(_grown(part, axis, weight, bound, better.nonzero(as_tuple=True)), rest)

    def _bound(
        self, items: _Items, tokens: Mapping[int, Tensor], weight: Tensor, free: list[int]
    ) -> Tensor:
        """Largest that an assignment can still become, [N] or [N, K]."""
        like = [1] * (weight.ndim - 1)
        tops = {axis: self.tops[axis][items.row].reshape(-1, *like) for axis in free}
        if self.table.common:
            return fold(torch.add, tops.values(), weight)
        terms = []
        for axis in range(1, len(self.table.shape)):
            if axis in free:
                reach = self._reach(axis)
                column = tokens[0] if reach.shape[1] > 1 else torch.zeros_like(tokens[0])
                term = reach[items.row.reshape(-1, *like), column]
            else:
                term = self.table.logs[axis - 1][tokens[axis], tokens[0]]
            terms.append(fold(torch.add, (t for a, t in tops.items() if a != axis), term))
        return weight + fold(torch.logaddexp, terms) - log(len(terms))

    def _reach(self, axis: int) -> Tensor:
        """Largest p(m | parent) times its message over one parent: [R, K_child], or [R, 1] where
        the child is given."""
        if axis not in self._reaches:
            logs, message = self.table.logs[axis - 1], self.incoming[axis]
            if 0 in self.given:
                reach = (logs.T[self.given[0]] + message).amax(1, keepdim=True)
            else:
                step = max(1, _CELLS // logs.numel())
                parts = message.split(step)
                reach = torch.cat([(part[:, :, None] + logs).amax(1) for part in parts])
            self._reaches[axis] = reach
        return self._reaches[axis]


def _one(column: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of one column in every row."""
    return torch.arange(len(column), device=column.device), column[:, 0]


def _grown(
    items: _Items, axis: int, weight: Tensor, bound: Tensor, place: tuple[Tensor, ...]
) -> _Items:
    """The assignments at `place` (item, token of `axis`)."""
    item, token = place
    out = items.pick(item)
    out.tokens[axis] = token
    out.weight, out.bound = weight[item, token], bound[item, token]
    return out
