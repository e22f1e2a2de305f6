"""Counting every table of a program by simulating its mixing on real signals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..codecs import Codec
from ..codecs.encoding import encode_features, encode_tokens, tokens_of
from ..declare import Program, compile_program
from ..errors import CodecError, DataError, OptionError, TableError
from ..graph import Factor, MixingGraph
from .counts import Counts
from .moments import AnyCounts, Moments
from .recipe import Recipe, codec_key

Progress = Callable[[int, int], None]


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
    progress: Progress | None = None,
) -> dict[Recipe, AnyCounts]:
    """Count every table p(child | parents) that a program declares, over simulated mixtures.

    Every source takes a random signal of its kind, every site that a factor names is mixed by its
    weights and encoded, and all positions of all mixtures are counted together: tokens as `Counts`,
    the features of sites with `Feature()` evidence as `Moments`.

    signals: [N, *signal_shape], or such a tensor for each kind. codecs: by the keys that mixtures
    declare, `mix(..., codec=key)`; sources and all other mixtures take `codec`. factors: which
    tables (default: the program's own; an engine's are `engine.factors(graph)`). mixtures: how
    many to simulate. kind: what a source is drawn from (the key of its prior). start: counts to go
    on from, with another seed than theirs, since one seed always draws the same mixtures.
    progress: called with (done, total) mixtures. Factors of one recipe are counted once. The same
    seed gives the same counts, whatever the batch size.

    Raises DataError where a source has no signals, CodecError where a codec is missing, has no
    `features` for a site that needs them or another number of tokens than the main one, OptionError
    on impossible numbers, SignalError on malformed signals and TableError when `start` is of
    another alphabet than the codecs.
    """
    if mixtures < 1 or batch_size < 1:
        raise OptionError(
            f"mixtures and batch_size must be at least 1, got {mixtures} and {batch_size}."
        )
    graph = compile_program(program)
    pool = _pool(graph, signals, kind)
    recipes: dict[Recipe, Factor] = {}
    for factor in graph.factors if factors is None else factors:
        recipes.setdefault(Recipe.of(graph, factor, kind), factor)
    sites = _Sites(graph, recipes.values(), codec, codecs or {})
    parts: dict[Recipe, list[AnyCounts]] = {recipe: [] for recipe in recipes}
    for recipe, before in (start or {}).items():
        if recipe in parts:
            parts[recipe].append(_checked(before, recipes[recipe], sites))
    generator = torch.Generator().manual_seed(seed)
    picks = {
        source: torch.randint(len(pool[source]), (mixtures,), generator=generator)
        for source in graph.sources
    }
    known = {  # cheaper than encoding its signals anew whenever they are picked
        source: torch.cat([encode_tokens(codec, batch) for batch in pool[source].split(batch_size)])
        for source in graph.sources
        if source in sites.tokens and len(pool[source]) <= mixtures
    }
    for begin in range(0, mixtures, batch_size):
        rows = {source: picks[source][begin : begin + batch_size] for source in graph.sources}
        values = {name: known[name][rows[name]] for name in known}
        for name in sites.names:
            if name not in known:
                values[name] = sites.encode(name, pool, rows)
        for recipe, factor in recipes.items():
            parts[recipe] = _amortised([*parts[recipe], sites.count(factor, values)])
        if progress is not None:
            progress(min(begin + batch_size, mixtures), mixtures)
    return {recipe: _merge(counted) for recipe, counted in parts.items()}


class _Sites:
    """The sites that factors name: how each is mixed and what its codec makes of it."""

    def __init__(
        self,
        graph: MixingGraph,
        factors: Iterable[Factor],
        codec: Codec,
        codecs: Mapping[str, Codec],
    ) -> None:
        factors = list(factors)
        self.names = list(dict.fromkeys(name for factor in factors for name in factor.scope))
        self.tokens = {name for factor in factors for name in factor.tokens}
        self.shares = {name: graph.leaf_weights(name) for name in self.names}
        self.codecs = {name: _codec_of(graph, name, codec, codecs) for name in self.names}
        for name, other in self.codecs.items():
            if tokens_of(other) != tokens_of(codec):
                raise CodecError(
                    f"the codec of '{name}' makes {tokens_of(other)} tokens of a signal, the main "
                    f"codec {tokens_of(codec)}: tables pair tokens position by position. Use "
                    "codecs with the same number of tokens."
                )

    def encode(self, name: str, pool: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """Tokens [B, T] or features [B, T, D] of the weighted sums of the picked signals."""
        signals = [
            weight * pool[source][rows[source]] for source, weight in self.shares[name].items()
        ]
        encode = encode_tokens if name in self.tokens else encode_features
        return encode(self.codecs[name], torch.stack(signals).sum(0))

    def shape(self, factor: Factor) -> tuple[int, ...]:
        """Alphabets of the parents, and of the child where it has a token."""
        names = factor.parents if factor.feature else (*factor.parents, factor.child)
        return tuple(self.codecs[name].alphabet for name in names)

    def count(self, factor: Factor, values: Mapping[str, Tensor]) -> AnyCounts:
        given, shape = [values[name] for name in factor.parents], self.shape(factor)
        if factor.feature:
            return Moments.from_features(given, values[factor.child], shape)
        return Counts.from_tokens(given, values[factor.child], shape)


def _codec_of(graph: MixingGraph, name: str, codec: Codec, codecs: Mapping[str, Codec]) -> Codec:
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


def _checked(start: AnyCounts, factor: Factor, sites: _Sites) -> AnyCounts:
    expected = sites.shape(factor)
    if start.shape != expected or isinstance(start, Moments) != factor.feature:
        kind = Moments if factor.feature else Counts
        raise TableError(
            f"cannot go on counting {kind.__name__} {expected} of '{factor.name}' from "
            f"{type(start).__name__} {start.shape}."
        )
    return start


def _amortised(parts: list[AnyCounts]) -> list[AnyCounts]:
    """Merged where that at most doubles the work: when the later parts outgrow the first."""
    grown = sum(len(part.keys) for part in parts[1:]) > len(parts[0].keys)
    return [_merge(parts)] if grown else parts


def _merge(parts: Sequence[AnyCounts]) -> AnyCounts:
    tokens = [part for part in parts if isinstance(part, Counts)]
    if len(tokens) == len(parts):
        return Counts.merge(tokens)
    return Moments.merge([part for part in parts if isinstance(part, Moments)])
