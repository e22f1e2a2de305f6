"""Refinement by the bundle's own network: one look at the estimates instead of a descent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._separating.signals import Weights, importance
from ..errors import BundleError, OptionError
from .base import Progress, Refinement, check_weights

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .network import Refiner


@dataclass(frozen=True)
class Learned(Refinement):
    """Refinement by the bundle's `Refiner`, trained on separations of mixtures whose truth is known
    (`mlass train refiner`): amortised inference, for any number of sources and any weights.

    passes: how often, each time on the answer of the last. batch_size: mixtures at once (memory,
    not results).
    """

    passes: int = 2
    batch_size: int = 256

    def __post_init__(self) -> None:
        for name in ("passes", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise OptionError(
                    f"Learned({name}=...) must be a whole number, at least 1, got {value!r}."
                )

    def check(self, bundle: Bundle) -> None:
        """Raise BundleError where the bundle has no refiner."""
        _refiner_of(bundle)

    @torch.no_grad()
    def __call__(
        self,
        bundle: Bundle,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        weights: Weights,
        observed: Mapping[str, Tensor],
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Refined signals {source: [M, 1, S, S]} in [0, 1], see `Refinement`; the tokens are not
        looked at. Raises BundleError where the bundle has no refiner, OptionError for a source
        without any weight, and SignalError on signals that are no grey images."""
        network = _refiner_of(bundle)
        check_weights(signals, weights)
        names, sites = list(signals), importance(weights, observed)
        device = next(network.parameters()).device
        share = torch.tensor([[weights[site].get(name, 0.0) for name in names] for site in sites])
        counts = torch.tensor(list(sites.values()))
        total = len(signals[names[0]])
        parts: list[Tensor] = []
        for begin in range(0, total, self.batch_size):
            rows = slice(begin, begin + self.batch_size)
            now = torch.stack([signals[name][rows] for name in names], 1).to(device)
            given = torch.stack([observed[site][rows] for site in sites], 1).to(device)
            for _ in range(self.passes):
                now = network(now, given, share.to(device), counts.to(device))
            parts.append(now.to(signals[names[0]].device))
            if progress is not None:
                progress(min(begin + self.batch_size, total), total)
        return dict(zip(names, torch.cat(parts).unbind(1), strict=True))


def _refiner_of(bundle: Bundle) -> Refiner:
    if bundle.refiner is None:
        raise BundleError(
            f"bundle '{bundle.name}' has no refiner, which Learned() needs.\n  Train one: mlass "
            f"train refiner --out {bundle.path or 'BUNDLE'}, or refine by descent: Refine()."
        )
    return bundle.refiner
