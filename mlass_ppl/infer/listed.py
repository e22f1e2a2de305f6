"""The answers of `Truncated`: each mixture's own lists, joined."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import OptionError
from .base import Posterior
from .halves import Halves
from .position import Position
from .random import Random, uniforms

if TYPE_CHECKING:
    from .truncated import TruncatedPlan


class TruncatedPosterior(Posterior):
    """log_evidence: of the listed tuples alone, so at most that of all of them."""

    def __init__(self, plan: TruncatedPlan, position: Position, halves: Halves) -> None:
        super().__init__(plan, position)
        self._plan, self._halves = plan, halves
        self.log_evidence = halves.log_evidence.to(position.like)

    @property
    def exact(self) -> bool:
        """Whether the lists hold every tuple."""
        return self._plan.exact

    @cached_property
    def covered(self) -> Tensor:
        """Share of each candidate's prior mass that the lists hold, [M, C] in [0, 1].

        What is left out adds at most (1 - covered) times the highest likelihood of any tuple to
        the evidence. The tuples were chosen by the mixture as well, so that much less is lost where
        the mixture contradicts what the priors expect.
        """
        log = [self.position.unary[name].double().logsumexp(1) for name in self.graph.sources]
        total = torch.stack(log).sum(0).reshape(self.position.shape)
        share = (self._halves.log_covered() - total).exp().clamp(0, 1).to(self.log_evidence)
        return torch.where(total > float("-inf"), share, 1.0)  # of nothing, nothing is lost

    def of(self, parents: Tensor) -> TruncatedPosterior:
        out = copy(self)
        out.__dict__.pop("covered", None)
        out.position = self.position.of(parents)
        out.log_evidence = self.log_evidence.gather(1, parents)
        out._halves = self._halves.of(parents)
        return out

    def sample(self, random: Random) -> dict[str, Tensor]:
        uniform = uniforms(random, *self.position.shape, len(self.graph.latent))
        uniform = uniform.to(self.log_evidence.device)
        return self._tokens(*self._halves.draw(uniform[..., 0], uniform[..., -1]))

    def mode(self) -> dict[str, Tensor]:
        tokens, _ = self.topk(1)
        return {name: t.reshape(self.position.shape) for name, t in tokens.items()}

    def topk(self, k: int) -> tuple[dict[str, Tensor], Tensor]:
        if not isinstance(k, int) or k < 1:
            raise OptionError(f"topk(k) takes a whole number, at least 1, got {k!r}.")
        first, second, log = self._halves.topk(k)
        possible = self.log_evidence > float("-inf")
        total = torch.where(possible, self.log_evidence, 0.0)
        return self._tokens(first, second), log.to(total) - total[..., None]

    def marginals(self) -> dict[str, Tensor]:
        out = {}
        for tuples, share in self._shares():
            for name, tokens in tuples.items():
                index = tokens[:, None].expand_as(share)
                zeros = share.new_zeros(*self.position.shape, self._plan.sizes[name])
                out[name] = zeros.scatter_add_(2, index, share).to(self.log_evidence)
        return {name: out[name] for name in self.graph.sources}

    def pairwise(self, first: str, second: str) -> Tensor:
        self._check_latent(first, second)
        if first == second:
            return self.marginals()[first].diag_embed()
        sizes = self._plan.sizes[first], self._plan.sizes[second]
        one, other = self._halves.first.parts, self._halves.second.parts
        if first in one and second in other:
            return self._halves.together(one[first], other[second], sizes).to(self.log_evidence)
        if first in other and second in one:
            return self.pairwise(second, first).mT
        tuples, share = next(part for part in self._shares() if first in part[0])
        place = (tuples[first] * sizes[1] + tuples[second])[:, None].expand_as(share)
        out = share.new_zeros(*self.position.shape, sizes[0] * sizes[1])
        return out.scatter_add_(2, place, share).unflatten(2, sizes).to(self.log_evidence)

    def _shares(self) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Of each list, the tokens {source: int64 [M or 1, T]} and p(tuple | evidence), float64
        [M, C, T]."""
        lists = self._halves.first, self._halves.second
        return [(own.parts, s) for own, s in zip(lists, self._halves.shares(), strict=True)]

    def _tokens(self, *places: Tensor) -> dict[str, Tensor]:
        """{source: int64 [M, C, ...]} of places [M, C, ...] in the lists, -1 where they are."""
        out = {}
        for tuples, place in zip((self._halves.first, self._halves.second), places, strict=True):
            index = place.clamp_min(0).flatten(1)
            for name, tokens in tuples.parts.items():
                token = tokens.expand(len(index), -1).gather(1, index).reshape(place.shape)
                out[name] = torch.where(place < 0, -1, token)
        return {name: out[name] for name in self.graph.sources}
