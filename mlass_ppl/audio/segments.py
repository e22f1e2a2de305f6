"""Long signals in overlapping segments, and the segments' outputs joined without a seam."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import OptionError, SignalError


class Segment(NamedTuple):
    """A part of a signal: `samples` [..., t] and the `body`, the slice of them that is the
    segment's own; what lies outside of it is context. The body begins `start` samples into the
    signal."""

    samples: Tensor
    body: slice
    start: int


@dataclass(frozen=True)
class Segments:
    """How a long signal is cut and joined again.

    size: samples of a segment's body; the last may be shorter. overlap: samples that a body shares
    with the next, over which their outputs are cross-faded; at most half of `size`. context:
    further samples on both sides, where the signal has them, that are read and whose output is
    dropped. Memory holds about one segment, however long the signal.

    Raises OptionError on a value out of range.
    """

    size: int
    overlap: int = 0
    context: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= 2 * self.overlap <= self.size or self.context < 0:
            raise OptionError(
                "Segments(size, overlap, context) takes size >= 1, an overlap from 0 to half of it "
                f"and context >= 0, got {self.size}, {self.overlap} and {self.context}."
            )

    def cut(self, signal: Tensor | Iterable[Tensor]) -> Iterator[Segment]:
        """The segments of a signal [..., T], or of its pieces [..., t] of any lengths, in order."""
        pieces = iter([signal] if isinstance(signal, Tensor) else signal)
        held: Tensor | None = None
        first = start = 0  # where in the signal `held` and the next body begin
        for piece in pieces:
            held = piece if held is None else torch.cat([held, piece], -1)
            while first + held.shape[-1] >= start + self.size + self.context:
                yield self._segment(held, first, start)
                start += self.size - self.overlap
                drop = max(0, start - self.context - first)
                held, first = held[..., drop:], first + drop
        # What is left is a segment of its own only where the one before did not cover it.
        while held is not None and first + held.shape[-1] > start + (self.overlap if start else 0):
            yield self._segment(held, first, start)
            start += self.size - self.overlap

    def join(self, outputs: Iterable[Tensor]) -> Iterator[Tensor]:
        """Join the outputs [..., t] of successive bodies. The weights of two that overlap sum to
        one (raised cosine), so outputs that agree are left as they are."""
        tail: Tensor | None = None
        for output in outputs:
            if tail is not None and self.overlap:
                fade = self._fade(output)
                mixed = torch.lerp(tail, output[..., : self.overlap], fade)
                output = torch.cat([mixed, output[..., self.overlap :]], -1)
            end = output.shape[-1] - self.overlap
            tail = output[..., end:]
            yield output[..., :end]
        if tail is not None and self.overlap:
            yield tail

    def process(
        self, function: Callable[[Tensor], Tensor], signal: Tensor | Iterable[Tensor]
    ) -> Iterator[Tensor]:
        """The output of `function` on a signal [..., T] or its pieces, in pieces that together are
        T samples long.

        function: samples [..., t] to an output [..., t]; the leading axes may change, as from a
        mixture to its sources. Raises SignalError when it changes the length.
        """
        return self.join(self._bodies(function, signal))

    def _bodies(
        self, function: Callable[[Tensor], Tensor], signal: Tensor | Iterable[Tensor]
    ) -> Iterator[Tensor]:
        for samples, body, start in self.cut(signal):
            output = function(samples)
            if output.shape[-1] != samples.shape[-1]:
                raise SignalError(
                    f"the segment at sample {start:,} has {samples.shape[-1]:,} samples and its "
                    f"output {output.shape[-1]:,}; expected as many. Cut or fill the output."
                )
            yield output[..., body]

    def _segment(self, held: Tensor, first: int, start: int) -> Segment:
        begin = max(0, start - self.context)
        samples = held[..., begin - first : start + self.size + self.context - first]
        stop = min(start - begin + self.size, samples.shape[-1])
        return Segment(samples, slice(start - begin, stop), start)

    def _fade(self, like: Tensor) -> Tensor:
        ramp = torch.arange(self.overlap, dtype=like.dtype, device=like.device)
        return torch.sin(torch.pi / 2 * (ramp + 0.5) / self.overlap).square()
