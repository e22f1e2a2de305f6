"""How a source looks from what was observed, and estimates that add up to it."""

from __future__ import annotations

import torch
from torch import Tensor

FEATURES = 6
"""Channels of `features`."""

_RIDGE = 1e-3
"""Of the squared weights, added before they are inverted: two signals that mix nearly alike do not
amplify each other's noise."""


def features(estimates: Tensor, observed: Tensor, weights: Tensor) -> Tensor:
    """What each observed signal says of each source, float [B, O, n, 6, S, S].

    estimates: [B, n, 1, S, S]. observed: [B, O, 1, S, S]. weights: [B, O, n]. The channels, all of
    the size of a signal whatever the weights are: the source; the mean of the others; what the
    estimates leave of the mixture; the source that would leave nothing, within [-1, 2]; the
    mixture; and the source's share of it.
    """
    own, mixture = estimates[:, None, :, 0], observed  # [B, 1, n, S, S], [B, O, 1, S, S]
    share = weights[..., None, None]
    whole = share.sum(2, keepdim=True).clamp_min(1e-12)
    parts = share * own
    total = parts.sum(2, keepdim=True)
    left = mixture - total
    others = (total - parts) / (whole - share).clamp_min(1e-3 * whole)
    goal = (own + left / share.clamp_min(1e-3 * whole)).clamp(-1, 2)
    shown = torch.broadcast_tensors(own, others, left / whole, goal, mixture / whole, share / whole)
    return torch.stack(shown, 3)


def trust(weights: Tensor, counts: Tensor | None) -> Tensor:
    """How much of each source's correction each observed signal gives, [B, O, n]: by the signals'
    counts [O] over those that hold the source, summing to 1; all 0 where none does."""
    held = (weights > 0).to(weights.dtype)
    if counts is not None:
        held = held * counts.to(held)[:, None]
    return held / held.sum(1, keepdim=True).clamp_min(1e-12)


def balanced(estimates: Tensor, observed: Tensor, weights: Tensor, rounds: int) -> Tensor:
    """The estimates moved, as little as can be, to where they add up to what was observed.

    estimates: [B, n, 1, S, S]; observed: [B, O, 1, S, S]; weights: [B, O, n]. The true sources are
    such a place, so every pixel comes nearer to them (least squares with a small ridge). rounds:
    how often they are then cut to [0, 1] and, but for the last time, moved again, which goes to a
    place that is in both, as projections onto convex sets in turn do; 0 moves once and cuts
    nothing. Sources without weight stay.
    """
    # Products and sums by hand: autocast would round matmul and einsum to bfloat16.
    gram = (weights[:, :, None] * weights[:, None]).sum(3)  # [B, O, O]
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-12)
    gram = gram + ridge[:, None, None] * torch.eye(gram.shape[1]).to(gram)
    gain = torch.linalg.solve(gram, weights).mT  # [B, n, O]

    def moved(values: Tensor) -> Tensor:
        left = observed - (weights[..., None, None, None] * values[:, None]).sum(2)
        return values + (gain[..., None, None, None] * left[:, None]).sum(2)

    estimates = moved(estimates)
    for again in reversed(range(rounds)):
        estimates = estimates.clamp(0, 1)
        estimates = moved(estimates) if again else estimates
    return estimates
