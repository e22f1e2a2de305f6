"""What `BP` answers between the tokens that cover most of every prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import OptionError
from .base import Posterior
from .joint import JointPosterior
from .position import Position
from .random import Random, uniforms

if TYPE_CHECKING:
    from .cover import CoverPlan

_NEVER = float("-inf")


@dataclass(frozen=True)
class Part:
    """One mixture's own problem. kept: {site: tokens int64 [K'], ascending}. answer: between
    these, whose tokens are places in `kept`."""

    kept: Mapping[str, Tensor]
    answer: JointPosterior

    def tokens(self, places: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Places in `kept` as tokens; -1 stays."""
        return {
            name: torch.where(place < 0, -1, self.kept[name][place.clamp_min(0)])
            for name, place in places.items()
        }


class CoverPosterior(Posterior):
    """What `BP` answers between the kept tokens. log_evidence: theirs alone, so at most that of
    all; marginals are zero elsewhere.

    log_lost: float64 [M, C], nats. log p(evidence) lies between `log_evidence` and
    log(exp(log_evidence) + exp(log_lost)); -inf where nothing was dropped.
    """

    log_lost: Tensor

    def __init__(
        self, plan: CoverPlan, position: Position, parts: list[Part], log_lost: Tensor
    ) -> None:
        super().__init__(plan, position)
        self._plan = plan
        self._set(parts, log_lost)

    def _set(self, parts: list[Part], log_lost: Tensor) -> None:
        self._parts, self.log_lost = parts, log_lost
        self.log_evidence = self.position.like.new_empty(log_lost.shape)
        for mixture, part in enumerate(parts):
            self.log_evidence[mixture] = part.answer.log_evidence[0]

    @property
    def exact(self) -> bool:
        """Whether nothing was dropped, in any row."""
        return self._plan.engine.draw == "joint" and bool((self.log_lost == _NEVER).all())

    @property
    def lost(self) -> Tensor:
        """Bound on the evidence that the dropped tokens would add, float64 [M, C]: the prior mass
        of all tuples that hold one, times the highest likelihood of any tuple where soft evidence
        or features say which, else 1."""
        return self.log_lost.exp()

    @property
    def kept(self) -> dict[str, Tensor]:
        """How many tokens of each latent site are left, {site: int64 [M]}."""
        return {
            name: self.position.mixture.new_tensor([len(part.kept[name]) for part in self._parts])
            for name in self.graph.latent
        }

    def of(self, parents: Tensor) -> CoverPosterior:
        """As of every posterior; between the tokens that were kept here."""
        out = copy(self)
        out.position = self.position.of(parents)
        parts = [
            replace(part, answer=part.answer.of(own[None]))
            for part, own in zip(self._parts, parents, strict=True)
        ]
        out._set(parts, self.log_lost.gather(1, parents))
        return out

    def sample(self, random: Random) -> dict[str, Tensor]:
        uniform = uniforms(random, *self.position.shape, len(self.graph.latent))
        draws = iter(uniform.split(1))
        return self._tokens(lambda answer: answer.sample(next(draws)))

    def mode(self) -> dict[str, Tensor]:
        return self._tokens(lambda answer: answer.mode())

    def topk(self, k: int) -> tuple[dict[str, Tensor], Tensor]:
        if not isinstance(k, int) or k < 1:
            raise OptionError(f"topk(k) takes a whole number, at least 1, got {k!r}.")
        log = self.log_evidence.new_empty(*self.position.shape, k)
        rows = iter(log.split(1))

        def best(answer: JointPosterior) -> dict[str, Tensor]:
            tokens, own = answer.topk(k)
            next(rows).copy_(own)
            return tokens

        return self._tokens(best, k), log

    def _tokens(
        self, question: Callable[[JointPosterior], dict[str, Tensor]], *more: int
    ) -> dict[str, Tensor]:
        """The answers of all mixtures, in tokens [M, C, ...]."""
        shape = (*self.position.shape, *more)
        out = {name: self.position.mixture.new_empty(shape) for name in self.graph.latent}
        for mixture, part in enumerate(self._parts):
            for name, tokens in part.tokens(question(part.answer)).items():
                out[name][mixture] = tokens[0]
        return out

    def marginals(self) -> dict[str, Tensor]:
        shape, sizes = self.position.shape, self._plan.sizes
        out = {name: self.log_evidence.new_zeros(*shape, sizes[name]) for name in self.graph.latent}
        for mixture, part in enumerate(self._parts):
            for name, values in part.answer.marginals().items():
                out[name][mixture, :, part.kept[name]] = values[0]
        return out

    def pairwise(self, first: str, second: str) -> Tensor:
        self._check_latent(first, second)
        sizes = self._plan.sizes[first], self._plan.sizes[second]
        out = self.log_evidence.new_zeros(*self.position.shape, *sizes)
        for mixture, part in enumerate(self._parts):
            one, two = part.kept[first][:, None], part.kept[second]
            out[mixture][:, one, two] = part.answer.pairwise(first, second)[0]
        return out
