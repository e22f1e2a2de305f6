"""Lists of joint states, one for each observation in a batch, laid end to end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..position import Position
from .cliques import Cliques, Tokens
from .segments import Segments

NEVER = float("-inf")


@dataclass(frozen=True)
class Grid:
    """Rows of a position in blocks of W that share mixture and observation; B blocks from `first`
    on, and of each the columns `begin` to `end`. tokens: the observation of each block."""

    width: int
    first: int
    begin: int
    end: int
    tokens: tuple[Tokens, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(B, C)."""
        return len(self.tokens), self.end - self.begin

    def of(self, values: Tensor) -> Tensor:
        """Its part of values [R, ...]: [B, C, ...]."""
        blocks = values.unflatten(0, (-1, self.width))
        return blocks[self.first : self.first + len(self.tokens), self.begin : self.end]


@dataclass(frozen=True)
class Layout:
    """The states of one bucket for all blocks: E of them, block after block, and one more of
    weight zero, which stands for none.

    token: int64 [E + 1]; token t of block b is b K + t. below: {child: where the state of its
    separator is, int64 [E + 1]}. weight: that of tables and likelihoods, [E + 1]: its logarithm, or
    in linear space its ratio to the largest of the block, of which `top` [B, 1] is the logarithm.
    segments: the states of each of the S states of the separator. blocks: these S, by block.
    longest: the most states of a segment.
    """

    token: Tensor
    below: dict[int, Tensor]
    weight: Tensor
    top: Tensor
    segments: Segments
    blocks: Segments
    longest: int

    @property
    def nbytes(self) -> int:
        places = self.token.nbytes * (1 + len(self.below))
        return places + self.weight.nbytes + self.segments.nbytes + self.blocks.nbytes


def lay_out(cliques: Cliques, position: Position, grid: Grid, number: int, linear: bool) -> Layout:
    """Layout of a bucket on the position's device. Raises PlanError when a list that it takes
    would be too large."""
    like = position.like
    mixture = grid.of(position.mixture)[:, 0]

    here = [cliques.states(number, tokens, like.device) for tokens in grid.tokens]
    starts = [torch.arange(len(here)) * cliques.sizes[cliques.buckets[number].site]]
    last = [0]
    for name in cliques.inputs(number):
        if isinstance(name, str):
            starts.append(mixture.cpu() * position.likelihood[name][0].numel())
            last.append(0)
        else:
            below = (cliques.states(name, tokens, like.device) for tokens in grid.tokens)
            sizes = torch.tensor([len(part.lengths) for part in below])
            starts.append(sizes.cumsum(0) - sizes)
            last.append(int(sizes.sum()))
    counts = torch.tensor([len(part) for part in here], device=like.device)
    shift = torch.stack(starts).to(like.device).repeat_interleave(counts, 1)
    end = torch.tensor(last, device=like.device)[:, None]
    token, *places = torch.cat([torch.cat([part.places for part in here], 1).add_(shift), end], 1)
    log = torch.cat([*(part.log for part in here), here[0].log.new_full((1,), NEVER)])
    log = log.to(like.dtype)
    inner = {}
    for name, place in zip(cliques.inputs(number), places, strict=True):
        if isinstance(name, str):
            log = log + position.likelihood[name].flatten()[place]
        else:
            inner[name] = place
    top = log.new_zeros(len(here), 1)
    if linear:
        every = Segments(counts)
        top = every.max(log[:-1, None])
        top = torch.where(top > NEVER, top, 0.0)
        log[:-1] -= top[every.number, 0]
        log, top = log.exp_(), top[:-1]
    return Layout(
        token,
        inner,
        log,
        top,
        Segments(torch.cat([part.lengths for part in here])),
        Segments(torch.tensor([len(part.lengths) for part in here], device=like.device)),
        max(part.longest for part in here),
    )
