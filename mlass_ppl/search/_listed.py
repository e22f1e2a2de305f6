"""The best continuations of many partial separations together, by the best answers to each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..infer.base import Posterior
from ._continue import Continuations, fines, leading, ranks

_NEVER = float("-inf")


@runtime_checkable
class Weighted(Protocol):
    """A posterior that takes more weights on the tokens of its sources."""

    def weighted(self, weights: Mapping[str, Tensor]) -> Posterior:
        """The posterior with these log weights added, {source: nats [M, C, K]}."""
        ...


class Lister:
    """Of a posterior that lists its best answers (`topk`), sources alone, at one position.

    The best continuations of all candidates together are among the best of each, so that the choice
    is exact over what the posterior knows; `Truncated` knows its lists.
    """

    def __init__(self, posterior: Posterior) -> None:
        self.posterior, self.sources = posterior, posterior.graph.sources

    def best(
        self, rows: Tensor, weights: Tensor, count: Tensor, penalty: Mapping[str, Tensor]
    ) -> Continuations:
        """As every `Continuer`. Penalties need a posterior that is `Weighted`."""
        (m, c), device = self.posterior.log_evidence.shape, rows.device
        mixture, place = rows // c, ranks(rows // c)
        wide = int(place.max()) + 1
        # The rows of each mixture side by side, padded with row 0, which does not count.
        parents = torch.zeros(m, wide, dtype=torch.int64, device=device)
        log = weights.new_full((m, wide), _NEVER)
        parents[mixture, place], log[mixture, place] = rows % c, weights[rows]
        part = self.posterior.of(parents)
        if penalty:
            assert isinstance(part, Weighted)
            off = {name: -own[:, None].expand(-1, wide, -1) for name, own in penalty.items()}
            part = part.weighted(off)
        tokens, told = part.topk(int(count.max()))
        told = told.to(log) + (log + part.log_evidence.to(log))[..., None]
        row = torch.arange(m, device=device)[:, None] * c + parents
        found = Continuations(
            row[..., None].expand_as(told).flatten(),
            torch.stack([tokens[name].flatten() for name in self.sources], 1),
            told.flatten(),
        )
        found = found.of(leading(found.row // c, found.score, count))
        fine = fines(penalty, self.sources, found.row // c, found)
        return Continuations(found.row, found.tokens, found.score + fine)
