"""The two number systems that messages live in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce as fold

import torch
from torch import Tensor

from .exponential import exponential


@dataclass(frozen=True)
class Linear:
    """Messages are scaled probabilities, products are products."""

    def safe(self, dtype: torch.dtype) -> float:
        """Log mass above which what underflowed beside it cannot matter."""
        return 0.5 * math.log(torch.finfo(dtype).tiny)

    def lift(self, log: Tensor) -> tuple[Tensor, Tensor]:
        """Message exp(log - top) and its scale `top` [R]."""
        top = _finite(log.amax(-1))
        return exponential(log - top[:, None]), top

    def times(self, messages: list[Tensor]) -> Tensor:
        return fold(torch.mul, messages)

    def rescale(self, message: Tensor) -> tuple[Tensor, Tensor]:
        """Message with largest entry 1, and the logarithm of what was divided out [R]; a message
        without mass stays zero and says -inf."""
        top = message.amax(-1)
        scale = torch.where(top > 0, top, torch.ones_like(top))
        return message / scale[:, None], top.log()

    def peak(self, message: Tensor) -> tuple[Tensor, Tensor]:
        """As `rescale`."""
        return self.rescale(message)

    def blend(self, new: Tensor, old: Tensor, damping: float) -> Tensor:
        """(1 - damping) new + damping old, where `new` is not zero; zero elsewhere."""
        return torch.where(new > 0, torch.lerp(new, old, damping), new)

    def reduce(self, values: Tensor) -> Tensor:
        """Over the last axis."""
        return values.sum(-1)

    def log_total(self, message: Tensor) -> Tensor:
        return message.sum(-1).log()

    def weights(self, message: Tensor) -> Tensor:
        """Non-negative weights [R, K] for drawing."""
        return message


@dataclass(frozen=True)
class Logarithmic:
    """Messages are logarithms, products are sums; `largest` reduces by maximum, not by sum."""

    largest: bool = False

    def safe(self, dtype: torch.dtype) -> float:
        return float("-inf")

    def lift(self, log: Tensor) -> tuple[Tensor, Tensor]:
        return log, torch.zeros_like(log[:, 0])

    def times(self, messages: list[Tensor]) -> Tensor:
        return fold(torch.add, messages)

    def rescale(self, message: Tensor) -> tuple[Tensor, Tensor]:
        return message, torch.zeros_like(message[:, 0])

    def peak(self, message: Tensor) -> tuple[Tensor, Tensor]:
        """Message with largest entry 0, and what was taken off [R], -inf where all is -inf."""
        top = message.amax(-1)
        return message - _finite(top)[:, None], top

    def blend(self, new: Tensor, old: Tensor, damping: float) -> Tensor:
        """As in linear space, so that a message that was nearly zero can come back in one step."""
        if not damping:
            return new
        both = torch.logaddexp(new + math.log1p(-damping), old + math.log(damping))
        return torch.where(new > float("-inf"), both, new)

    def reduce(self, values: Tensor) -> Tensor:
        return values.amax(-1) if self.largest else log_sum(values)

    def log_total(self, message: Tensor) -> Tensor:
        return self.reduce(message)

    def weights(self, message: Tensor) -> Tensor:
        return (message - _finite(message.amax(-1, keepdim=True))).exp()


Algebra = Linear | Logarithmic


def log_sum(values: Tensor, dim: int = -1) -> Tensor:
    """logsumexp whose value for nothing but -inf is -inf, never NaN."""
    top = _finite(values.amax(dim, keepdim=True))
    return (values - top).exp().sum(dim).log() + top.squeeze(dim)


def _finite(top: Tensor) -> Tensor:
    return torch.where(top == float("-inf"), torch.zeros_like(top), top)
