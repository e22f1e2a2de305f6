"""The k best joint assignments, from any algorithm that finds the best one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import OptionError
from .position import Position

Best = Callable[[Position], tuple[dict[str, Tensor], Tensor]]


def k_best(
    best: Best, position: Position, sizes: Mapping[str, int], k: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Tokens {site: int64 [R, k]} and log joint probabilities [R, k], best first; -1 and -inf
    where a row has fewer than k possible assignments.

    best(position) returns the most probable assignment of each row and its log probability.
    Everything but the best assignment falls into one part for each site: the sites before it as in
    the best, this one different, those after it free. The best of all open parts is next, and is
    split in turn (Lawler, 1972; Nilsson, 1998).
    """
    if not isinstance(k, int) or k < 1:
        raise OptionError(f"topk(k) takes a whole number, at least 1, got {k!r}.")
    rows, names, like = len(position), list(sizes), position.like
    every = torch.arange(rows, device=like.device)
    allowed = {
        name: torch.ones(rows, 1, size, dtype=torch.bool, device=like.device)
        for name, size in sizes.items()
    }  # [R, P, K]: the tokens that each open part allows
    first, log = best(position)
    tokens = torch.stack([first[name] for name in names], 1)[:, None]  # [R, P, S]
    scores = log[:, None]  # [R, P]
    out, out_scores = [], []
    for place in range(k):
        top = scores.argmax(1)
        out_scores.append(scores[every, top])
        winner = tokens[every, top]
        out.append(torch.where(out_scores[-1][:, None] > float("-inf"), winner, -1))
        if place + 1 == k:
            break
        inside = {name: mask[every, top] for name, mask in allowed.items()}
        children = _split(inside, names, winner.clamp_min(0))
        flat = every.repeat_interleave(len(names))
        weights = {
            name: torch.where(mask.flatten(0, 1), 0.0, float("-inf")).to(like)
            for name, mask in children.items()
        }
        found, log = best(position.rows(flat).weighted(weights))
        over = out_scores[-1][flat] == float("-inf")  # nothing was left, so nothing to split
        log = log.masked_fill(over, float("-inf"))
        scores = scores.scatter(1, top[:, None], float("-inf"))
        scores = torch.cat([scores, log.unflatten(0, (rows, len(names)))], 1)
        fresh = torch.stack([found[name] for name in names], 1).unflatten(0, (rows, len(names)))
        tokens = torch.cat([tokens, fresh], 1)
        allowed = {name: torch.cat([allowed[name], children[name]], 1) for name in names}
    chosen = torch.stack(out, 1)
    return {name: chosen[..., axis] for axis, name in enumerate(names)}, torch.stack(out_scores, 1)


def _split(inside: Mapping[str, Tensor], names: list[str], winner: Tensor) -> dict[str, Tensor]:
    """Allowed tokens [R, S, K] of the S parts of what a winner [R, S] leaves."""
    out = {}
    for axis, name in enumerate(names):
        mask = inside[name][:, None].repeat(1, len(names), 1)
        own = torch.zeros_like(inside[name]).scatter(1, winner[:, axis, None], True)
        mask[:, axis] &= ~own
        mask[:, axis + 1 :] &= own[:, None]
        out[name] = mask
    return out
