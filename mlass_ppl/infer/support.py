"""Every joint state of the latent sites that has positive probability given the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..graph import Factor


@dataclass(frozen=True)
class Support:
    """sites: names of the latent sites. index: their tokens in each state, int64 [len(sites), E].
    log: log of the product of the tables' entries, nats, float64 [E]; priors not included."""

    sites: tuple[str, ...]
    index: Tensor
    log: Tensor

    @property
    def states(self) -> int:
        return len(self.log)

    @classmethod
    def nothing(cls) -> Support:
        """One state of no sites: the unit of `join`."""
        return cls((), torch.empty(0, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64))


@dataclass(frozen=True)
class Cells:
    """The positive cells of one factor's table: index int64 [scope, E], log float64 [E]."""

    factor: Factor
    index: Tensor
    log: Tensor

    def given(self, evidence: Mapping[str, int]) -> Support:
        """The cells that agree with the evidence, over the factor's other sites."""
        keep = torch.ones(len(self.log), dtype=torch.bool)
        for axis, name in enumerate(self.factor.scope):
            if name in evidence:
                keep &= self.index[axis] == evidence[name]
        rest = [axis for axis, name in enumerate(self.factor.scope) if name not in evidence]
        names = tuple(self.factor.scope[axis] for axis in rest)
        return Support(names, self.index[rest][:, keep], self.log[keep])


def join(
    left: Support,
    right: Support,
    sizes: Mapping[str, int],
    allow: Callable[[int, int], None],
) -> Support:
    """Natural join: states that agree on the shared sites, their logs added.

    allow(states, sites) is called with the size of the result before it is made, and may raise.
    """
    shared = [name for name in left.sites if name in right.sites]
    fresh = [place for place, name in enumerate(right.sites) if name not in shared]

    def key(support: Support) -> Tensor:
        out = torch.zeros(support.states, dtype=torch.int64)
        for name in shared:
            out = out * sizes[name] + support.index[support.sites.index(name)]
        return out

    order = key(right).argsort(stable=True)
    ordered, wanted = key(right)[order], key(left)
    begin = torch.searchsorted(ordered, wanted)
    matches = torch.searchsorted(ordered, wanted, right=True) - begin
    total = int(matches.sum())
    allow(total, len(left.sites) + len(fresh))
    row = torch.repeat_interleave(torch.arange(left.states), matches)
    offset = torch.arange(total) - torch.repeat_interleave(matches.cumsum(0) - matches, matches)
    mate = order[begin[row] + offset]
    return Support(
        left.sites + tuple(right.sites[place] for place in fresh),
        torch.cat([left.index[:, row], right.index[fresh][:, mate]]),
        left.log[row] + right.log[mate],
    )
