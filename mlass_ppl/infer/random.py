"""Random numbers by row, and draws from weights that never pick a zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import EngineError

Random = torch.Generator | Sequence[torch.Generator] | Tensor


def uniforms(random: Random, mixtures: int, candidates: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1), float64 [M, C, count], from one generator, or from one for each
    mixture, or as they are given."""
    shape = (mixtures, candidates, count)
    if isinstance(random, Tensor):
        if tuple(random.shape) != shape:
            raise EngineError(f"expected uniform numbers {list(shape)}, got {list(random.shape)}.")
        return random.double()
    if isinstance(random, torch.Generator):
        return torch.rand(shape, generator=random, dtype=torch.float64, device=random.device)
    if len(random) != mixtures:
        raise EngineError(f"expected {mixtures} generators, one a mixture, got {len(random)}.")
    return torch.stack(
        [
            torch.rand(shape[1:], generator=generator, dtype=torch.float64, device=generator.device)
            for generator in random
        ]
    )


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """Index drawn from each row of non-negative `weights` [R, K] by inverse transform; uniform
    [R] in [0, 1). Rows without weight give -1; a cell of weight zero is never drawn."""
    total = weights.double().cumsum(-1)
    mass = total[:, -1:]
    # A product that rounds up to the whole mass would fall behind the last positive cell.
    target = torch.minimum(uniform[:, None] * mass, torch.nextafter(mass, torch.zeros_like(mass)))
    index = torch.searchsorted(total, target, right=True)[:, 0]
    return torch.where(mass[:, 0] > 0, index, -1)


class Draws:
    """One uniform number for each row and site, float64 [R, S], used up draw by draw.

    What a draw leaves of its number, its place within the cell that it fell into, is uniform again
    and independent of the cell: later draws of the same site need no other numbers.
    """

    def __init__(self, sites: Sequence[str], uniform: Tensor) -> None:
        self._sites, self._uniform = list(sites), uniform.clone()

    def __call__(self, site: str, rows: Tensor, weights: Tensor) -> Tensor:
        """A token of each of some rows [N] by weights [N, K], -1 where there are none."""
        column = self._sites.index(site)
        uniform = self._uniform[rows, column]
        token = draw(weights, uniform)
        cell = token.clamp_min(0)[:, None]
        total = weights.double().cumsum(-1)
        share, end = weights.double().gather(1, cell)[:, 0], total.gather(1, cell)[:, 0]
        rest = (uniform * total[:, -1] - end + share) / torch.where(share > 0, share, 1.0)
        self._uniform[rows, column] = rest.clamp(0, 1 - 2**-53)
        return token
