"""How a search changes the priors: temperature and its schedule, top-k and nucleus."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import OptionError
from .base import Search

_ROUNDING = 1e-6  # by which a sum of probabilities may miss top_p and still reach it


@dataclass(frozen=True, kw_only=True, repr=False)
class Tempered(Search):
    """Options that every search has. They change each source's prior, never the tables.

    temperature: divides the log probabilities; below 1 trusts the prior more. A pair goes linearly
    from the first token position to the last. top_k: keep only the k most probable tokens. top_p:
    keep only the nucleus (Holtzman et al., "The curious case of neural text degeneration", 2020),
    the fewest tokens, most probable first, whose mass reaches top_p; at least one. They apply in
    this order, each to what the one before left, normalised, as in Hugging Face's `generate`. Of
    tokens that are equally probable the lower number comes first, so that exactly k, and no more
    than the nucleus needs, are kept.

    Raises OptionError on a value out of range.
    """

    temperature: float | tuple[float, float] = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not _is_temperature(self.temperature):
            raise OptionError(
                "temperature must be positive, or a pair of such numbers (first position, last "
                f"position), got {self.temperature!r}."
            )
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise OptionError(
                f"top_k must be None or a whole number, at least 1, got {self.top_k!r}."
            )
        if self.top_p is not None and not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise OptionError(
                f"top_p must be None or a share of the mass, in (0, 1], got {self.top_p!r}."
            )

    def __repr__(self) -> str:
        own = sorted(fields(self), key=lambda field: bool(field.kw_only))
        listed = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in own)
        return f"{type(self).__name__}({listed})"

    def temperature_at(self, position: int, length: int) -> float:
        """The temperature of a position, 0 .. length - 1."""
        if not isinstance(self.temperature, tuple):
            return self.temperature
        first, last = self.temperature
        return first + (last - first) * position / max(length - 1, 1)

    def temper(self, log_priors: Tensor, position: int, length: int) -> Tensor:
        temperature = self.temperature_at(position, length)
        if temperature == 1 and self.top_k is None and self.top_p is None:
            return log_priors
        scores = (log_priors / temperature).log_softmax(-1)
        if self.top_k is None and self.top_p is None:
            return scores
        best = scores.sort(dim=-1, descending=True, stable=True)
        values = best.values
        if self.top_k is not None:
            values = values.clone()
            values[..., self.top_k :] = float("-inf")
            values = values.log_softmax(-1)
        if self.top_p is not None:
            mass = values.double().exp()
            before = mass.cumsum(-1) - mass
            values = values.masked_fill(before >= self.top_p - _ROUNDING, float("-inf"))
            values[..., 0] = best.values[..., 0]
        kept = torch.full_like(scores, float("-inf")).scatter(-1, best.indices, values)
        return kept.log_softmax(-1)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_temperature(value: object) -> bool:
    pair = value if isinstance(value, tuple) else (value, value)
    return len(pair) == 2 and all(_is_number(t) and 0 < t < float("inf") for t in pair)
