"""Where the seconds of a separation go: the priors' forward passes, and the engine with the search.

Parts are wrapped by clocks; what they answer is untouched.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

import mlass_ppl as mlass


@dataclass
class Clock:
    """Seconds by part."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def of(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*given, **options)
            finally:
                self.seconds[part] += time.perf_counter() - began

        return timed


class Timed:
    """A prior or a search, some of whose methods are counted as `part`."""

    def __init__(self, inner: Any, clock: Clock, part: str, *methods: str) -> None:
        self._inner = inner
        for name in methods:
            setattr(self, name, clock.of(part, getattr(inner, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclass(frozen=True)
class TimedEngine(mlass.Engine):
    """An engine whose posteriors are counted as "engine"."""

    inner: mlass.Engine
    clock: Clock = field(repr=False, compare=False)

    def factors(self, graph: mlass.MixingGraph) -> Any:
        return self.inner.factors(graph)

    def plan(self, graph: mlass.MixingGraph, tables: Mapping[str, Any]) -> mlass.Plan:
        plan = self.inner.plan(graph, tables)
        plan.posterior = self.clock.of("engine", plan.posterior)  # type: ignore[method-assign]
        return plan

    def is_exact(self, graph: mlass.MixingGraph) -> bool:
        return self.inner.is_exact(graph)


def shares(
    mixtures: Tensor, program: Any, bundle: mlass.Bundle, infer: Any, search: Any, **options: Any
) -> dict[str, float]:
    """Seconds of one separation: "prior", "engine" (plan.posterior and the search's step) and
    "other", for all mixtures together."""
    clock = Clock()
    priors = {
        key: Timed(prior, clock, "prior", "step", "reorder") for key, prior in bundle.priors.items()
    }
    timed: Any = replace(bundle, priors=priors)
    began = time.perf_counter()
    mlass.separate(
        mixtures, program, timed, infer=TimedEngine(infer, clock),
        search=Timed(search, clock, "engine", "step"), **options,
    )  # fmt: skip
    total = time.perf_counter() - began
    found = {part: clock.seconds[part] for part in ("prior", "engine")}
    return {**found, "other": total - sum(found.values())}
