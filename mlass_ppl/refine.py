"""Refinement of a separation by gradient descent on its continuous latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .codecs.base import Codec
from .errors import OptionError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Refine:
    """The references' refinement: Adam on the latents, mixture error plus a pull to the start.

    steps: Adam steps. lr: learning rate, halved every `steps / 5`. pull: weight of the mean
    squared distance to the first latents. batch_size: mixtures at once (memory, not results).
    """

    steps: int = 500
    lr: float = 0.1
    pull: float = 1e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise OptionError(
                    f"Refine({name}=...) must be a whole number, at least 1, got {value!r}."
                )
        if not 0 < self.lr < float("inf") or not 0 <= self.pull < float("inf"):
            raise OptionError(
                "Refine's lr must be positive and its pull not negative, both finite; got "
                f"lr={self.lr} and pull={self.pull}."
            )


def refine(
    codec: Codec,
    tokens: Mapping[str, Tensor],
    weights: Mapping[str, float],
    mixtures: Tensor,
    config: Refine,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Signals {source: [M, *signal_shape]} whose weighted sum comes nearer to the mixtures.

    tokens: {source: int64 [M, T]}, the starting point. weights: of each source in the mixture.
    mixtures: [M, *signal_shape]. Each mixture is optimised on its own: its result does not depend
    on the others in the batch. progress: called with (done, total) in mixtures.
    """
    names = list(tokens)
    shares = torch.tensor([weights[name] for name in names], device=mixtures.device)
    parts: list[Tensor] = []
    for begin in range(0, len(mixtures), config.batch_size):
        rows = slice(begin, begin + config.batch_size)
        target = mixtures[rows]
        first = torch.stack([codec.embed(tokens[name][rows]) for name in names])
        parts.append(_descend(codec, first, shares, target, config))
        if progress is not None:
            progress(min(begin + config.batch_size, len(mixtures)), len(mixtures))
    signals = torch.cat(parts, 1)
    return dict(zip(names, signals, strict=True))


def _descend(codec: Codec, first: Tensor, shares: Tensor, target: Tensor, config: Refine) -> Tensor:
    count, size = first.shape[:2]

    def decode(latents: Tensor) -> Tensor:
        return codec.decode_latents(latents.flatten(0, 1)).unflatten(0, (count, size))

    with torch.enable_grad():
        latents = first.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], config.lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, config.steps // 5), 0.5)
        for _ in range(config.steps):
            signals = decode(latents)
            error = (torch.einsum("s,s...->...", shares, signals) - target).square()
            drift = (latents - first).square()
            # Means over each mixture, summed over the batch: Adam then treats each on its own.
            loss = error.flatten(1).mean(1).sum()
            loss = loss + config.pull * drift.transpose(0, 1).flatten(1).mean(1).sum()
            (latents.grad,) = torch.autograd.grad(loss, latents)
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return decode(latents)
