"""Counting every table of a program by simulating its mixing on real signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..codecs.base import Codec
from ..declare import Program, compile_program
from ..errors import DataError, OptionError
from ..graph import Factor, MixingGraph
from .counts import Counts
from .recipe import Recipe

Progress = Callable[[int, int], None]


def count(
    program: Program | MixingGraph,
    codec: Codec,
    signals: Mapping[str, Tensor] | Tensor,
    *,
    factors: Sequence[Factor] | None = None,
    mixtures: int = 100_000,
    seed: int = 0,
    batch_size: int = 2_000,
    kind: Callable[[str], str] = lambda source: "signal",
    start: Mapping[Recipe, Counts] | None = None,
    progress: Progress | None = None,
) -> dict[Recipe, Counts]:
    """Count every table p(child | parents) that a program declares, over simulated mixtures.

    Every source takes a random signal of its kind, every site that a factor names is mixed by its
    weights and encoded, and all positions of all mixtures are counted together.

    signals: [N, *signal_shape], or such a tensor for each kind. factors: which tables (default:
    the program's own; an engine's are `engine.factors(graph)`). mixtures: how many to simulate.
    kind: what a source is drawn from (the key of its prior). start: counts to go on from, with
    another seed than theirs, since one seed always draws the same mixtures. progress: called with
    (done, total) mixtures. Factors of one recipe are counted once. The same seed gives the same
    counts, whatever the batch size.

    Raises DataError where a source has no signals, OptionError on impossible numbers, SignalError
    on malformed signals and TableError when `start` is of another alphabet than the codec.
    """
    if mixtures < 1 or batch_size < 1:
        raise OptionError(
            f"mixtures and batch_size must be at least 1, got {mixtures} and {batch_size}."
        )
    graph = compile_program(program)
    pools: Mapping[str, Tensor] = signals if isinstance(signals, Mapping) else {}
    everything = signals if isinstance(signals, Tensor) else None
    recipes: dict[Recipe, Factor] = {}
    for factor in graph.factors if factors is None else factors:
        recipes.setdefault(Recipe.of(graph, factor, kind), factor)
    names = {name for factor in recipes.values() for name in factor.scope}
    shares = {name: graph.leaf_weights(name) for name in names}
    pool: dict[str, Tensor] = {}
    for source in graph.sources:
        found = everything if everything is not None else pools.get(kind(source))
        if found is None or not len(found):
            raise DataError(
                f"no signals of kind '{kind(source)}' for source '{source}'; given are "
                f"{sorted(pools)}."
            )
        pool[source] = found
    k = codec.alphabet
    parts = {recipe: [Counts.empty((k,) * len(f.scope))] for recipe, f in recipes.items()}
    for recipe, before in (start or {}).items():
        if recipe in parts:
            parts[recipe] = [Counts.merge([*parts[recipe], before])]
    generator = torch.Generator().manual_seed(seed)
    picks = {
        source: torch.randint(len(pool[source]), (mixtures,), generator=generator)
        for source in graph.sources
    }
    known = {
        source: _encode(codec, pool[source], batch_size)
        for source in graph.sources
        if source in shares and len(pool[source]) <= mixtures
    }
    for begin in range(0, mixtures, batch_size):
        rows = {source: picks[source][begin : begin + batch_size] for source in graph.sources}
        tokens = {
            name: known[name][rows[name]]
            if name in known
            else codec.encode(_blend(pool, rows, weights))
            for name, weights in shares.items()
        }
        for recipe, factor in recipes.items():
            counted = parts[recipe]
            given = [tokens[name] for name in factor.parents]
            counted.append(Counts.from_tokens(given, tokens[factor.child], counted[0].shape))
            if sum(len(part.keys) for part in counted[1:]) > len(counted[0].keys):
                parts[recipe] = [Counts.merge(counted)]  # amortised: each merge doubles the work
        if progress is not None:
            progress(min(begin + batch_size, mixtures), mixtures)
    return {recipe: Counts.merge(counted) for recipe, counted in parts.items()}


def _blend(
    pool: Mapping[str, Tensor], rows: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """Weighted sums of the picked signals, [B, *signal_shape]."""
    signals = [weight * pool[source][rows[source]] for source, weight in weights.items()]
    return torch.stack(signals).sum(0)


def _encode(codec: Codec, signals: Tensor, batch_size: int) -> Tensor:
    """Tokens of a whole pool: cheaper than encoding its signals anew whenever they are picked."""
    return torch.cat([codec.encode(batch) for batch in signals.split(batch_size)])
