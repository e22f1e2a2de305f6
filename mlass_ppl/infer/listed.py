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

    def __init__(self, plan: TruncatedPlan, position: Position, parts: list[Halves]) -> None:
        super().__init__(plan, position)
        self._plan, self._parts = plan, parts
        self.log_evidence = position.like.new_empty(position.shape)
        for mixture, part in enumerate(parts):
            self.log_evidence[mixture] = part.log_evidence

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
        listed = torch.empty_like(self.log_evidence)
        for mixture, part in enumerate(self._parts):
            listed[mixture] = part.log_covered()
        log = [self.position.unary[name].double().logsumexp(1) for name in self.graph.sources]
        total = torch.stack(log).sum(0).reshape(self.position.shape)
        share = (listed - total).exp().clamp(0, 1)
        return torch.where(total > float("-inf"), share, 1.0)  # of nothing, nothing is lost

    def of(self, parents: Tensor) -> TruncatedPosterior:
        out = copy(self)
        out.__dict__.pop("covered", None)
        out.position = self.position.of(parents)
        out.log_evidence = self.log_evidence.gather(1, parents)
        out._parts = [part.of(own) for part, own in zip(self._parts, parents, strict=True)]
        return out

    def sample(self, random: Random) -> dict[str, Tensor]:
        uniform = uniforms(random, *self.position.shape, len(self.graph.latent))
        uniform = uniform.to(self.log_evidence.device)
        return self._tokens(
            [
                part.draw(own[:, 0], own[:, -1])
                for part, own in zip(self._parts, uniform, strict=True)
            ]
        )

    def mode(self) -> dict[str, Tensor]:
        tokens, _ = self.topk(1)
        return {name: t.reshape(self.position.shape) for name, t in tokens.items()}

    def topk(self, k: int) -> tuple[dict[str, Tensor], Tensor]:
        if not isinstance(k, int) or k < 1:
            raise OptionError(f"topk(k) takes a whole number, at least 1, got {k!r}.")
        best = [part.topk(k) for part in self._parts]
        log = self.log_evidence.new_empty(*self.position.shape, k)
        for mixture, (_, _, own) in enumerate(best):
            log[mixture] = own
        possible = self.log_evidence > float("-inf")
        log = log - torch.where(possible, self.log_evidence, 0.0)[..., None]
        return self._tokens([(first, second) for first, second, _ in best]), log

    def marginals(self) -> dict[str, Tensor]:
        out = {
            name: self.log_evidence.new_zeros(*self.position.shape, self._plan.sizes[name])
            for name in self.graph.sources
        }
        for mixture, part in enumerate(self._parts):
            for tuples, share in zip((part.first, part.second), part.shares(), strict=True):
                for name, tokens in tuples.parts.items():
                    out[name][mixture].index_add_(1, tokens, share.to(out[name]))
        return out

    def pairwise(self, first: str, second: str) -> Tensor:
        self._check_latent(first, second)
        if first == second:
            return self.marginals()[first].diag_embed()
        sizes = self._plan.sizes[first], self._plan.sizes[second]
        out = self.log_evidence.new_zeros(*self.position.shape, *sizes)
        for mixture, part in enumerate(self._parts):
            for tuples, share in zip((part.first, part.second), part.shares(), strict=True):
                if first in tuples.parts and second in tuples.parts:
                    place = tuples.parts[first] * sizes[1] + tuples.parts[second]
                    out[mixture].flatten(1).index_add_(1, place, share.to(out))
            if first in part.first.parts and second in part.second.parts:
                tokens = part.first.parts[first], part.second.parts[second]
                out[mixture] = part.together(*tokens, sizes)
            elif second in part.first.parts and first in part.second.parts:
                tokens = part.first.parts[second], part.second.parts[first]
                out[mixture] = part.together(*tokens, (sizes[1], sizes[0])).transpose(1, 2)
        return out

    def _tokens(self, places: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """{source: int64 [M, C, ...]} of places in the lists, -1 where they are."""
        out: dict[str, list[Tensor]] = {name: [] for name in self.graph.sources}
        for part, chosen in zip(self._parts, places, strict=True):
            for tuples, place in zip((part.first, part.second), chosen, strict=True):
                for name, tokens in tuples.parts.items():
                    token = torch.where(place < 0, -1, tokens[place.clamp_min(0)])
                    out[name].append(token)
        none = self.position.mixture.new_empty(self.position.shape)  # of no mixtures
        return {name: torch.stack(t) if t else none for name, t in out.items()}
