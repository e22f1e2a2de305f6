"""What fills the rows: floors, ceilings and methods, each a function of a batch of mixtures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .provenance import codec_device
from .records import AnyScore
from .stimuli import Batch, Mixtures

Stages = dict[str, list[AnyScore]]
Notice = Callable[[str], None]
Fraction = Callable[[float], None]
"""Called with the share of the batch that is done, 0 to 1."""


@dataclass(frozen=True)
class Outcome:
    """Scores of a batch by stage, and for methods the share of each mixture's candidates'
    positions that the tables ruled out."""

    stages: Stages
    ruled_out: Sequence[float | None] | None = None


class Task(Protocol):
    """Fills one row: `name` is the row's, the call scores a batch stage by stage."""

    @property
    def name(self) -> str: ...

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome: ...


@dataclass(frozen=True)
class MixtureFloor:
    """The mixture copied to every output."""

    name: str = "floor:mixture"

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome:
        start = time.perf_counter()
        estimates = batch.mixtures[:, None].expand_as(batch.truths)
        return Outcome({"raw": batch.scores(estimates, time.perf_counter() - start)})


@dataclass(frozen=True)
class Silence:
    """Every output zero: black images, or silence."""

    name: str

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome:
        start = time.perf_counter()
        estimates = torch.zeros_like(batch.truths)
        return Outcome({"raw": batch.scores(estimates, time.perf_counter() - start)})


@dataclass(frozen=True)
class TokenCeiling:
    """The true sources encoded and decoded: what the codec lets any token method reach; refined,
    what it lets the whole pipeline reach."""

    mixtures: Mixtures
    refiners: Sequence[Refined]
    name: str = "ceiling:tokens"

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome:
        start = time.perf_counter()
        signals, tokens = self.mixtures.coded(batch)
        stages = {"raw": batch.scores(_stack(signals), time.perf_counter() - start)}
        for refiner in self.refiners:
            stages[refiner.stage] = refiner.scores(signals, tokens, batch, fraction)
        return Outcome(stages)


@dataclass(frozen=True)
class Refined:
    """The refinement `refine` (a `mlass_ppl.Refinement`) with a bundle. `stage`: what its scores
    are called."""

    bundle: Any
    refine: Callable[..., Mapping[str, Tensor]]
    stage: str

    def scores(
        self,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        batch: Batch,
        fraction: Fraction,
    ) -> list[AnyScore]:
        """Refine every source's estimates [B, *signal], of tokens [B, T], against the mixtures,
        their mean, and score them."""
        start = time.perf_counter()
        refined = self.refine(
            self.bundle,
            signals,
            tokens,
            {"mixture": {name: 1.0 / len(tokens) for name in tokens}},
            {"mixture": batch.mixtures.to(codec_device(self.bundle.codec))},
            lambda done, total: fraction(done / max(total, 1)),
        )
        return batch.scores(_stack(refined), time.perf_counter() - start)


@dataclass(frozen=True)
class Separated:
    """One method: its candidates, what the search's estimate makes of them, that refined, and the
    best one by ground truth. `call` is `separate` with everything but the mixtures bound."""

    name: str
    call: Callable[..., Any]
    refiners: Sequence[Refined]
    notice: Notice

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome:
        share = 0.5 if self.refiners else 1.0
        start = time.perf_counter()
        found = self.call(
            batch.mixtures,
            streams=batch.index.tolist(),
            progress=lambda done, total: fraction(share * done / max(total, 1)),
        )
        raw = batch.scores(_stack(found.signals), time.perf_counter() - start)
        stages = {
            "raw": [
                replace(one, candidate=int(candidate))
                for one, candidate in zip(raw, found.chosen, strict=True)
            ],
            "oracle": batch.best([*found.candidates.values()], raw[0].seconds or 0.0),
        }
        for refiner in self.refiners:
            stages[refiner.stage] = refiner.scores(
                found.signals,
                found.tokens,
                batch,
                lambda done: fraction(share + (1.0 - share) * done),
            )
        for line in found.notices:
            self.notice(f"{self.name}: {line}")
        ruled_out = (found.evidence == float("-inf")).double().mean((1, 2))
        return Outcome(stages, ruled_out.tolist())


def _stack(signals: Mapping[str, Tensor]) -> Tensor:
    """{source: [B, *signal]} as [B, n, *signal], in the order of the sources."""
    return torch.stack(list(signals.values()), 1)
