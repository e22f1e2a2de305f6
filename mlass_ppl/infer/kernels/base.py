"""What a kernel does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Kernel(Protocol):
    """One table, ready to be contracted with messages, one row after another.

    Axes are those of the factor's scope: 0 is the child, 1..r the parents.
    """

    shape: tuple[int, ...]
    """Alphabet of each axis."""

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        """Reduce the table over all axes but `to`, each weighted by its incoming message.

        incoming: {axis: message [R, K_axis]}; given: {axis: tokens int64 [R]}, axes fixed instead
        of reduced. Together with `to` they name every axis. Returns [R, K_to].
        """
        ...
