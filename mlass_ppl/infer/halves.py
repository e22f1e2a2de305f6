"""The joint posterior of two groups of sources in one mixture, over a short list of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .random import draw
from .shortlist import Shortlist

_CHUNK_BYTES = 1 << 25


@dataclass(frozen=True)
class Halves:
    """p(a, b | evidence) of C candidates, over the tuples a and b of two lists.

    likelihood: log p(evidence | a, b), nats [A, B], less `top`. log_first, log_second: log p(a) and
    log p(b), nats [C, A] and [C, B]. weights: proportional to p(a | evidence), [C, A].
    log_evidence: log of the sum over the lists, nats [C].
    """

    first: Shortlist
    second: Shortlist
    likelihood: Tensor
    top: Tensor
    log_first: Tensor
    log_second: Tensor
    weights: Tensor
    log_evidence: Tensor

    @classmethod
    def join(
        cls,
        first: Shortlist,
        second: Shortlist,
        likelihood: Tensor,
        log_first: Tensor,
        log_second: Tensor,
    ) -> Halves:
        """likelihood: log p(evidence | a, b), nats [A, B]; overwritten."""
        top = likelihood.amax().clamp_min(torch.finfo(likelihood.dtype).min)
        likelihood = likelihood.sub_(top)
        own, mine = _scaled(log_first)
        other, its = _scaled(log_second)
        weights = (other @ _exp(likelihood).T).mul_(own)
        total = weights.sum(1)
        log_evidence = total.double().log() + mine[:, 0] + its[:, 0] + top
        out = cls(first, second, likelihood, top, log_first, log_second, weights, log_evidence)
        # Rows near underflow again, in logarithms: they are few, and each costs A x B exponentials.
        weak = _weak(total) & mine[:, 0].isfinite() & its[:, 0].isfinite()
        for rows, joint in out._joint(weak):
            weights[rows], scale = _scaled(joint.logsumexp(2))
            log_evidence[rows] = weights[rows].double().sum(1).log() + scale[:, 0] + top
        return out

    def of(self, parents: Tensor) -> Halves:
        """Of other candidates, int64 [C']."""
        return replace(
            self,
            log_first=self.log_first[parents],
            log_second=self.log_second[parents],
            weights=self.weights[parents],
            log_evidence=self.log_evidence[parents],
        )

    def draw(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Places in the lists by uniform numbers [C], int64 [C] each; -1 where impossible."""
        first = draw(self.weights, one)
        given = self.likelihood[first.clamp_min(0)] + self.log_second  # p(b | a, evidence), scaled
        second = draw(_scaled(given)[0], other)
        return first, torch.where(first < 0, -1, second)

    def shares(self) -> tuple[Tensor, Tensor]:
        """p(a | evidence) [C, A] and p(b | evidence) [C, B], float64; zeros where impossible."""
        own, other = _scaled(self.log_first)[0], _scaled(self.log_second)[0]
        second = (own @ _exp(self.likelihood)).mul_(other)
        weak = _weak(second.sum(1)) & self.log_evidence.isfinite()
        for rows, joint in self._joint(weak):
            second[rows] = _scaled(joint.logsumexp(1))[0]
        return _normalised(self.weights), _normalised(second)

    def topk(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k most probable pairs: places int64 [C, k] in both lists, and their log joint
        probabilities with the evidence, nats [C, k]; -1 and -inf where there are fewer."""
        count, wide = len(self.log_first), len(self.second)
        places = torch.full((count, k), -1, device=self.top.device)
        log = self.log_first.new_full((count, k), float("-inf"))
        few = min(k, self.likelihood.numel())
        every = torch.ones(count, dtype=torch.bool, device=self.top.device)
        for rows, joint in self._joint(every):
            best = joint.flatten(1).topk(few)
            log[rows, :few] = best.values + self.top
            places[rows, :few] = best.indices
        places = torch.where(log > float("-inf"), places, -1)
        return (
            places.div(wide, rounding_mode="floor"),
            torch.where(places < 0, -1, places % wide),
            log,
        )

    def together(self, first: Tensor, second: Tensor, sizes: tuple[int, int]) -> Tensor:
        """p(token of a, token of b | evidence), float64 [C, K, K'].

        first, second: the token of each tuple, int64 [A] and [B].
        """
        out = torch.zeros(len(self.log_first), *sizes, dtype=torch.float64, device=first.device)
        possible = self.log_evidence.isfinite()
        for rows, joint in self._joint(possible):
            rest = (self.top - self.log_evidence[rows]).to(joint)
            share = (joint + rest[:, None, None]).exp().double()
            half = share.new_zeros(len(rows), sizes[0], share.shape[2])
            half.index_add_(1, first, share)
            out[rows] = out[rows].index_add(2, second, half)
        return out

    def log_covered(self) -> Tensor:
        """log of the prior mass of all pairs, nats, float64 [C]."""
        return self.log_first.double().logsumexp(1) + self.log_second.double().logsumexp(1)

    def _joint(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Some rows (bool [C]) at a time: which, int64 [R], and log p(a, b, evidence) less `top`,
        [R, A, B]."""
        like = self.likelihood
        step = max(1, _CHUNK_BYTES // (like.numel() * like.element_size()))
        for part in rows.nonzero()[:, 0].split(step):
            if len(part):
                yield part, self.log_first[part, :, None] + like + self.log_second[part, None]


def _scaled(log: Tensor) -> tuple[Tensor, Tensor]:
    """exp(log - the largest) of each row, zeros where there is none, and the largest [R, 1]."""
    top = log.amax(1, keepdim=True)
    return _exp(log - top.clamp_min(torch.finfo(log.dtype).min)), top


def _exp(log: Tensor) -> Tensor:
    """exp(log) of logarithms up to 0, and zero below 1e-37 (of 32 bits), where processors take ten
    times as long."""
    least = 0.97 * math.log(torch.finfo(log.dtype).tiny)
    return torch.where(log > least, log.clamp_min(least).exp_(), 0.0)


def _weak(total: Tensor) -> Tensor:
    """Whether sums of scaled products came near underflow."""
    return total < torch.finfo(total.dtype).tiny ** 0.7


def _normalised(weights: Tensor) -> Tensor:
    weights = weights.double()
    total = weights.sum(1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)
