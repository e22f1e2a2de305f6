"""The joint posterior of two groups of sources, over a short list of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .exponential import exponential
from .random import draw
from .shortlist import Shortlist

_CHUNK_BYTES = 1 << 25


@dataclass(frozen=True)
class Halves:
    """p(a, b | evidence) of M mixtures x C candidates, over the A and B tuples of two lists of each
    mixture.

    likelihood: log p(evidence | a, b), nats [M, A, B], less `top` [M]. log_first, log_second:
    log p(a) and log p(b), nats [M, C, A] and [M, C, B]. weights: proportional to p(a | evidence),
    [M, C, A]. log_evidence: log of the sum over the lists, nats, float64 [M, C].
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
        """likelihood: log p(evidence | a, b), nats [M, A, B]; overwritten."""
        top = likelihood.amax((1, 2)).clamp_min(torch.finfo(likelihood.dtype).min)
        likelihood = likelihood.sub_(top[:, None, None])
        own, mine = _scaled(log_first)
        other, its = _scaled(log_second)
        weights = _sums(other, likelihood.mT).mul_(own)
        total, rest = weights.sum(2), (mine.double() + its)[..., 0]
        log_evidence = total.double().log() + rest + top[:, None]
        out = cls(first, second, likelihood, top, log_first, log_second, weights, log_evidence)
        # Rows near underflow again, in logarithms: they are few, and each costs A x B exponentials.
        for rows, joint in out._joint(_weak(total) & rest.isfinite()):
            weights[rows], scale = _scaled(joint.logsumexp(2))
            log_evidence[rows] = weights[rows].double().sum(1).log() + scale[:, 0] + top[rows[0]]
        return out

    def of(self, parents: Tensor) -> Halves:
        """Of other candidates, int64 [M, C']."""
        own = torch.arange(len(parents), device=parents.device)[:, None], parents
        return replace(
            self,
            log_first=self.log_first[own],
            log_second=self.log_second[own],
            weights=self.weights[own],
            log_evidence=self.log_evidence[own],
        )

    def draw(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Places in the lists by uniform numbers [M, C], int64 [M, C] each; -1 where impossible."""
        first = draw(self.weights.flatten(0, 1), one.flatten()).reshape(one.shape)
        row = torch.arange(len(first), device=first.device)[:, None]
        given = self.likelihood[row, first.clamp_min(0)] + self.log_second  # p(b | a, evidence)
        second = draw(_scaled(given)[0].flatten(0, 1), other.flatten()).reshape(other.shape)
        return first, torch.where(first < 0, -1, second)

    def shares(self) -> tuple[Tensor, Tensor]:
        """p(a | evidence) [M, C, A] and p(b | evidence) [M, C, B], float64; zeros where
        impossible."""
        own, other = _scaled(self.log_first)[0], _scaled(self.log_second)[0]
        second = _sums(own, self.likelihood).mul_(other)
        for rows, joint in self._joint(_weak(second.sum(2)) & self.log_evidence.isfinite()):
            second[rows] = _scaled(joint.logsumexp(1))[0]
        return _normalised(self.weights), _normalised(second)

    def topk(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k most probable pairs: places int64 [M, C, k] in both lists, and their log joint
        probabilities with the evidence, nats [M, C, k]; -1 and -inf where there are fewer."""
        shape, wide = (*self.log_evidence.shape, k), len(self.second)
        places = torch.full(shape, -1, device=self.top.device)
        log = self.log_first.new_full(shape, float("-inf"))
        few = min(k, len(self.first) * wide)
        for rows, joint in self._joint(torch.ones_like(self.log_evidence, dtype=torch.bool)):
            best = joint.flatten(1).topk(few)
            log[(*rows, slice(few))] = best.values + self.top[rows[0], None]
            places[(*rows, slice(few))] = best.indices
        places = torch.where(log > float("-inf"), places, -1)
        return (
            places.div(wide, rounding_mode="floor"),
            torch.where(places < 0, -1, places % wide),
            log,
        )

    def together(self, first: Tensor, second: Tensor, sizes: tuple[int, int]) -> Tensor:
        """p(token of a, token of b | evidence), float64 [M, C, K, K'].

        first, second: the token of each tuple, int64 [M or 1, A] and [M or 1, B].
        """
        shape = self.log_evidence.shape
        out = torch.zeros(*shape, *sizes, dtype=torch.float64, device=first.device)
        first, second = first.expand(len(out), -1), second.expand(len(out), -1)
        for rows, joint in self._joint(self.log_evidence.isfinite()):
            rest = (self.top[rows[0]] - self.log_evidence[rows]).to(joint)
            share = joint.add_(rest[:, None, None]).exp().double()
            half = share.new_zeros(len(share), sizes[0], share.shape[2])
            half.scatter_add_(1, first[rows[0], :, None].expand_as(share), share)
            index = second[rows[0], None].expand_as(half)
            out[rows] = share.new_zeros(len(share), *sizes).scatter_add_(2, index, half)
        return out

    def log_covered(self) -> Tensor:
        """log of the prior mass of all pairs, nats, float64 [M, C]."""
        return self.log_first.double().logsumexp(2) + self.log_second.double().logsumexp(2)

    def _joint(self, rows: Tensor) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Some rows (bool [M, C]) at a time: which mixtures and candidates, int64 [R] each, and
        log p(a, b, evidence) less `top`, [R, A, B]."""
        size = len(self.first) * len(self.second) * self.likelihood.element_size()
        step = max(1, _CHUNK_BYTES // size)
        for part in rows.nonzero().split(step):
            if len(part):
                mixture, candidate = own = part[:, 0], part[:, 1]
                joint = self.likelihood[mixture] + self.log_first[own][:, :, None]
                yield (mixture, candidate), joint.add_(self.log_second[own][:, None])


def _sums(weights: Tensor, log: Tensor) -> Tensor:
    """Of weights [M, C, A] and logarithms [M, A, B], the sums of weights times exponentials,
    [M, C, B]; some mixtures at a time, since exponentials take as much memory as `log`."""
    step = max(1, _CHUNK_BYTES // (log[:1].numel() * log.element_size() + 1))
    parts = zip(weights.split(step), log.split(step), strict=True)
    return torch.cat([some @ exponential(own.clone()) for some, own in parts])


def _scaled(log: Tensor) -> tuple[Tensor, Tensor]:
    """exp(log - the largest) of each row, zeros where there is none, and the largest, over the last
    axis."""
    top = log.amax(-1, keepdim=True)
    return exponential(log - top.clamp_min(torch.finfo(log.dtype).min)), top


def _weak(total: Tensor) -> Tensor:
    """Whether sums of scaled products came near underflow."""
    return total < torch.finfo(total.dtype).tiny ** 0.7


def _normalised(weights: Tensor) -> Tensor:
    weights = weights.double()
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)
