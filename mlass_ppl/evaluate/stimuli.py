"""What an evaluation mixes and how it scores that: all in which images and sound differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from .records import AnyScore, Record

if TYPE_CHECKING:
    from .config import Evaluation
    from .report import Layout
    from .rows import Scheme
    from .tasks import Task

Signals = Mapping[str, Tensor]
Progress = Callable[[str, float, int], None]
"""Called with a label, how much of it is done (with fractions) and the total."""


class Batch(Protocol):
    """Some mixtures, numbers `index` int64 [B], and their true sources."""

    @property
    def index(self) -> np.ndarray: ...

    @property
    def truths(self) -> Tensor:
        """Float32 [B, n, *signal]."""
        ...

    @property
    def mixtures(self) -> Tensor:
        """The means of the true sources, [B, *signal]."""
        ...

    def origin(self, row: int) -> dict[str, Any]:
        """Fields of the record that say what one mixture is made of."""
        ...

    def scores(self, estimates: Tensor, seconds: float) -> list[AnyScore]:
        """Score estimates [B, n, *signal] that took `seconds` for the whole batch. Raises
        SignalError on NaN."""
        ...

    def best(self, candidates: Sequence[Tensor], seconds: float) -> list[AnyScore]:
        """Score the best of the candidates by ground truth: [B, C, *signal] of each source;
        `seconds` is of one mixture."""
        ...


class Mixtures(Protocol):
    """All mixtures of one number of sources."""

    def batch(self, index: np.ndarray) -> Batch:
        """The mixtures `index` int64 [B]. Raises SignalError where they cannot be read."""
        ...

    def coded(self, batch: Batch) -> tuple[Signals, Signals]:
        """The true sources encoded and decoded again, {source: [B, *signal]}, and the tokens,
        {source: int64 [B, T]}."""
        ...

    def known(self) -> list[Record]:
        """Records of these mixtures that others made: those of a baseline."""
        ...


class Stimuli(Protocol):
    """A data set to evaluate on."""

    def stages(self, bundle: Any, refine: Any) -> Mapping[str, Any]:
        """The refinements whose scores follow the raw ones, by what these are called."""
        ...

    @property
    def layout(self) -> Layout:
        """Of the report's tables."""
        ...

    def check(self, evaluation: Evaluation, bundle: Any) -> None:
        """Raise OptionError where the two do not fit, before any work."""
        ...

    def describe(self, bundle: Any) -> dict[str, Any]:
        """What belongs into the configuration; `split_sha256` is a part of it."""
        ...

    def parts(self, sources: int) -> Any:
        """What a shape makes a program of so many sources from: their number or their names."""
        ...

    def mixtures(
        self,
        evaluation: Evaluation,
        sources: int,
        bundle: Any,
        folder: Path,
        progress: Progress | None,
    ) -> Mixtures:
        """The mixtures of so many sources; `folder` is where a search of them may be kept."""
        ...

    def references(self) -> tuple[Task, ...]:
        """Rows that no engine makes, beside the copied mixture and the codec's ceiling."""
        ...

    def scheme(self, bundle: Any) -> Scheme:
        """Which numbers the rows are made of."""
        ...
