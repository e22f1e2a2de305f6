"""Joint states of a few sites that have positive probability, and how two lists of them join."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Allow = Callable[[float, tuple[str, ...]], None]
"""Called with a number of states and their sites before they are listed; may raise."""

Input = str | int
"""What gives a state a value beside its constant: a likelihood by factor, a message by bucket."""


@dataclass(frozen=True)
class Support:
    """sites: names. index: their tokens in each state, int64 [len(sites), E]. log: constant log
    weight of each state, nats, float64 [E]. places: where in each further input the value of a
    state is found, {input: int64 [E]}."""

    sites: tuple[str, ...]
    index: Tensor
    log: Tensor
    places: Mapping[Input, Tensor] = field(default_factory=dict)

    @property
    def states(self) -> int:
        return len(self.log)

    @classmethod
    def every(cls, site: str, size: int) -> Support:
        """All tokens of one site."""
        return cls((site,), torch.arange(size)[None], torch.zeros(size, dtype=torch.float64))

    def take(self, states: Tensor | slice) -> Support:
        places = {name: place[states] for name, place in self.places.items()}
        return Support(self.sites, self.index[:, states], self.log[states], places)


def join(
    left: Support, right: Support, sizes: Mapping[str, int], allow: Allow = lambda *_: None
) -> Support:
    """Natural join: the states that agree on the shared sites, their logs added.

    allow(states, sites) is called with the size of the result before it is made.
    """
    shared = [name for name in left.sites if name in right.sites]
    fresh = [place for place, name in enumerate(right.sites) if name not in shared]
    columns = [s.index[[s.sites.index(name) for name in shared]] for s in (left, right)]
    keys = sort_keys(torch.cat(columns, 1), [sizes[name] for name in shared])
    wanted, found = keys[: left.states], keys[left.states :]
    order = found.argsort(stable=True)
    found = found[order]
    begin = torch.searchsorted(found, wanted)
    mates = torch.searchsorted(found, wanted, right=True) - begin
    total = int(mates.sum())
    sites = left.sites + tuple(right.sites[place] for place in fresh)
    allow(total, sites)
    row = torch.repeat_interleave(torch.arange(left.states), mates)
    offset = torch.arange(total) - torch.repeat_interleave(mates.cumsum(0) - mates, mates)
    mate = order[begin[row] + offset]
    places = {name: place[row] for name, place in left.places.items()}
    places |= {name: place[mate] for name, place in right.places.items()}
    index = torch.cat([left.index[:, row], right.index[fresh][:, mate]])
    return Support(sites, index, left.log[row] + right.log[mate], places)


def matches(left: Support, right: Support, sizes: Mapping[str, int]) -> Tensor:
    """Which states of the left agree with any on the right in the sites that they share, bool
    [E]."""
    shared = [name for name in left.sites if name in right.sites]
    columns = [s.index[[s.sites.index(name) for name in shared]] for s in (left, right)]
    keys = sort_keys(torch.cat(columns, 1), [sizes[name] for name in shared])
    return torch.isin(keys[: left.states], keys[left.states :])


def join_all(
    parts: Sequence[Support], sizes: Mapping[str, int], allow: Allow = lambda *_: None
) -> Support:
    """Natural join of several lists, those that add the fewest sites first."""
    left = sorted(parts, key=lambda part: (-len(part.sites), part.states))
    out = left.pop(0)
    while left:
        sites = set(out.sites)
        best = min(left, key=lambda part: (len(set(part.sites) - sites), part.states))
        left = [part for part in left if part is not best]
        out = join(out, best, sizes, allow)
    return out


def group(support: Support, by: tuple[str, ...], sizes: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """The order that sorts states by some sites and then by the others, int64 [E], and how many
    states each present combination of `by` then has in a row, int64 [S]."""
    rest = [name for name in support.sites if name not in by]

    def keys(names: Sequence[str]) -> Tensor:
        rows = [support.sites.index(name) for name in names]
        return sort_keys(support.index[rows], [sizes[name] for name in names])

    order = keys(rest).argsort(stable=True)
    first = keys(by)[order]
    order = order[first.argsort(stable=True)]
    lengths = torch.unique_consecutive(first.sort().values, return_counts=True)[1]
    return order, lengths


def sort_keys(index: Tensor, sizes: Sequence[int]) -> Tensor:
    """One number for each column of tokens [n, E] that sorts as the columns do."""
    out, bound = torch.zeros(index.shape[1], dtype=torch.int64), 1
    for tokens, size in zip(index, sizes, strict=True):
        if bound * size >= 1 << 62 and len(out):  # ranks sort the same and are small
            out = torch.unique(out, return_inverse=True)[1]
            bound = int(out.max()) + 1
        out = out * size + tokens
        bound *= size
    return out
