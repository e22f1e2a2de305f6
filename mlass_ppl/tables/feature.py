"""What every table p(x | parents) of a continuous feature can do."""

from __future__ import annotations

import abc
from math import prod

import torch
from torch import Tensor

from ..errors import TableError


class FeatureTable(abc.ABC):
    """A density of a feature x in R^D for each configuration of its parents' tokens."""

    power: float
    """Exponent of the density (likelihood tempering)."""

    @property
    @abc.abstractmethod
    def parents(self) -> tuple[int, ...]:
        """Alphabets of the parents."""

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """D, how many numbers a feature has."""

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Memory of the table and of what `log_likelihood` keeps."""

    def possible_cells(self) -> Tensor:
        """Configurations of the parents that are possible: flat row-major indices, int64 [E],
        sorted. All of them, unless a table says otherwise."""
        return torch.arange(prod(self.parents))

    @abc.abstractmethod
    def raised(self, power: float) -> FeatureTable:
        """The density to the power of `power` > 0, not normalised (likelihood tempering)."""

    @abc.abstractmethod
    def log_likelihood(self, features: Tensor) -> Tensor:
        """power * log p(x | parents), nats, of features [M, D]: [M, K_parent1, ..., K_parentr].

        Raises TableError on features of another width or that are not finite.
        """

    def _check(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.width:
            raise TableError(f"expected features [M, {self.width}], got {list(features.shape)}.")
        if not features.is_floating_point() or not torch.isfinite(features).all():
            raise TableError("features must be floats, and finite.")

    def _raised(self, power: float) -> float:
        if not 0 < power < float("inf"):
            raise TableError(f"power must be positive and finite, got {power!r}.")
        return self.power * power
