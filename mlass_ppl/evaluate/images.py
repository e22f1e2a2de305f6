"""Mixtures of images: the references' pairing, scored by PSNR under the best permutation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError
from .image_report import ImageLayout
from .metrics import best_permutation, mixture_error, pairwise_psnr, score
from .protocol import MixtureSet, split_hash
from .provenance import codec_device
from .records import AnyScore, Record, Score
from .rows import Scheme
from .tasks import Silence, Task

if TYPE_CHECKING:
    from .config import Evaluation
    from .stimuli import Batch, Progress, Signals


@dataclass(frozen=True)
class ImageBatch:
    """Mixtures `index` int64 [B] of a set: `truths` [B, n, C, H, W], `mixtures` [B, C, H, W]."""

    index: np.ndarray
    images: np.ndarray
    truths: Tensor
    mixtures: Tensor

    @classmethod
    def of(cls, mixtures: MixtureSet, index: np.ndarray) -> ImageBatch:
        truths = mixtures.truths(index)
        return cls(index, mixtures.indices[index], truths, truths.mean(1))

    def origin(self, row: int) -> dict[str, Any]:
        return {"images": tuple(self.images[row].tolist())}

    def scores(self, estimates: Tensor, seconds: float) -> list[AnyScore]:
        assignment = score(estimates, self.truths)
        errors = mixture_error(estimates, self.mixtures)
        return [
            Score(tuple(psnr.tolist()), tuple(order.tolist()), float(error), seconds / len(errors))
            for psnr, order, error in zip(
                assignment.scores, assignment.permutation, errors, strict=True
            )
        ]

    def best(self, candidates: Sequence[Tensor], seconds: float) -> list[AnyScore]:
        every = torch.stack([*candidates], 2)  # [B, C, n, channels, height, width]
        assignment = best_permutation(pairwise_psnr(every, self.truths[:, None]))
        errors = mixture_error(every, self.mixtures[:, None])
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


@dataclass(frozen=True)
class ImageMixtures:
    """A set of mixtures and the codec of all their sources."""

    mixtures: MixtureSet
    codec: Any

    def batch(self, index: np.ndarray) -> Batch:
        return ImageBatch.of(self.mixtures, index)

    def coded(self, batch: Batch) -> tuple[Signals, Signals]:
        truths = batch.truths.to(codec_device(self.codec))
        tokens = {
            f"source_{i}": self.codec.encode(source) for i, source in enumerate(truths.unbind(1), 1)
        }
        return {name: self.codec.decode(row) for name, row in tokens.items()}, tokens

    def known(self) -> list[Record]:
        return []


@dataclass(frozen=True)
class ImageStimuli:
    """`images` float32 [N, C, H, W] of one split, paired as the references do."""

    images: Tensor
    layout: ImageLayout = ImageLayout()

    def check(self, evaluation: Evaluation, bundle: Any) -> None:
        if evaluation.num > len(self.images):
            raise OptionError(
                f"{evaluation.num:,} mixtures were asked for, but split '{evaluation.split}' has "
                f"{len(self.images):,} images and as many mixtures. Ask for fewer with --num."
            )

    def describe(self, bundle: Any) -> dict[str, Any]:
        return {"split_sha256": split_hash(self.images)}

    def parts(self, sources: int) -> int:
        return sources

    def stages(self, bundle: Any, refine: Any) -> Mapping[str, Any]:
        return {"refined": refine}

    def mixtures(
        self,
        evaluation: Evaluation,
        sources: int,
        bundle: Any,
        folder: Path,
        progress: Progress | None,
    ) -> ImageMixtures:
        pairs = MixtureSet.make(self.images, sources, evaluation.pairing_seed)
        return ImageMixtures(pairs, bundle.codec)

    def references(self) -> tuple[Task, ...]:
        return (Silence("floor:black"),)

    def scheme(self, bundle: Any) -> Scheme:
        return Scheme()
