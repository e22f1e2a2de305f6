"""Separation: codec, priors, engine and search brought together."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ._separating.chunks import Memory, check_limit, join, run_chunks
from ._separating.estimating import posterior_mean
from ._separating.inputs import check_parts, read_images, read_observed
from ._separating.loop import TokenLoop, Unseen
from ._separating.signals import importance
from ._separating.sound import Sound, lasting, read_waveforms
from .bundle import Bundle
from .codecs import AudioCodec
from .declare import Program, compile_program
from .errors import ConvergenceWarning, OptionError
from .estimate import Estimate
from .graph import MixingGraph
from .infer import Auto, Engine
from .refine import BestOf, Learned, Refine, Refinement
from .search import SMC, Search
from .separation import Separation
from .watch import Watch

Progress = Callable[[int, int], None]


@torch.no_grad()
def separate(
    mixture: Any,
    program: Program | MixingGraph,
    bundle: Bundle,
    *,
    infer: Engine | None = None,
    search: Search | None = None,
    estimate: Estimate | None = None,
    refine: Refinement | None = None,
    seed: int = 0,
    streams: Sequence[int] | None = None,
    level: float | None = None,
    batch_size: int = 64,
    memory_limit: float | None = None,
    keep_candidates: bool = False,
    on_unseen: Unseen = "error",
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Separation:
    """Take one or many mixtures apart into the sources of a program.

    mixture: image(s) in [0, 1] as tensor or array [S, S], [1, S, S] or [M, 1, S, S]; where the
    bundle's codec is one of sound, waveform(s) [S], [1, S] or [M, 1, S] of any level, at its sample
    rate and no longer than the priors know; or a path or list of paths. For a program that observes
    several signals, such as both channels of a stereo recording, a mapping {observed site: such a
    signal}. The codec gives the evidence that each observed site declares: tokens, log weights or
    features.

    infer: the engine (default Auto()); search: how candidates grow (default SMC(64)); estimate: how
    they become one separation (default the posterior mean: Mean() of images and Expectation() of
    sounds whose sources differ; Nearest() is LASS's choice); refine: what follows (default
    nothing): Learned() by the bundle's network, Refine() by gradient steps, or a `Refinement` of
    one's own. seed, streams: mixture i draws from its own random stream (seed, streams[i]), streams
    0..M-1 by default, so its result does not depend on what else is in the batch. level: RMS of the
    recording that waveforms are cut from (default: each one's own); they are separated at the level
    that the bundle was trained at, and given back at theirs. batch_size: the most mixtures at once;
    fewer where they would take more than memory_limit, in bytes, beside models, tables and results,
    and half as many again, with a notice, where the machine runs out of memory. That changes no
    result. on_unseen: an observed token that no table entry explains is an error, or ("prior") its
    position is skipped, with a notice. progress: called with (done, total) token steps. watch:
    called at each position with its posterior and tokens (`Watched`).

    Raises SignalError, OptionError, GraphError, TableError, BundleError, CodecError, PriorError,
    UnseenToken and the engines' errors (PlanError, EngineError).
    """
    if on_unseen not in ("error", "prior"):
        raise OptionError(f"on_unseen is 'error' or 'prior', got {on_unseen!r}.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size must be a whole number, at least 1, got {batch_size!r}.")
    check_limit(memory_limit)
    check_parts(bundle=bundle, infer=infer, search=search, estimate=estimate, refine=refine)
    if refine is not None:
        refine.check(bundle)
    began = time.perf_counter()
    graph = compile_program(program)
    engine: Engine = infer if infer is not None else Auto()
    search = search if search is not None else SMC()
    estimate = estimate if estimate is not None else posterior_mean(graph, bundle)
    codec, sound = bundle.codec, None
    _check_sound(graph, bundle, refine, level)
    if isinstance(codec, AudioCodec):
        given, notices = read_observed(mixture, graph, partial(read_waveforms, codec=codec))
        sound = Sound.of(given, graph, bundle, level)
        observed, bundle = sound.into(given, codec.hop), lasting(bundle, sound.length)
    else:
        read = partial(read_images, shape=codec.signal_shape)
        given, notices = read_observed(mixture, graph, read)
        observed = given
    count = len(observed[graph.observed[0]])
    numbers = list(range(count)) if streams is None else list(streams)
    if len(numbers) != count:
        raise OptionError(f"expected {count} streams, one a mixture, got {len(numbers)}.")
    weights = {name: graph.leaf_weights(name) for name in observed}
    shares = importance(weights, observed)
    loop = TokenLoop(graph, bundle, engine, search, estimate, on_unseen, keep_candidates, shares)
    memory = Memory.of(loop.plan, loop.priors, bundle.codec, search)
    most = batch_size
    if memory_limit is not None:
        most = memory.most(memory_limit, min(batch_size, count))

    def run(rows: slice, done: int, chunks: int) -> dict[str, Any]:
        random = [_stream(seed, number) for number in numbers[rows]]  # from its beginning
        report = None
        if progress is not None:
            report = _offset(progress, done * loop.length, chunks * loop.length)
        return loop.run(_cut(observed, rows), random, report, watch, rows.start)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # one notice says it for all positions
        parts, least = run_chunks(count, most, run, memory.out_of_memory)
    if least < most:
        notices += (
            f"the machine ran out of memory with {min(most, count)} mixtures at once: they were "
            f"separated {least} at a time. Say batch_size={least}, or a memory_limit, to begin so.",
        )
    merged = join(parts)
    if sound is not None:
        merged = sound.out_of(merged)
    seconds = time.perf_counter() - began
    settings = {"infer": engine, "search": search, "estimate": estimate}
    settings |= {"bundle": bundle.name, "seed": seed}
    if level is not None:
        settings["level"] = level
    if (choice := getattr(loop.plan, "choice", None)) is not None:
        settings["picked"] = choice.engine
    found = Separation(
        graph=graph,
        observed=given,
        refined=None,
        sample_rate=None if sound is None else bundle.codec.sample_rate,  # type: ignore[attr-defined]
        seconds=seconds,
        settings=settings,
        notices=notices + loop.notices(),
        **merged,
    )
    return found if refine is None else refine.apply(found, bundle)


def _check_sound(
    graph: MixingGraph, bundle: Bundle, refine: Refinement | None, level: float | None
) -> None:
    """Raise OptionError on options that images alone, or sounds alone, have."""
    sound = isinstance(bundle.codec, AudioCodec)
    if level is not None and not sound:
        raise OptionError("level is of waveforms, but this bundle is of images: leave it out.")
    own = [name for name in graph.sources if bundle.codec_of(graph, name) is not bundle.codec]
    if isinstance(refine, (Refine, Learned, BestOf)) and (sound or own):
        why = f"'{own[0]}' has a codec of its own" if own else "this bundle is of sound"
        raise OptionError(
            f"refinements are of images that all have one codec, and {why}: leave refine out, or "
            "for sound take Conditional()."
        )


def _stream(seed: int, number: int) -> torch.Generator:
    """The random stream of one mixture: independent of all others and of the batch around it."""
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _offset(progress: Progress, done: int, total: int) -> Callable[[int], None]:
    return lambda step: progress(done + step, total)


def _cut(observed: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    """Some mixtures; sites that share a signal still share it."""
    parts = {id(signals): signals[rows] for signals in observed.values()}
    return {name: parts[id(signals)] for name, signals in observed.items()}
