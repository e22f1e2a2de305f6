"""Separation of whole songs: any rate, mono or stereo, any length, in constant memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from .._separating.signals import alike
from ..audio import Wiener, resampled
from ..bundle import Bundle
from ..codecs import AudioCodec
from ..declare import Program, compile_program
from ..errors import OptionError
from ..estimate import Estimate
from ..graph import MixingGraph
from ..infer import Engine
from ..refine import Conditional, Refinement
from ..search import Search
from .chunks import Chunks, segments_for
from .files import StemFiles, StoredStems
from .parts import Parts, beside
from .recording import Recording
from .song import Song

Progress = Callable[[int, int], None]


@torch.no_grad()
def separate_song(
    mixture: Any,
    program: Program | MixingGraph,
    bundle: Bundle,
    *,
    rate: int | None = None,
    out: StemFiles | str | Path | None = None,
    postfilter: Wiener | None = Wiener(),
    two_stems: str | None = None,
    residual: bool = False,
    overlap_seconds: float | None = None,
    infer: Engine | None = None,
    search: Search | None = None,
    estimate: Estimate | None = None,
    refine: Refinement | Literal["auto"] | None = "auto",
    seed: int = 0,
    batch_size: int = 4,
    memory_limit: float | None = None,
    on_unseen: Any = "prior",
    progress: Progress | None = None,
) -> Song:
    """Take a song apart into stems on its own scale, at its own rate and of its exact length.

    mixture: a sound file, or a waveform float [T] or [channels, T] of one or two channels sampled
    at `rate`. The mean of its channels, at the codec's rate, is separated in chunks as long as the
    priors know, which overlap by `overlap_seconds` (default: a sixth of a chunk) and are
    cross-faded there; sources that nothing tells apart keep their order from chunk to chunk. A
    silent chunk gives silence. All chunks are brought to the bundle's level by the level of the
    whole song, and the stems are each source times its weight: together the mixture, as far as the
    model explains it.

    refine: what is done to each chunk; "auto" is Conditional() where the bundle's codecs know their
    deviations, and nothing elsewhere. postfilter: Wiener() (the default) makes the stems parts of
    the mixture itself, channel by channel and with the band that the codec lacks, so that they sum
    to it; None leaves them as they are, the same in both channels. two_stems: one stem and
    `no_{stem}`, the mixture without it, are all that comes out. residual: `residual`, the mixture
    less its stems, comes as well.

    out: a folder, or StemFiles(folder, suffix=".flac", ...): stems are then written while they
    come, and memory does not grow with the song (a post-filter with iterations keeps the stems at
    the codec's rate); the result reads them from there. batch_size: the most chunks that are
    separated at once; it changes no result. Chunk i draws from random stream (seed, i). on_unseen:
    here "prior" by default, so that one token does not cost a song. progress: called with (done,
    total) samples. All others are those of `separate`.

    Raises SignalError, before anything is separated, on a file that cannot be read to its end, on
    NaN and on shapes; OptionError on files that exist; and the errors of `separate`.
    """
    began = time.perf_counter()
    if postfilter is not None and not isinstance(postfilter, Wiener):
        raise OptionError(f"postfilter takes Wiener() or None, got {postfilter!r}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size must be a whole number, at least 1, got {batch_size!r}.")
    if refine == "auto":
        refine = Conditional() if Conditional.suits(bundle) else None
    graph = compile_program(program)
    if len(alike({name: graph.leaf_weights(name) for name in graph.observed})) > 1:
        raise OptionError(
            f"'{graph.name}' observes several signals; a song is one. Use separate(...) for it."
        )
    segments = segments_for(graph, bundle, overlap_seconds)
    parts = Parts(graph.sources, two_stems, residual)
    files = StemFiles(out) if isinstance(out, (str, Path)) else out
    places = {} if files is None else files.places(parts.names)
    recording = Recording.of(mixture, rate)

    said: Counter[str] = Counter()
    how: dict[str, Any] = {"infer": infer, "search": search, "estimate": estimate, "refine": refine}
    options = {**how, "seed": seed, "memory_limit": memory_limit, "on_unseen": on_unseen}
    level = recording.level or None
    chunks = Chunks(
        graph, bundle, segments, batch_size, level, recording.quiet, options, said.update
    )
    assert isinstance(bundle.codec, AudioCodec)  # segments_for has looked
    pipeline = _Pipeline(recording, chunks, bundle.codec.sample_rate, postfilter, parts)
    notices = recording.notices + pipeline.notices()
    blocks = pipeline.blocks(progress)
    if files is None:
        made = torch.cat(list(blocks), -1)
        stems: Any = dict(zip(parts.names, made.unbind(0), strict=True))
    else:
        about = (recording.rate, recording.channels, recording.frames)
        notices += files.write(parts.names, blocks, *about)
        stems = StoredStems(places)
    asked = {key: value for key, value in how.items() if value is not None}
    asked |= {"postfilter": postfilter}
    return Song(
        stems=stems,
        recording=recording,
        seconds=time.perf_counter() - began,
        settings={**asked, "bundle": bundle.name, "program": graph.name, "seed": seed},
        notices=notices + _told(said),
        files=tuple(places.values()),
    )


@dataclass(frozen=True)
class _Pipeline:
    """From a recording to the blocks of its parts."""

    recording: Recording
    chunks: Chunks
    rate: int
    postfilter: Wiener | None
    parts: Parts

    def notices(self) -> tuple[str, ...]:
        """What is done to the recording that a listener should know."""
        told, own, stereo = [], self.recording.rate, self.recording.channels > 1
        if own != self.rate:
            told.append(f"separated at {self.rate:,} Hz and brought back to {own:,} Hz")
        if stereo and self.postfilter is None:
            told.append(
                "separated in mono, the mean of the channels: both channels of a stem are the same"
            )
        elif stereo:
            told.append("separated in mono; the post-filter gives each channel its own part")
        if own > self.rate and self.postfilter is None:
            told.append(f"stems hold nothing above {self.rate // 2:,} Hz without the post-filter")
        return tuple(told)

    def blocks(self, progress: Progress | None) -> Iterator[Tensor]:
        """The parts [k, channels, t], in order."""
        stems: Iterable[Tensor] = self.chunks.stems(
            self.recording.mono(self.rate), self._of(progress)
        )
        if self.postfilter is not None:
            if self.postfilter.iterations:  # it reads them several times
                stems = list(stems)
            stems = self.postfilter.stream(_Beside(self, stems))
        else:
            stems = self.at_own_rate(stems)
        for made, mixture in beside(stems, self.recording.blocks()):
            yield self.parts(made, mixture)

    def at_own_rate(self, stems: Iterable[Tensor]) -> Iterator[Tensor]:
        return resampled(stems, self.rate, self.recording.rate)

    def _of(self, progress: Progress | None) -> Callable[[int], None] | None:
        if progress is None:
            return None
        frames, rate, own = self.recording.frames, self.rate, self.recording.rate
        return lambda done: progress(min(frames, done * own // rate), frames)


@dataclass(frozen=True)
class _Beside:
    """Stems at the codec's rate beside their mixture at its own, as often as the stems can be
    read."""

    pipeline: _Pipeline
    stems: Iterable[Tensor]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return beside(self.pipeline.at_own_rate(self.stems), self.pipeline.recording.blocks())


_TOLD = 4
"""Kinds of notices of chunks that are told one by one."""


def _told(said: Counter[str]) -> tuple[str, ...]:
    told = [
        text if times == 1 else f"in {times} groups of chunks: {text}"
        for text, times in said.most_common(_TOLD)
    ]
    if len(said) > _TOLD:
        told.append(f"and {len(said) - _TOLD} more notices of single groups of chunks")
    return tuple(told)
