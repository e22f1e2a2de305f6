"""A long mono mixture in chunks that a prior knows the length of, and their stems joined again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._separating.signals import interchangeable
from ..audio import Segments
from ..bundle import Bundle
from ..codecs import AudioCodec
from ..errors import OptionError
from ..graph import MixingGraph
from ..separate import separate

_OVERLAP = 6
"""An overlap is this part of a chunk unless told otherwise: half a second of three."""


@dataclass(frozen=True)
class Chunks:
    """How a long signal is separated.

    segments: of the signal at the codec's rate. batch: chunks that are separated at once. level:
    RMS of the recording, if known. quiet: chunks with no sample beyond it are silent. options: of
    `separate`. note: called with what `separate` says of a batch. Chunk i draws from random stream
    i, so that neither `batch` nor what is silent changes another.
    """

    graph: MixingGraph
    bundle: Bundle
    segments: Segments
    batch: int
    level: float | None
    quiet: float
    options: Mapping[str, Any]
    note: Callable[[tuple[str, ...]], None]

    def stems(
        self, mono: Iterable[Tensor], progress: Callable[[int], None] | None = None
    ) -> Iterator[Tensor]:
        """The stems [n, t] of a mono signal that comes in pieces [1, t], in the mixture's own
        scale: together as long as the signal. progress: called with the samples done."""
        return self.segments.join(self._continued(self._separated(mono, progress)))

    def _separated(
        self, mono: Iterable[Tensor], progress: Callable[[int], None] | None
    ) -> Iterator[Tensor]:
        """The stems [n, t] of each chunk."""
        waiting: list[tuple[int, Tensor]] = []
        start = 0
        for number, segment in enumerate(self.segments.cut(mono)):
            chunk = segment.samples
            # the last chunk may be shorter: a batch is of one length
            if waiting and (len(waiting) == self.batch or chunk.shape != waiting[0][1].shape):
                yield from self._batch(waiting, _from(start, segment.start - start, progress))
                waiting, start = [], segment.start
            waiting.append((number, chunk))
            end = segment.start + chunk.shape[-1]
        if waiting:
            yield from self._batch(waiting, _from(start, end - start, progress))

    def _batch(
        self, waiting: Sequence[tuple[int, Tensor]], progress: Callable[[int, int], None] | None
    ) -> Iterator[Tensor]:
        mixtures = torch.stack([chunk for _, chunk in waiting])
        weights = self.graph.leaf_weights(self.graph.observed[0])
        stems = mixtures.new_zeros(len(waiting), len(self.graph.sources), mixtures.shape[-1])
        sounding = [row for row, (_, chunk) in enumerate(waiting) if chunk.abs().max() > self.quiet]
        if sounding:
            found = separate(
                mixtures[sounding],
                self.graph,
                self.bundle,
                streams=[waiting[row][0] for row in sounding],
                level=self.level,
                batch_size=self.batch,
                progress=progress,
                **self.options,
            )
            self.note(found.notices)
            for place, name in enumerate(self.graph.sources):
                stems[sounding, place] = weights[name] * found[name][:, 0].to(stems)
        if progress is not None:
            progress(1, 1)
        yield from stems

    def _continued(self, outputs: Iterable[Tensor]) -> Iterator[Tensor]:
        """The chunks' stems, those of sources that nothing tells apart in the order that goes on
        from the chunk before."""
        places = {name: place for place, name in enumerate(self.graph.sources)}
        groups = interchangeable(self.graph, self.bundle.prior_key)
        rows = [[places[name] for name in group] for group in groups if len(group) > 1]
        overlap, tail = self.segments.overlap, None
        for output in outputs:
            if tail is not None and overlap:
                output = output[continuing(tail, output[:, :overlap], rows)]
            yield output
            tail = output[:, -overlap:]


def continuing(before: Tensor, after: Tensor, groups: Sequence[Sequence[int]]) -> list[int]:
    """The order of the rows of `after` [n, t] that goes on from those of `before` [n, t]: in each
    group of rows the one of the largest sum of inner products, which is also the one of the
    smallest squared difference. All other rows stay."""
    from scipy.optimize import linear_sum_assignment

    order = list(range(len(before)))
    for group in groups:
        rows = list(group)
        products = before[rows].double() @ after[rows].double().T
        own, taken = linear_sum_assignment(products.numpy(), maximize=True)
        for place, other in zip(own, taken, strict=True):
            order[rows[place]] = rows[other]
    return order


def segments_for(graph: MixingGraph, bundle: Bundle, overlap_seconds: float | None) -> Segments:
    """Chunks as long as the priors know (else, as the codec's own signals), and how much they
    overlap: by default a sixth. Raises OptionError on an impossible overlap."""
    codec = bundle.codec
    if not isinstance(codec, AudioCodec):
        raise OptionError(
            f"bundle '{bundle.name}' is of images ({type(codec).__name__}), not of sound: use "
            "separate(image, ...), or load a bundle with an audio codec."
        )
    known = [bundle.priors[bundle.prior_key(graph, name)].length for name in graph.sources]
    tokens = min((length for length in known if length is not None), default=None)
    size = codec.signal_shape[-1] if tokens is None else tokens * codec.hop
    if overlap_seconds is None:
        return Segments(size, size // _OVERLAP)
    longest = size / 2 / codec.sample_rate
    if not isinstance(overlap_seconds, int | float) or not 0 <= overlap_seconds <= longest:
        raise OptionError(
            f"chunks of {size / codec.sample_rate:.2f} s overlap by 0 to {longest:.2f} s (half of "
            f"them), got overlap_seconds={overlap_seconds!r}."
        )
    return Segments(size, min(size // 2, round(overlap_seconds * codec.sample_rate)))


def _from(
    start: int, length: int, progress: Callable[[int], None] | None
) -> Callable[[int, int], None] | None:
    """Progress of a batch that covers `length` samples from `start`."""
    if progress is None:
        return None
    return lambda done, total: progress(start + length * done // max(total, 1))
