"""The tokens of a separation that is under way: each candidate's past, through resampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..infer import Posterior
from ..watch import Watched

_FAIR = 0.25
"""Of the largest share of weight: what keeps a candidate in the picture."""


@dataclass(frozen=True)
class Seen:
    """One position of one mixture, as it is shown.

    position: 0 .. length - 1. tokens: {source: int64 [position + 1]}, those so far of the candidate
    that is followed. posterior, row: what its token was drawn from, and its row there. share: of
    the weight of all candidates. kinds: how many different pasts the candidates have.
    """

    position: int
    length: int
    tokens: Mapping[str, Tensor]
    posterior: Posterior
    row: int
    share: float
    kinds: int


class Prefixes:
    """Follows the candidates of one mixture from position to position.

    One of them is shown: of the descendants of the one shown before the one of the largest weight,
    so that the picture does not jump as long as they keep a fair share of it; else the one of the
    largest weight of all.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.tokens: dict[str, Tensor] = {name: torch.zeros(0, 0).long() for name in sources}
        self._shown: int | None = None

    def add(self, watched: Watched) -> Seen:
        """Take in a `Watched` of one mixture."""
        parents = None if watched.parents is None else watched.parents[0].cpu()
        weights = watched.weights[0].double().cpu()
        for name, before in self.tokens.items():
            now = watched.tokens[name][0].cpu()[:, None]
            if not before.numel():
                before = now[:, :0]
            elif parents is not None:
                before = before[parents]
            self.tokens[name] = torch.cat([before, now], 1)
        count = len(weights)
        came = torch.arange(count) if parents is None else parents
        share = torch.where(weights > float("-inf"), weights, -1e30).softmax(0)
        own = torch.zeros_like(share) if self._shown is None else share * (came == self._shown)
        best = int(own.argmax() if own.max() > _FAIR * share.max() else share.argmax())
        self._shown = best
        pasts = torch.cat(list(self.tokens.values()), 1)
        return Seen(
            watched.position,
            watched.length,
            {name: own[best] for name, own in self.tokens.items()},
            watched.posterior,
            int(came[best]),
            float(share[best]),
            len(pasts.unique(dim=0)),
        )
