"""Refinement of a separation by gradient descent on its continuous latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._separating.signals import Weights, importance
from ..codecs.base import Codec
from ..errors import OptionError
from .base import Progress, Refinement, check_weights

if TYPE_CHECKING:
    from ..bundle import Bundle


@dataclass(frozen=True)
class Refine(Refinement):
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

    def __call__(
        self,
        bundle: Bundle,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        weights: Weights,
        observed: Mapping[str, Tensor],
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """`refine` from the tokens; the signals decoded from them are not looked at."""
        return refine(bundle.codec, tokens, weights, observed, self, progress)


def refine(
    codec: Codec,
    tokens: Mapping[str, Tensor],
    weights: Mapping[str, float] | Weights,
    mixtures: Tensor | Mapping[str, Tensor],
    config: Refine,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Signals {source: [M, *signal_shape]} whose weighted sums come nearer to what was observed.

    tokens: {source: int64 [M, T]}, the starting point. mixtures: the observed signal, [M,
    *signal_shape], or each observed site's, {site: ...}; all are fitted together. weights: of each
    source in the mixture, {source: float}, or {site: {source: float}}. Each mixture is optimised on
    its own: its result does not depend on the others in the batch. progress: called with
    (done, total) in mixtures. Raises OptionError when weights and mixtures name different sites,
    and for a source without any weight.
    """
    observed, mixing = _by_site(tokens, mixtures, weights)
    names, sites = list(tokens), importance(mixing, observed)
    device = next(iter(observed.values())).device
    shares = torch.tensor(
        [[mixing[site].get(name, 0.0) for name in names] for site in sites], device=device
    )
    counts = torch.tensor(list(sites.values()), device=device)
    total = len(next(iter(observed.values())))
    parts: list[Tensor] = []
    for begin in range(0, total, config.batch_size):
        rows = slice(begin, begin + config.batch_size)
        targets = [observed[site][rows] for site in sites]
        first = torch.stack([codec.embed(tokens[name][rows]) for name in names])
        parts.append(_descend(codec, first, shares, counts, targets, config))
        if progress is not None:
            progress(min(begin + config.batch_size, total), total)
    signals = torch.cat(parts, 1)
    return dict(zip(names, signals, strict=True))


def _by_site(
    tokens: Mapping[str, Tensor],
    mixtures: Tensor | Mapping[str, Tensor],
    weights: Mapping[str, float] | Weights,
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    if isinstance(mixtures, Tensor):
        flat = {name: own for name, own in weights.items() if not isinstance(own, Mapping)}
        observed, mixing = {"mixture": mixtures}, {"mixture": flat} if flat else {}
    else:
        observed = dict(mixtures)
        mixing = {site: dict(own) for site, own in weights.items() if isinstance(own, Mapping)}
    if mixing.keys() != observed.keys() or not observed:
        raise OptionError(
            "refine takes one signal with weights {source: float}, or a signal for each observed "
            f"site with weights {{site: {{source: float}}}}; got signals of {list(observed)} and "
            f"weights of {list(weights)}."
        )
    check_weights(tokens, mixing)
    return observed, mixing


def _descend(
    codec: Codec,
    first: Tensor,
    shares: Tensor,
    counts: Tensor,
    targets: Sequence[Tensor],
    config: Refine,
) -> Tensor:
    """first: latents [n, M, ...]. shares: [O, n] of each source in each of O observed signals, of
    which `targets` holds each one's [M, *signal_shape] and `counts` [O] how much it counts."""
    count, size = first.shape[:2]

    def decode(latents: Tensor) -> Tensor:
        return codec.decode_latents(latents.flatten(0, 1)).unflatten(0, (count, size))

    with torch.enable_grad():
        latents = first.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], config.lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, config.steps // 5), 0.5)
        for _ in range(config.steps):
            signals = decode(latents)
            # Means over each mixture, summed over the batch: Adam then treats each on its own.
            loss = torch.zeros((), device=first.device)
            for share, weight, target in zip(shares, counts, targets, strict=True):
                error = (torch.einsum("s,s...->...", share, signals) - target).square()
                loss = loss + weight * error.flatten(1).mean(1).sum()
            drift = (latents - first).square()
            loss = loss + config.pull * drift.transpose(0, 1).flatten(1).mean(1).sum()
            (latents.grad,) = torch.autograd.grad(loss, latents)
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return decode(latents)
