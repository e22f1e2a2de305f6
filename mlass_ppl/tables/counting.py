"""Counting every table of a program by simulating its mixing on real signals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from ..codecs import Codec
from ..codecs.encoding import encode_features, encode_tokens, tokens_of
from ..declare import Program, compile_program
from ..errors import CodecError, DataError, OptionError, TableError
from ..graph import Factor, MixingGraph, Source
from .cells import AnyCounts, CellMoments
from .counts import Counts
from .jobs import Encoding, Job, jobs_of
from .moments import Moments
from .recipe import Recipe, codec_key

Progress = Callable[[int, int], None]

_NUMBERS = 1 << 23
"""Samples or pixels of each source that are mixed at once."""


def count(
    program: Program | MixingGraph,
    codec: Codec,
    signals: Mapping[str, Tensor] | Tensor,
    *,
    codecs: Mapping[str, Codec] | None = None,
    factors: Sequence[Factor] | None = None,
    mixtures: int = 100_000,
    seed: int = 0,
    batch_size: int = 2_000,
    kind: Callable[[str], str] = lambda source: "signal",
    start: Mapping[Recipe, AnyCounts] | None = None,
    skip: Collection[Recipe] = (),
    progress: Progress | None = None,
) -> dict[Recipe, AnyCounts]:
    """Count every table p(child | parents) that a program declares, over simulated mixtures.

    Every source takes a random signal of its kind, every site that a factor names is mixed by its
    weights and encoded, and all positions of all mixtures are counted together: tokens as `Counts`,
    the features of sites with `Feature()` evidence as `Moments`. Tables of linear features are put
    together from `CellMoments` of each parent: those of a source are counted over all its signals,
    each once, those of a partial mixture over the simulated ones.

    signals: [N, *signal_shape], or such a tensor for each kind. codecs: by the keys that mixtures
    declare, `mix(..., codec=key)`, and by the kinds of sources that have one of their own; all
    others take `codec`. factors: which
    tables (default: the program's own; an engine's are `engine.factors(graph)`). mixtures: how
    many to simulate. kind: what a source is drawn from (the key of its prior). start: counts to go
    on from, with another seed than theirs, since one seed always draws the same mixtures (and with
    other signals, where a source's own cells are counted). skip: recipes that are not counted.
    progress: called with (done, total) mixtures and single signals. Factors of one recipe are
    counted once. The same seed gives the same counts, whatever the batch size.

    Raises DataError where a source has no signals, CodecError where a codec is missing, has no
    `features` for a site that needs them or another number of tokens than the main one, OptionError
    on impossible numbers, SignalError on malformed signals and TableError when `start` is of
    another alphabet than the codecs.
    """
    if mixtures < 1 or batch_size < 1:
        raise OptionError(
            f"mixtures and batch_size must be at least 1, got {mixtures} and {batch_size}."
        )
    batch_size = min(batch_size, max(1, _NUMBERS // prod(codec.signal_shape)))
    graph = compile_program(program)
    pool = _pool(graph, signals, kind)
    wanted = jobs_of(graph, graph.factors if factors is None else factors, kind)
    jobs = {recipe: job for recipe, job in wanted.items() if recipe not in skip}
    encoder = _Encoder(graph, jobs.values(), codec, codecs or {}, kind)
    parts: dict[Recipe, list[AnyCounts]] = {recipe: [] for recipe in jobs}
    for recipe, before in (start or {}).items():
        if recipe in parts:
            parts[recipe].append(_checked(before, jobs[recipe], encoder))
    mixed = {recipe: job for recipe, job in jobs.items() if job.alone is None}
    single = {recipe: job.alone for recipe, job in jobs.items() if job.alone is not None}
    total = mixtures * bool(mixed) + sum(len(pool[source]) for source in single.values())
    done = 0

    def add(some: Mapping[Recipe, Job], values: Mapping[Encoding, Tensor], rows: int) -> None:
        nonlocal done
        for recipe, job in some.items():
            parts[recipe] = _amortised([*parts[recipe], encoder.count(job, values)])
        done += rows
        if progress is not None:
            progress(done, total)

    for recipe, source in single.items():
        job = jobs[recipe]
        for some in torch.arange(len(pool[source])).split(batch_size):
            values = {each: encoder.encode(each, pool, {source: some}) for each in job.encodings}
            add({recipe: job}, values, len(some))
    if mixed:
        generator = torch.Generator().manual_seed(seed)
        picks = {
            source: torch.randint(len(pool[source]), (mixtures,), generator=generator)
            for source in graph.sources
        }
        encodings = dict.fromkeys(each for job in mixed.values() for each in job.encodings)
        known = {  # cheaper than encoding its signals anew whenever they are picked
            each: torch.cat([encoder.tokens(each, b) for b in pool[each.signal].split(batch_size)])
            for each in encodings
            if each.tokens and each.signal in pool and len(pool[each.signal]) <= mixtures
        }
        for begin in range(0, mixtures, batch_size):
            rows = {source: picks[source][begin : begin + batch_size] for source in graph.sources}
            values = {
                each: known[each][rows[each.signal]]
                if each in known
                else encoder.encode(each, pool, rows)
                for each in encodings
            }
            add(mixed, values, len(rows[graph.sources[0]]))
    return {recipe: _merge(counted) for recipe, counted in parts.items()}


class _Encoder:
    """The signals that jobs name: how each is mixed and what a codec makes of it."""

    def __init__(
        self,
        graph: MixingGraph,
        jobs: Iterable[Job],
        codec: Codec,
        codecs: Mapping[str, Codec],
        kind: Callable[[str], str],
    ) -> None:
        encodings = dict.fromkeys(each for job in jobs for each in job.encodings)
        self.shares = {each.signal: graph.leaf_weights(each.signal) for each in encodings}
        self.codecs = {
            name: _codec_of(graph, name, codec, codecs, kind)
            for name in dict.fromkeys(each.reader for each in encodings)
        }
        for name, other in self.codecs.items():
            if tokens_of(other) != tokens_of(codec):
                raise CodecError(
                    f"the codec of '{name}' makes {tokens_of(other)} tokens of a signal, the main "
                    f"codec {tokens_of(codec)}: tables pair tokens position by position. Use "
                    "codecs with the same number of tokens."
                )

    def encode(
        self, what: Encoding, pool: Mapping[str, Tensor], rows: Mapping[str, Tensor]
    ) -> Tensor:
        """Tokens [B, T] or features [B, T, D] of the weighted sums of the picked signals."""
        signals = [
            weight * pool[source][rows[source]]
            for source, weight in self.shares[what.signal].items()
        ]
        encode = encode_tokens if what.tokens else encode_features
        return encode(self.codecs[what.reader], torch.stack(signals).sum(0))

    def tokens(self, what: Encoding, signals: Tensor) -> Tensor:
        """Tokens [B, T] of signals as they are."""
        return encode_tokens(self.codecs[what.reader], signals)

    def shape(self, job: Job) -> tuple[int, ...]:
        """Alphabets of the parents, and of the child where it has a token."""
        tokens = [each for each in job.encodings if each.tokens]
        return tuple(self.codecs[each.reader].alphabet for each in tokens)

    def count(self, job: Job, values: Mapping[Encoding, Tensor]) -> AnyCounts:
        given, heard = [values[each] for each in job.given], values[job.heard]
        shape = self.shape(job)
        if job.cells:
            return CellMoments.from_features(given[0], heard, shape[0])
        if job.heard.tokens:
            return Counts.from_tokens(given, heard, shape)
        return Moments.from_features(given, heard, shape)


def _codec_of(
    graph: MixingGraph,
    name: str,
    codec: Codec,
    codecs: Mapping[str, Codec],
    kind: Callable[[str], str],
) -> Codec:
    if isinstance(graph.site(name), Source):
        return codecs.get(kind(name), codec)
    key = codec_key(graph, name)
    if key is None:
        return codec
    if key not in codecs:
        raise CodecError(
            f"mixture '{name}' of '{graph.name}' declares codec '{key}', but given are "
            f"{sorted(codecs)}: count(..., codecs={{'{key}': codec}})."
        )
    return codecs[key]


def _pool(
    graph: MixingGraph, signals: Mapping[str, Tensor] | Tensor, kind: Callable[[str], str]
) -> dict[str, Tensor]:
    """What each source draws from."""
    pools: Mapping[str, Tensor] = signals if isinstance(signals, Mapping) else {}
    everything = signals if isinstance(signals, Tensor) else None
    pool = {}
    for source in graph.sources:
        found = everything if everything is not None else pools.get(kind(source))
        if found is None or not len(found):
            raise DataError(
                f"no signals of kind '{kind(source)}' for source '{source}'; given are "
                f"{sorted(pools)}."
            )
        pool[source] = found
    return pool


def _checked(start: AnyCounts, job: Job, encoder: _Encoder) -> AnyCounts:
    expected = encoder.shape(job)
    kind = CellMoments if job.cells else Counts if job.heard.tokens else Moments
    if start.shape != expected or not isinstance(start, kind):
        raise TableError(
            f"cannot go on counting {kind.__name__} {expected} of '{job.heard.signal}' from "
            f"{type(start).__name__} {start.shape}."
        )
    return start


def _amortised(parts: list[AnyCounts]) -> list[AnyCounts]:
    """Merged where that at most doubles the work: when the later parts outgrow the first."""
    grown = sum(len(part.keys) for part in parts[1:]) > len(parts[0].keys)
    return [_merge(parts)] if grown else parts


def _merge(parts: Sequence[AnyCounts]) -> AnyCounts:
    first = parts[0]
    if isinstance(first, Counts):
        return Counts.merge([part for part in parts if isinstance(part, Counts)])
    if isinstance(first, Moments):
        return Moments.merge([part for part in parts if isinstance(part, Moments)])
    return CellMoments.merge([part for part in parts if isinstance(part, CellMoments)])
