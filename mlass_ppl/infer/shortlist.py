"""Short lists of the tuples of tokens that a group of sources may well have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from .tellers import Teller

_WIDE = 8
"""How many times the list's length are ranked by their fit as well as by their priors."""

_OWN = 128
"""How many tokens of a source go into tuples of several."""

_FLOOR = 1e-30
"""A share below any that matters, so that even impossible tuples have a rank."""


@dataclass(frozen=True)
class Shortlist:
    """tokens: tuples of the tokens of `sources` for each mixture, no two alike, int64
    [len(sources), M, T], or [len(sources), 1, T] where all mixtures have the same ones."""

    sources: tuple[str, ...]
    tokens: Tensor

    def __len__(self) -> int:
        return self.tokens.shape[2]

    @property
    def parts(self) -> dict[str, Tensor]:
        """{source: int64 [M or 1, T]}"""
        return dict(zip(self.sources, self.tokens, strict=True))

    def taken(self, places: Tensor) -> Shortlist:
        """Some tuples of each mixture, by their places int64 [M, T']."""
        tokens = self.tokens.expand(-1, len(places), -1)
        index = places.expand(len(tokens), -1, -1)
        return Shortlist(self.sources, tokens.gather(2, index))

    def log_prior(self, log_priors: Mapping[str, Tensor]) -> Tensor:
        """log p(tuple) of each candidate, [M, T, C], of log_priors {source: nats [M, K, C]}."""
        some = next(iter(log_priors.values()))
        out = some.new_zeros(len(some), len(self), some.shape[2])
        for source, tokens in self.parts.items():
            out += _chosen(log_priors[source], tokens)
        return out


def halves(sources: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sources in two groups, the first one the larger."""
    middle = (len(sources) + 1) // 2
    return tuple(sources[:middle]), tuple(sources[middle:])


def whole(sources: Sequence[str], sizes: Mapping[str, int], device: torch.device) -> Shortlist:
    """Every tuple. sizes: {source: K}."""
    axes = [torch.arange(sizes[name], device=device) for name in sources]
    if not axes:  # nothing to choose: one tuple, of no tokens
        return Shortlist((), torch.zeros(0, 1, 1, dtype=torch.int64, device=device))
    grid = torch.meshgrid(*axes, indexing="ij")
    return Shortlist(tuple(sources), torch.stack(grid).flatten(1)[:, None])


def shortlist(
    sources: Sequence[str], priors: Mapping[str, Tensor], tellers: Sequence[Teller], keep: int
) -> Shortlist:
    """The `keep` most promising tuples of each mixture, or every one where there are no more.

    priors: {source: p(token | past) of each candidate, [M, K, C]}. A tuple's rank is its
    probability averaged over the candidates, times how well the observed features would be met
    were the other sources to follow their average priors. The list grows source by source, to
    `keep` tuples each time. No random numbers, and a mixture's list depends on no other mixture.
    """
    sizes = {name: priors[name].shape[1] for name in sources}
    device = next(iter(priors.values())).device
    if prod(sizes.values()) <= keep:
        return whole(sources, sizes, device)
    if len(sources) == 1:
        return _singles(sources[0], priors, tellers, keep)
    out = whole((), sizes, device)
    for place, name in enumerate(sources):
        # A token that is not promising by itself is in few promising tuples.
        own = _singles(name, priors, tellers, max(_OWN, keep // _OWN))
        if not place:
            out = own
            continue
        share = (_shares(out, priors) @ _shares(own, priors).mT).flatten(1)
        best = share.topk(min(_WIDE * keep, share.shape[1]), sorted=False)
        old, new = best.indices // len(own), best.indices % len(own)
        tokens = [*out.taken(old).tokens, *own.taken(new).tokens]
        both = Shortlist((*out.sources, name), torch.stack(tokens))
        out = _best(both, best.values, tellers, keep)
    return out


def _singles(
    source: str, priors: Mapping[str, Tensor], tellers: Sequence[Teller], count: int
) -> Shortlist:
    """The `count` tokens of one source of highest rank."""
    prior = priors[source]
    every = whole([source], {source: prior.shape[1]}, prior.device)
    return _best(every, prior.sum(2), tellers, count)


def _best(tuples: Shortlist, share: Tensor, tellers: Sequence[Teller], count: int) -> Shortlist:
    """The `count` tuples of highest rank. share: their probabilities, [M, T], up to a factor."""
    if len(tuples) <= count:
        return tuples
    rank = share.clamp_min(_FLOOR).log()
    for teller in tellers:
        rank = rank + teller.fit(tuples.parts)
    return tuples.taken(rank.topk(count).indices)


def _shares(tuples: Shortlist, priors: Mapping[str, Tensor]) -> Tensor:
    """p(tuple) of each candidate, [M, T, C]."""
    first, *rest = (_chosen(priors[name], tokens) for name, tokens in tuples.parts.items())
    for share in rest:
        first = first.mul_(share)
    return first


def _chosen(values: Tensor, tokens: Tensor) -> Tensor:
    """Rows [M, T, C] of values [M, K, C], by the tokens [M or 1, T] of each mixture."""
    if len(tokens) != len(values):
        return values.index_select(1, tokens[0])
    start = torch.arange(len(values), device=values.device)[:, None] * values.shape[1]
    return (
        values.flatten(0, 1).index_select(0, (start + tokens).flatten()).unflatten(0, tokens.shape)
    )
