"""The digits that a visitor mixes: picked, drawn or uploaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.digits import bundled_digits, centre
from ..data.images import read_image
from ..errors import OptionError, SignalError
from ..graph import MixingGraph
from .job import Job
from .limits import Limits

OFFERED = 20
"""Bundled digits to pick from: the first ones, two of each class."""

_SIZE = (28, 28)


@dataclass(frozen=True)
class Digit:
    """pixels: float32 [1, 28, 28] in [0, 1]. index: among the bundled digits, if it is one."""

    pixels: Tensor
    name: str
    index: int | None = None


@dataclass
class Mixing:
    """What one visitor mixes, and the work that runs for them.

    digits: up to `count`; the oldest goes where there are too many. uploaded: a mixture that is
    given as it is, in place of digits.
    """

    count: int = 2
    digits: list[Digit] = field(default_factory=list)
    uploaded: Digit | None = None
    job: Job | None = None

    def add(self, digit: Digit) -> None:
        self.uploaded = None
        self.digits = [*self.digits, digit][-self.count :]

    def pick(self, index: int) -> None:
        """One of the bundled digits. Raises DataError on another index."""
        images, labels = bundled_digits([index])
        self.add(Digit(images[0], f"a {int(labels[0])}", index))

    def draw(self, canvas: Any) -> None:
        """Dark ink on a white canvas [H, W] of 0 to 255, brought to a digit's size and place.

        Raises OptionError where there is no ink.
        """
        grey = None if canvas is None else np.asarray(canvas)
        if grey is None or grey.ndim != 2 or not (grey < 128).any():
            raise OptionError("the canvas is empty: draw a digit on it first.")
        ink = torch.from_numpy(1 - grey.astype(np.float32) / 255)
        self.add(Digit(centre(ink)[None], "drawn"))

    def upload(self, path: str | Path, limits: Limits, whole: bool) -> tuple[str, ...]:
        """An image file: a digit, or a whole mixture. Returns what was done to its pixels.

        Raises SignalError on a file that is no image, damaged or too large.
        """
        limits.check_image(Path(path))
        image = read_image(path, _SIZE)
        digit = Digit(image.pixels, Path(path).name)
        if whole:
            self.digits, self.uploaded = [], digit
        else:
            self.add(digit)
        return image.notices

    def resize(self, count: int) -> None:
        if count not in (2, 3, 4):
            raise OptionError(f"mix 2, 3 or 4 digits, not {count!r}.")
        self.count, self.digits = count, self.digits[-count:]

    def leave(self) -> None:
        """Stop the work that runs for this visitor, if any."""
        if self.job is not None:
            self.job.stop()

    def clear(self) -> None:
        self.digits, self.uploaded = [], None

    @property
    def truths(self) -> Tensor | None:
        """The digits [1, n, 1, 28, 28], where all of them are known."""
        if len(self.digits) < self.count:
            return None
        return torch.stack([digit.pixels for digit in self.digits])[None]

    def mean(self) -> Tensor | None:
        """The mixture so far [1, 28, 28]; None of nothing."""
        if self.uploaded is not None:
            return self.uploaded.pixels
        if not self.digits:
            return None
        return torch.stack([digit.pixels for digit in self.digits]).mean(0)

    def observed(self, graph: MixingGraph) -> Tensor | dict[str, Tensor]:
        """What a graph of these digits observes: one mixture, or one for each way of mixing.

        Raises OptionError where digits are missing, SignalError where a graph of several mixtures
        is given one.
        """
        weights = {site: graph.leaf_weights(site) for site in graph.observed}
        alike = all(own == weights[graph.observed[0]] for own in weights.values())
        if self.uploaded is not None:
            if not alike:
                raise SignalError(
                    f"'{graph.name}' observes {len(weights)} mixtures of its digits, and one image "
                    "was uploaded. Pick or draw the digits, or take another graph."
                )
            return self.uploaded.pixels
        if (truths := self.truths) is None:
            raise OptionError(
                f"{len(self.digits)} of {self.count} digits are there. Pick, draw or upload "
                f"{self.count - len(self.digits)} more."
            )
        if alike:
            return truths[0].mean(0)
        parts = dict(zip(graph.sources, truths[0], strict=True))
        return {
            site: torch.stack([weight * parts[name] for name, weight in own.items()]).sum(0)
            for site, own in weights.items()
        }
