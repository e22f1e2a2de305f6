"""Counting the tables of a bundle of sound, block by block, from windows drawn as needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from .._bundle_files import table_file
from .._bundle_tables import how_counted
from ..bundle import Bundle, load
from ..codecs import AudioCodec
from ..declare import Program, compile_program
from ..errors import BundleError, OptionError
from ..graph import Factor, MixingGraph
from ..infer import Engine
from ..tables import Recipe, count
from .sound import Pool, Progress
from .sound_state import State

_BLOCK = 128
"""Mixtures that are drawn and counted together."""

_SAVED = 8
"""Blocks after which the counts are kept."""


def count_blocks(
    bundle: Bundle,
    graph: MixingGraph,
    factors: Sequence[Factor],
    pool: Pool,
    folder: Path,
    *,
    mixtures: int,
    seed: int = 0,
    changed: float = 0.0,
    progress: Progress | None = None,
) -> Bundle:
    """The bundle with the tables that it lacks for these factors.

    Every block of mixtures draws as many windows of each source from `pool`, by the seed and the
    block's number, so that the corpus is never held. folder: where the counts are kept every some
    blocks; the same call goes on there and comes to the same counts as without an interruption, and
    it is emptied at the end. progress: called with (done, total) mixtures.

    Raises OptionError on impossible numbers, and the errors of `count` and of `Pool.draw`.
    """
    if mixtures < 1:
        raise OptionError(f"mixtures must be at least 1, got {mixtures}.")
    lacking = bundle.lacking(graph, tuple(factors))
    if not lacking:
        return bundle
    keys = {source: bundle.prior_key(graph, source) for source in graph.sources}
    samples = bundle.codec.signal_shape[-1]
    state = State(folder, _asked(bundle, graph, lacking, mixtures, seed, changed))
    first, counted = state.read(list(lacking))
    blocks = range(0, mixtures, _BLOCK)
    for number, begin in enumerate(blocks):
        if number < first:
            continue
        rows = min(_BLOCK, mixtures - begin)
        signals = {
            key: pool.draw(key, rows, samples, (seed, number, 9), changed=changed)
            for key in dict.fromkeys(keys.values())
        }
        counted = count(
            graph,
            bundle.codec,
            signals,
            codecs=bundle.codecs,
            factors=list(dict.fromkeys(lacking.values())),
            skip=bundle.counts.keys() - lacking.keys(),
            mixtures=rows,
            seed=int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:7], "big"),
            batch_size=32,
            kind=lambda source: keys[source],
            start=counted,
        )
        if (number + 1) % _SAVED == 0:
            state.write(number + 1, counted)
        if progress is not None:
            progress(begin + rows, mixtures)
    state.clear()
    files = {table_file(recipe) for recipe in counted}
    facts = [entry for entry in bundle.card.get("tables", []) if entry["file"] not in files]
    facts += [
        {
            "file": table_file(recipe),
            **how_counted(bundle, recipe, counted[recipe], mixtures, seed),
            "changed": round(changed, 3),
        }
        for recipe in sorted(counted, key=table_file)
    ]
    card = {**bundle.card, "tables": facts}
    return replace(bundle, counts={**bundle.counts, **counted}, card=card)


def count_sound_into(
    out: Path,
    program: Program | MixingGraph,
    infer: Engine,
    data_root: Path | None,
    run: Path,
    *,
    mixtures: int,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Count what the bundle of sound in `out` lacks of the tables that an engine needs for a
    program, on the data set that the bundle was made of; returns a line on each table.

    run: folder of what was measured and of counts on the way, as of `count_blocks`. force: count
    again what is there.
    """
    from .sound_parts import update

    bundle, graph = load(out), compile_program(program)
    factors = infer.factors(graph)
    recipes = list(dict.fromkeys(r for factor in factors for r in bundle.recipes(graph, factor)))
    if force:
        kept = {recipe: counts for recipe, counts in bundle.counts.items() if recipe not in recipes}
        bundle = replace(bundle, counts=kept)
    lacking = bundle.lacking(graph, factors)
    said = [f"already counted: {recipe}" for recipe in recipes if recipe not in lacking]
    if lacking:
        bundle = count_blocks(
            bundle, graph, factors, _training(bundle, data_root, run), run / "tables",
            mixtures=mixtures, seed=seed, progress=progress,
        )  # fmt: skip
        said += [f"{recipe}: {bundle.counts[recipe].coverage()}" for recipe in lacking]
        update(bundle, bundle.path or out, {})
    return said


def _training(bundle: Bundle, data_root: Path | None, run: Path) -> Pool:
    """What the bundle's recipe trained on."""
    from .band import band_pools
    from .spoken import spoken_pools

    if not isinstance(bundle.codec, AudioCodec):
        raise BundleError(f"bundle '{bundle.name}' is no bundle of sound.")
    if bundle.card.get("recipe", {}).get("data_set") == "fsdd":
        return spoken_pools(data_root)[0]
    return band_pools(data_root, bundle.codec.sample_rate, run)[0]


def _asked(
    bundle: Bundle,
    graph: MixingGraph,
    recipes: Iterable[Recipe],
    mixtures: int,
    seed: int,
    changed: float,
) -> str:
    """One number for all that the counts depend on, the codecs among them."""
    digest = hashlib.sha256()
    for codec in (bundle.codec, *bundle.codecs.values()):
        for tensor in getattr(codec, "state_dict", dict)().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    told = (graph.name, sorted(map(str, recipes)), mixtures, seed, changed)
    digest.update(repr(told).encode())
    return digest.hexdigest()
