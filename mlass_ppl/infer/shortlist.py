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
    """tokens: tuples of the tokens of `sources`, no two alike, int64 [len(sources), T]."""

    sources: tuple[str, ...]
    tokens: Tensor

    def __len__(self) -> int:
        return self.tokens.shape[1]

    @property
    def parts(self) -> dict[str, Tensor]:
        """{source: int64 [T]}"""
        return dict(zip(self.sources, self.tokens, strict=True))

    def log_prior(self, log_priors: Mapping[str, Tensor]) -> Tensor:
        """log p(tuple) of each candidate, [C, T], of log_priors {source: nats [C, K]}."""
        some = next(iter(log_priors.values()))
        out = some.new_zeros(len(some), len(self))
        for source, tokens in self.parts.items():
            out += log_priors[source].index_select(1, tokens)
        return out


def halves(sources: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sources in two groups, the first one the larger."""
    middle = (len(sources) + 1) // 2
    return tuple(sources[:middle]), tuple(sources[middle:])


def whole(sources: Sequence[str], sizes: Mapping[str, int], device: torch.device) -> Shortlist:
    """Every tuple. sizes: {source: K}."""
    axes = [torch.arange(sizes[name], device=device) for name in sources]
    if not axes:  # nothing to choose: one tuple, of no tokens
        return Shortlist((), torch.zeros(0, 1, dtype=torch.int64, device=device))
    grid = torch.meshgrid(*axes, indexing="ij")
    return Shortlist(tuple(sources), torch.stack(grid).flatten(1))


def shortlist(
    sources: Sequence[str], priors: Mapping[str, Tensor], tellers: Sequence[Teller], keep: int
) -> Shortlist:
    """The `keep` most promising tuples, or every one where there are no more.

    priors: {source: p(token | past) of each candidate, [C, K]}. A tuple's rank is its probability
    averaged over the candidates, times how well the observed features would be met were the other
    sources to follow their average priors. The list grows source by source, to `keep` tuples each
    time. No random numbers; one mixture at a time, so that a list depends on no other mixture.
    """
    sizes = {name: priors[name].shape[1] for name in sources}
    device = next(iter(priors.values())).device
    if prod(sizes.values()) <= keep:
        return whole(sources, sizes, device)
    out = whole((), sizes, device)
    for place, name in enumerate(sources):
        # A token that is not promising by itself is in few promising tuples.
        own = _best(whole([name], sizes, device), priors, tellers, max(_OWN, keep // _OWN))
        if not place:
            out = own if len(sources) > 1 else _best(own, priors, tellers, keep)
            continue
        shares = _shares(out, priors).T @ _shares(own, priors)
        best = shares.flatten().topk(min(_WIDE * keep, shares.numel())).indices
        old, new = best // len(own), own.tokens[:, best % len(own)]
        tokens = torch.cat([out.tokens[:, old], new])
        out = _best(Shortlist((*out.sources, name), tokens), priors, tellers, keep)
    return out


def _best(
    tuples: Shortlist, priors: Mapping[str, Tensor], tellers: Sequence[Teller], count: int
) -> Shortlist:
    """The `count` tuples of highest rank."""
    if len(tuples) <= count:
        return tuples
    rank = _shares(tuples, priors).sum(0).clamp_min(_FLOOR).log()
    for teller in tellers:
        rank = rank + teller.fit(tuples.parts)
    return Shortlist(tuples.sources, tuples.tokens[:, rank.topk(count).indices])


def _shares(tuples: Shortlist, priors: Mapping[str, Tensor]) -> Tensor:
    """p(tuple) of each candidate, [C, T]."""
    out: Tensor | None = None
    for source, tokens in tuples.parts.items():
        share = priors[source].index_select(1, tokens)
        out = share if out is None else out.mul_(share)
    assert out is not None  # a list is of one source at least
    return out
