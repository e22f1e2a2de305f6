"""The third pass of a prior: over songs and, mostly, variants of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..bundle import Bundle, load
from ..data.audio import StemDataset, Track, slakh, song_of
from ..errors import DataError
from ..priors import CausalLM
from .prior import nats_of, train_prior
from .sound import MIX_LEVEL, Pool, Progress, song_gains
from .sound_parts import HELD_SHORT, Made, update

_OWN = 1 / 3
"""Share of the pass's windows that are of the songs themselves; all of them are changed."""

_CHANGED = 0.5
"""Share of the variants' windows that are changed as well."""


def variant_pools(
    folders: Sequence[Path],
    songs: StemDataset,
    train: StemDataset,
    held: StemDataset,
    rate: int,
    run: Path,
    progress: Progress | None = None,
) -> tuple[Pool, Pool | None]:
    """Variants of songs that are trained on, and of those that are validated with (None where there
    are none), each brought to an RMS of 0.1 of its mix.

    folders: in Slakh's layout, as `mlass data vary` and then `mlass data render` make them. songs:
    the whole data set; train, held: what of it is trained on and validated with. run: folder where
    what was measured of the variants is kept.

    A variant goes where its song is, which its name tells. One of no song of the set goes to the
    split that it was rendered to, unless songs of its composer (or source) are elsewhere. So no
    variant of a song that is held out is trained on. Raises DataError where none is left.
    """
    part_of = _parts(songs, train, held)
    parts: dict[str, list[Track]] = defaultdict(list)
    for folder in folders:
        for track in slakh(folder):
            # Folders of several sets may well hold the same names.
            parts[part_of(track)].append(replace(track, name=f"{folder}/{track.name}"))
    where = ", ".join(map(str, folders))
    if not parts["train"]:
        raise DataError(
            f"none of the {sum(map(len, parts.values()))} variants in {where} is of a song that is "
            "trained on. Make them of the same MIDI files as the songs, and render both with the "
            "same --test and --validation."
        )
    both = StemDataset((*parts["train"], *parts["validation"]))
    gains = song_gains(both, run / "gains-variants.jsonl", progress=progress)
    pools = [
        Pool(StemDataset(tuple(t for t in parts[part] if t.name in gains)), rate, gains)
        for part in ("train", "validation")
    ]
    if not len(pools[0].tracks):
        raise DataError(f"all variants to train on in {where} are silent or damaged.")
    return pools[0], pools[1] if len(pools[1].tracks) else None


def _parts(songs: StemDataset, train: StemDataset, held: StemDataset) -> Callable[[Track], str]:
    """Tells of a variant whether it may be trained on ("train"), validated with, or neither."""
    trained, validated = ({track.name for track in part} for part in (train, held))
    parts, groups = {}, defaultdict(set)
    for song in songs:
        part = "train" if song.name in trained else ""
        parts[song.name] = "validation" if song.name in validated else part
        groups[song.composer or song.source].add(parts[song.name])

    def part_of(variant: Track) -> str:
        own = parts.get(song_of(variant.name))
        if own is None:
            others = groups.get(variant.composer or variant.source, {variant.split})
            own = variant.split if others == {variant.split} else ""
        # A song of the training split may have been held out when its variants were rendered.
        return "" if own == "train" and variant.split != "train" else own

    return part_of


def make_varied_prior(made: Made, stem: str) -> Bundle:
    """The prior of one stem after a pass over windows of which a third are of the songs, sped up or
    slowed down, and two thirds of `made.variants`."""
    assert made.variants is not None
    began, sizes, bundle = time.perf_counter(), made.sizes, load(made.out)
    codec, prior = bundle.codecs[stem], bundle.priors[stem]
    assert isinstance(prior, CausalLM)

    def tokens(pool: Pool, number: int, part: int, changed: float = 0.0) -> Tensor:
        seed, samples = (made.seed, part), codec.signal_shape[-1]
        return pool.draw(stem, number, samples, seed, changed=changed, make=codec.encode)

    level = bundle.card["levels"][stem]
    own = max(1, round(_OWN * sizes.varied))
    varied = tokens(at_level(made.variants, stem, level), max(1, sizes.varied - own), 9, _CHANGED)
    windows = torch.cat([tokens(made.train, own, 8, 1.0), varied])
    held, others = tokens(made.held, HELD_SHORT, 5), None
    if made.held_variants is not None and stem in made.held_variants.tracks.hours():
        others = tokens(at_level(made.held_variants, stem, level), HELD_SHORT, 10)
    before = None if others is None else nats_of(prior, others, batch_size=50)
    prior = train_prior(
        windows, held, codec.alphabet, start=prior, epochs=1, batch_size=sizes.prior_batch,
        rate=sizes.varied_rate, **made.training(f"prior-{stem}-3"),
    ).cpu()  # fmt: skip
    prior = prior.half().float()  # as shipped
    nats = round(nats_of(prior, held, batch_size=50), 4)
    facts = dict(bundle.card["priors"][stem])
    facts["varied"], facts["variants"] = sizes.varied, len(made.variants.tracks)
    facts["nats_by_pass"] = [*facts.get("nats_by_pass", []), nats]
    facts["validation_nats"] = nats
    if others is not None and before is not None:
        after = nats_of(prior, others, batch_size=50)
        facts["variants_nats"] = [round(before, 4), round(after, 4)]
    facts["seconds"] = facts.get("seconds", 0) + round(time.perf_counter() - began)
    told = {**bundle.card["priors"], stem: facts}
    recipe = {**bundle.card["recipe"], **{k: made.facts[k] for k in ("command", "variants")}}
    # One save: a prior without its facts would be trained a second time.
    bundle = replace(bundle, priors={**bundle.priors, stem: prior})
    return update(bundle, made.out, {"priors": told, "recipe": recipe})


def at_level(pool: Pool, stem: str, level: float) -> Pool:
    """The same, but songs of this stem alone, which are as loud as a mix, at the stem's level."""
    alone = {track.name for track in pool.tracks if {*track.stems} == {stem}}
    gains = {
        name: gain * level / MIX_LEVEL if name in alone else gain
        for name, gain in pool.gains.items()
    }
    return replace(pool, gains=gains)
