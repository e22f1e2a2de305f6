"""Mixtures of stems and their scores: by label, except where no prior tells two stems apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..metrics import float64
from ..records import AnyScore, StemScore
from .mel import LogMel, log_mel_l1
from .ratios import permuted, sdr, sdri, si_sdr, si_sdri

METRICS = ("sdr_db", "si_sdr_db", "sdri_db", "si_sdri_db", "logmel_l1")

Origin = tuple[str | int, ...]
"""What a mixture is made of: a song and its first sample there, or the recordings."""


@dataclass(frozen=True)
class StemBatch:
    """Mixtures `index` int64 [B] of `origins`: `truths` [B, n, 1, T], at `rate` Hz. groups: places
    of the stems that may be exchanged, as of `interchangeable`."""

    index: np.ndarray
    origins: Sequence[Origin]
    truths: Tensor
    rate: int
    groups: Sequence[Sequence[int]] = ()

    @cached_property
    def mixtures(self) -> Tensor:
        """The means of the stems, [B, 1, T]."""
        return self.truths.mean(1)

    def origin(self, row: int) -> dict[str, Any]:
        return {"chunk": self.origins[row]}

    def scores(self, estimates: Tensor, seconds: float) -> list[AnyScore]:
        found, truths = float64(estimates.flatten(2), "estimates"), self._truths
        mixtures = float64(self.mixtures.flatten(1), "mixtures")
        order = self._order(found)
        ordered = np.take_along_axis(found, order[..., None], 1)
        values = {
            "sdr_db": sdr(ordered, truths),
            "si_sdr_db": si_sdr(ordered, truths),
            "sdri_db": sdri(ordered, truths, mixtures),
            "si_sdri_db": si_sdri(ordered, truths, mixtures),
            "logmel_l1": log_mel_l1(ordered, truths, LogMel(self.rate)),
        }
        errors = np.square(found.mean(1) - mixtures).mean(1)
        return [
            StemScore(
                {name: tuple(map(_number, values[name][row])) for name in METRICS},
                tuple(order[row].tolist()),
                float(errors[row]),
                seconds / len(self.index),
            )
            for row in range(len(self.index))
        ]

    def best(self, candidates: Sequence[Tensor], seconds: float) -> list[AnyScore]:
        """The candidate of the highest SI-SDR, mean over the stems that have one."""
        means = []
        for place in range(candidates[0].shape[1]):  # one at a time: all of them are gigabytes
            each = torch.stack([source[:, place] for source in candidates], 1)
            found = float64(each.flatten(2), "candidates")
            ordered = np.take_along_axis(found, self._order(found)[..., None], 1)
            means.append(np.nan_to_num(si_sdr(ordered, self._truths)).mean(1))
        best = np.stack(means, 1).argmax(1)
        rows = torch.arange(len(best))
        chosen = torch.stack([source[rows, torch.from_numpy(best)] for source in candidates], 1)
        return [
            replace(one, seconds=seconds, candidate=int(pick))
            for one, pick in zip(self.scores(chosen, 0.0), best, strict=True)
        ]

    @cached_property
    def _truths(self) -> np.ndarray:
        return float64(self.truths.flatten(2), "true stems")

    def _order(self, estimates: np.ndarray) -> np.ndarray:
        """The estimate that stands for each stem, int64 [B, n]: by SI-SDR within each group."""
        order = np.tile(np.arange(estimates.shape[1]), (len(estimates), 1))
        for group in self.groups:
            if len(group) > 1:
                places = np.array(group)
                found = permuted(si_sdr, estimates[:, places], self._truths[:, places])
                order[:, places] = places[found.permutation]
        return order


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
