"""What can be watched of a separation while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .infer import Posterior


@dataclass(frozen=True)
class Watched:
    """One position of a separation, just after its tokens were drawn.

    first: number of the first of the M mixtures that are separated together. position: 0 ..
    length - 1. posterior: of the candidates as they were before this position, [M, C]. tokens:
    {source: int64 [M, C]} of the candidates after it. parents: which of the candidates before each
    of those continues, int64 [M, C], or None where each continues itself. weights: log weights of
    the candidates after it, [M, C].
    """

    first: int
    position: int
    length: int
    posterior: Posterior
    tokens: Mapping[str, Tensor]
    parents: Tensor | None
    weights: Tensor


Watch = Callable[[Watched], None]
"""Called at each position; what it raises ends the separation."""
