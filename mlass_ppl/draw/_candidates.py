"""What the candidates of one mixture say together: their shares, and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._separating.signals import interchangeable

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..separation import Separation


def shares(separation: Separation, mixture: int) -> Tensor:
    """Weights of the search, normalised over the candidates of a mixture, float64 [C]; all alike
    where the search lost every one."""
    count = separation.evidence.shape[1]
    if separation.log_weights.numel():
        share = separation.log_weights[mixture].detach().cpu().double().softmax(0)
        if not share.isnan().any():
            return share
    return torch.full((count,), 1 / count, dtype=torch.float64)


def candidate_tokens(
    separation: Separation, mixture: int, bundle: Bundle | None = None
) -> dict[str, Tensor]:
    """The candidates' tokens {source: int64 [C, T]}. bundle: sources that it makes interchangeable
    are put into the order that shares the most tokens with the chosen candidate."""
    tokens = {name: own[mixture].cpu() for name, own in separation.candidate_tokens.items()}
    if bundle is not None:
        chosen = int(separation.chosen[mixture])
        for group in interchangeable(separation.graph, bundle.prior_key):
            tokens |= _ordered({name: tokens[name] for name in group}, chosen)
    return tokens


def entropy(tokens: Tensor, share: Tensor) -> Tensor:
    """Entropy over weighted candidates of each position's token, bits, float64 [T].

    tokens: int64 [C, T]. share: float64 [C], summing to 1.
    """
    kinds = tokens.unique(return_inverse=True)[1]  # [C, T], below the number of kinds
    mass = torch.zeros(int(kinds.max()) + 1, tokens.shape[1], dtype=torch.float64)
    mass.scatter_add_(0, kinds, share[:, None].expand(tokens.shape).contiguous())
    return torch.special.entr(mass).sum(0).clamp_min(0) / math.log(2)


def grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a grid of tokens of an image's proportions, else one row."""
    for rows in range(1, tokens + 1):
        if tokens % rows == 0 and rows * width == tokens // rows * height:
            return rows, tokens // rows
    return 1, tokens


def _ordered(tokens: dict[str, Tensor], chosen: int) -> dict[str, Tensor]:
    names = list(tokens)
    stacked = torch.stack([tokens[name] for name in names], 1)  # [C, n, T]
    agree = (stacked[:, :, None] == stacked[chosen][None, None]).sum(-1)  # [C, from, to]
    orders = torch.tensor(_orders(len(names)))
    fit = torch.stack([agree[:, order, range(len(names))].sum(1) for order in orders], 1)
    best = orders[fit.argmax(1)]
    rows = torch.arange(len(stacked))[:, None]
    return dict(zip(names, stacked[rows, best].unbind(1), strict=True))


def _orders(count: int) -> Sequence[tuple[int, ...]]:
    """All orders of a few sources; of many, only the one they stand in."""
    return list(permutations(range(count))) if count <= 6 else [tuple(range(count))]
