"""What a refinement is: estimates in, better estimates out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from .._separating.signals import Weights
from ..errors import OptionError

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..separation import Separation

Progress = Callable[[int, int], None]
"""Called with (done, total) in mixtures."""


class Refinement(Protocol):
    """Frozen configuration of a refinement; `separate` calls it with the chosen candidates.

    A refinement of one's own that subclasses it has `check` and `apply` already.
    """

    def check(self, bundle: Bundle) -> None:
        """Raise where this refinement cannot work with a bundle, before any long work."""
        return None

    def __call__(
        self,
        bundle: Bundle,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        weights: Weights,
        observed: Mapping[str, Tensor],
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Signals {source: [M, *signal_shape]} in [0, 1], from the estimates `signals` of the same
        shape, as decoded from `tokens` {source: int64 [M, T]}. weights: {site: {source: float}} of
        the sources in each observed site. observed: {site: [M, *signal_shape]}, what was given
        there. Mixtures do not depend on each other. Raises OptionError for a source without any
        weight: nothing that was observed says how to change it."""
        ...

    def apply(self, found: Separation, bundle: Bundle) -> Separation:
        """The separation with its sources refined, as `separate` answers it."""
        began = time.perf_counter()
        weights = {site: found.graph.leaf_weights(site) for site in found.observed}
        refined = self(bundle, found.signals, found.tokens, weights, found.observed)
        return replace(found, refined=refined, refine_seconds=time.perf_counter() - began)


def check_weights(sources: Iterable[str], weights: Weights) -> None:
    """Raise OptionError for sources that no observed site holds."""
    if silent := [s for s in sources if not any(own.get(s, 0.0) for own in weights.values())]:
        raise OptionError(
            f"sources {silent} have no weight in any signal; weights are of {list(weights)}."
        )
