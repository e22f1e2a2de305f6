"""What is done with a batch of mixtures to fill one row: floors, ceiling, methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .metrics import best_permutation, mixture_error, pairwise_psnr, score
from .protocol import MixtureSet
from .provenance import codec_device
from .records import Score

Stages = dict[str, list[Score]]
Notice = Callable[[str], None]
Fraction = Callable[[float], None]
"""Called with the share of the batch that is done, 0 to 1."""


@dataclass(frozen=True)
class Batch:
    """Mixtures `index` int64 [B] of a set: `truths` [B, n, C, H, W], `mixtures` [B, C, H, W]."""

    index: np.ndarray
    images: np.ndarray
    truths: Tensor
    mixtures: Tensor

    @classmethod
    def of(cls, mixtures: MixtureSet, index: np.ndarray) -> Batch:
        truths = mixtures.truths(index)
        return cls(index, mixtures.indices[index], truths, truths.mean(1))

    def scores(self, estimates: Tensor, seconds: float) -> list[Score]:
        """Score estimates [B, n, C, H, W] that took `seconds` for the whole batch."""
        assignment = score(estimates, self.truths)
        errors = mixture_error(estimates, self.mixtures)
        return [
            Score(tuple(psnr.tolist()), tuple(order.tolist()), float(error), seconds / len(errors))
            for psnr, order, error in zip(
                assignment.scores, assignment.permutation, errors, strict=True
            )
        ]


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
class BlackFloor:
    """Silence: every output black."""

    name: str = "floor:black"

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome:
        start = time.perf_counter()
        estimates = torch.zeros_like(batch.truths)
        return Outcome({"raw": batch.scores(estimates, time.perf_counter() - start)})


@dataclass(frozen=True)
class TokenCeiling:
    """The true sources encoded and decoded: what the codec lets any token method reach; refined,
    what it lets the whole pipeline reach. `refiner` None: raw scores alone."""

    codec: Any
    refiner: Refined | None
    name: str = "ceiling:tokens"

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome:
        start = time.perf_counter()
        truths = batch.truths.to(codec_device(self.codec))
        tokens = {
            f"source_{i}": self.codec.encode(source) for i, source in enumerate(truths.unbind(1), 1)
        }
        estimates = _stack({name: self.codec.decode(row) for name, row in tokens.items()})
        stages = {"raw": batch.scores(estimates, time.perf_counter() - start)}
        if self.refiner is not None:
            signals = dict(zip(tokens, estimates.unbind(1), strict=True))
            stages["refined"] = self.refiner.scores(signals, tokens, batch, fraction)
        return Outcome(stages)


@dataclass(frozen=True)
class Refined:
    """The refinement `refine` (a `mlass_ppl.Refinement`) with a bundle."""

    bundle: Any
    refine: Callable[..., Mapping[str, Tensor]]

    def scores(
        self,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        batch: Batch,
        fraction: Fraction,
    ) -> list[Score]:
        """Refine every source's estimates [B, C, H, W], of tokens [B, T], against the mixtures,
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
    """One method: its candidates, the one nearest to the mixture, that one refined, and the best
    one by ground truth. `call` is `separate` with everything but the mixtures bound."""

    name: str
    call: Callable[..., Any]
    refiner: Refined | None
    notice: Notice

    def __call__(self, batch: Batch, fraction: Fraction) -> Outcome:
        share = 1.0 if self.refiner is None else 0.5
        start = time.perf_counter()
        found = self.call(
            batch.mixtures,
            streams=batch.index.tolist(),
            progress=lambda done, total: fraction(share * done / max(total, 1)),
        )
        raw = batch.scores(_stack(found.signals), time.perf_counter() - start)
        stages = {
            "raw": [
                _at_candidate(one, int(candidate))
                for one, candidate in zip(raw, found.chosen, strict=True)
            ],
            "oracle": self._oracle(found, batch, raw[0].seconds),
        }
        if self.refiner is not None:
            stages["refined"] = self.refiner.scores(
                found.signals,
                found.tokens,
                batch,
                lambda done: fraction(share + (1.0 - share) * done),
            )
        for line in found.notices:
            self.notice(f"{self.name}: {line}")
        ruled_out = (found.evidence == float("-inf")).double().mean((1, 2))
        return Outcome(stages, ruled_out.tolist())

    def _oracle(self, found: Any, batch: Batch, seconds: float) -> list[Score]:
        candidates = torch.stack(list(found.candidates.values()), 2)  # [B, C, n, ...]
        assignment = best_permutation(pairwise_psnr(candidates, batch.truths[:, None]))
        errors = mixture_error(candidates, batch.mixtures[:, None])
        best = assignment.mean.argmax(1)
        return [
            Score(
                tuple(assignment.scores[row, pick].tolist()),
                tuple(assignment.permutation[row, pick].tolist()),
                float(errors[row, pick]),
                seconds,
                int(pick),
            )
            for row, pick in enumerate(best)
        ]


def _at_candidate(one: Score, candidate: int) -> Score:
    return Score(one.psnr, one.permutation, one.error, one.seconds, candidate)


def _stack(signals: Mapping[str, Tensor]) -> Tensor:
    """{source: [B, C, H, W]} as [B, n, C, H, W], in the order of the sources."""
    return torch.stack(list(signals.values()), 1)
