"""Sparse variable elimination over the rows of a position."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

from ..joint import Kind, Pick
from ..position import Position
from .blocks import Blocks
from .cliques import Cliques, Tokens
from .layout import Grid

_STEP_BYTES = {"cpu": 1 << 23, "cuda": 1 << 28}
"""Size of the lists that are worked on at once: on a CPU what about stays in its cache."""

_KEEP_BYTES = 1 << 29
"""Size of the intermediate results that are kept for the next question."""

_COLUMNS = 64
"""Candidates that are worked on at once even where their list is longer."""


class Elimination:
    """Sum-product ("linear", "sum") or max-product ("max") over a position, bucket by bucket.

    Everything that mentions a site is joined to the list of its clique's possible states; summing
    the site out leaves a message over the other sites, for a later bucket (Dechter, 1999). The
    upward pass runs at construction; the answers walk back down. Rows are worked on in parts;
    messages and lists are kept up to a limit and made again beyond it.
    """

    def __init__(self, cliques: Cliques, position: Position, kind: Kind) -> None:
        self._cliques, self._position, self._kind = cliques, position, kind
        like = position.like
        width, observed = _blocks(cliques, position)
        limit = _STEP_BYTES.get(like.device.type, 1 << 26) // like.element_size()
        grids = _grids(cliques, observed, width, limit, like.device)
        self.weak = torch.zeros(len(position), dtype=torch.bool, device=like.device)
        self._parts = [Blocks(cliques, position, grid, kind, self.weak) for grid in grids]
        self._room = _KEEP_BYTES / max(1, len(grids))
        self.log_evidence = like.new_empty(len(position))
        for part in self._parts:
            part.grid.of(self.log_evidence).copy_(part.log_evidence())
            part.release(self._room)

    def descend(self, pick: Pick) -> dict[str, Tensor]:
        """Assign the sites in reverse order of elimination, each given those before it."""
        rows, device = len(self.log_evidence), self.log_evidence.device
        states: list[dict[int, Tensor]] = [{} for _ in self._parts]
        out = {}
        for number, bucket in reversed(list(enumerate(self._cliques.buckets))):
            found = []
            for part, state in zip(self._parts, states, strict=True):
                if not bucket.separator:  # a root: one state a block
                    state[number] = torch.arange(part.grid.shape[0], device=device)[:, None]
                found.append(part.candidates(number, state.pop(number)))
                part.release(self._room)
            longest = max((cells.shape[2] for cells, _ in found), default=1)
            weights = self.log_evidence.new_zeros(rows, longest)
            for part, (_, own) in zip(self._parts, found, strict=True):
                part.grid.of(weights)[..., : own.shape[2]] = own
            index = pick(weights)
            tokens = torch.empty_like(index)
            for part, state, (cells, _) in zip(self._parts, states, found, strict=True):
                token, below = part.choose(number, cells, part.grid.of(index))
                part.grid.of(tokens).copy_(token)
                state.update(below)
                part.release(self._room)
            out[bucket.site] = torch.where(self._possible, tokens, -1)
        return out

    def rows(self, index: Tensor) -> Elimination:
        """The run of some rows, int64 [R'], made anew."""
        return Elimination(self._cliques, self._position.rows(index), self._kind)

    @property
    def _possible(self) -> Tensor:
        return self.log_evidence > float("-inf")

    def marginals(self) -> dict[str, Tensor]:
        sizes = self._cliques.sizes
        out = {
            bucket.site: self.log_evidence.new_zeros(len(self.log_evidence), sizes[bucket.site])
            for bucket in self._cliques.buckets
        }
        for part in self._parts:
            for name, values in part.marginals(part.grid.of(self._possible)).items():
                part.grid.of(out[name]).copy_(values)
            part.release(self._room)
        return out


def _blocks(cliques: Cliques, position: Position) -> tuple[int, list[Tokens]]:
    """How many neighbouring rows always share a mixture, and the observation of each such block."""
    runs = torch.unique_consecutive(position.mixture, return_counts=True)[1].tolist()
    width = gcd(*runs) if runs else 1
    columns = [position.known[name][::width].tolist() for name in cliques.graph.known]
    blocks = len(position) // width
    return width, list(zip(*columns, strict=True)) if columns else [()] * blocks


def _grids(
    cliques: Cliques, observed: list[Tokens], width: int, limit: int, device: torch.device
) -> list[Grid]:
    """Grids that cover all rows, whose longest lists have about `limit` values at most."""
    sizes: dict[Tokens, int] = {}
    for tokens in observed:
        if tokens not in sizes:
            lists = (cliques.states(n, tokens, device) for n in range(len(cliques.buckets)))
            sizes[tokens] = max(1, *(len(part) for part in lists))
    out: list[Grid] = []
    first, total = 0, 0
    for block, tokens in enumerate(observed):
        size = sizes[tokens] * width
        if block > first and total + size > limit:
            out.append(Grid(width, first, 0, width, tuple(observed[first:block])))
            first, total = block, 0
        total += size
        if size > limit:  # alone, some columns at a time
            step = max(1, limit // sizes[tokens], min(_COLUMNS, 8 * limit // sizes[tokens]))
            for begin in range(0, width, step):
                end = min(width, begin + step)
                out.append(Grid(width, block, begin, end, (tokens,)))
            first, total = block + 1, 0
    if first < len(observed):
        out.append(Grid(width, first, 0, width, tuple(observed[first:])))
    return out
