"""Codecs and priors of a bundle of sound; each is written into the bundle as soon as it is made."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._version import __version__
from ..bundle import Bundle, load
from ..codecs import AudioVQ
from ..errors import BundleError
from ..evaluate.audio import LogMel, log_mel_l1
from ..priors import CausalLM
from ..tables import Shrink
from .audio_codec import _mix, sdr_of, train_audio_codec
from .prior import nats_of, train_prior
from .sound import Pool, level_of
from .sound_card import write_sound_card
from .sound_sizes import SoundSizes

_LEVEL_WINDOWS = 100
"""Of each stem, to tell how loud it is."""

_HELD, HELD_SHORT = 200, 160
"""Validation windows of a codec, and of a prior."""

_MEASURED = 1_000
"""Segments that a codec's deviations are measured on."""


@dataclass(frozen=True)
class Made:
    """What every step of a recipe shares.

    out: folder of the bundle. train, held: where windows are drawn from. run: folder of the
    checkpoints. facts: what the card tells of the data: `title`, `command`, `data_set`, `data`,
    `licence`. variants, held_variants: of songs that are trained on and of those that are held out
    (`variant_pools`), where priors have a third pass.
    """

    out: Path
    train: Pool
    held: Pool
    stems: tuple[str, ...]
    sizes: SoundSizes
    facts: dict[str, str]
    seed: int = 0
    device: str = "auto"
    run: Path = Path("runs/train-sound")
    resume: bool = True
    variants: Pool | None = None
    held_variants: Pool | None = None

    def training(self, name: str) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "run": self.run / name,
            "resume": self.resume,
            "device": self.device,
        }


def make_mixture_codec(made: Made) -> Bundle:
    """The codec of mixtures, fitted to means of one to all stems; begins a new bundle."""
    began, sizes = time.perf_counter(), made.sizes
    train = _of_all(made, made.train, sizes.mixed, 0)
    held = _mixtures(_of_all(made, made.held, _HELD, 1), made)
    codec = AudioVQ.fit(_frames(_mixtures(train, made), made), sizes.mixture, seed=made.seed)
    codec = train_audio_codec(
        codec, train, held, sources=len(made.stems), batch_size=sizes.codec_batch,
        **made.training("codec"),
    )  # fmt: skip
    codec.fit_deviations(_mixtures(train, made)[:_MEASURED])
    draws = {
        stem: made.train.draw(stem, _LEVEL_WINDOWS, sizes.mixture.samples, made.seed)
        for stem in made.stems
    }
    levels = {stem: round(level_of(windows), 5) for stem, windows in draws.items()}
    card = {"version": __version__, "recipe": made.facts, "levels": levels}
    shrink = Shrink(strength=sizes.strength, min_std=sizes.min_std)
    Bundle(made.out.name, codec.cpu(), {}, card=card, shrink=shrink).save(made.out)
    bundle = load(made.out)  # as shipped: weights rounded to float16
    facts = _codec_facts(made, bundle.codec, held, len(train), began)
    return update(bundle, made.out, {"codec": {**bundle.card["codec"], **facts}})


def make_stem_codec(made: Made, stem: str) -> Bundle:
    """The codec of one stem."""
    began, sizes = time.perf_counter(), made.sizes
    train = _segments(made, made.train, stem, sizes.segments, 2)
    held = _segments(made, made.held, stem, _HELD, 3).float()
    bundle = load(made.out)
    gain = float(f"{0.5 / bundle.card['levels'][stem]:.3g}")
    codec = AudioVQ.fit(_frames(train, made), replace(sizes.stem, gain=gain), seed=made.seed)
    codec = train_audio_codec(
        codec, train, held, batch_size=sizes.codec_batch, **made.training(f"codec-{stem}")
    )
    codec.fit_deviations(train[:_MEASURED].float())
    replace(bundle, codecs={**bundle.codecs, stem: codec.cpu()}).save(made.out)
    bundle = load(made.out)
    facts = _codec_facts(made, bundle.codecs[stem], held, len(train), began)
    told = {**bundle.card["codecs"], stem: {**bundle.card["codecs"][stem], **facts}}
    return update(bundle, made.out, {"codecs": told})


def make_stem_prior(made: Made, stem: str) -> Bundle:
    """The prior of one stem, on tokens of its own codec: a pass over windows as they are, then one
    over windows that are mostly sped up or slowed down."""
    began, sizes, bundle = time.perf_counter(), made.sizes, load(made.out)
    codec = bundle.codecs[stem]
    samples = codec.signal_shape[-1]

    def tokens(pool: Pool, number: int, part: int, changed: float = 0.0) -> Tensor:
        seed = (made.seed, part)
        return pool.draw(stem, number, samples, seed, changed=changed, make=codec.encode)

    held = tokens(made.held, HELD_SHORT, 5)
    options: dict[str, Any] = {"batch_size": sizes.prior_batch}
    prior, nats = None, []
    passes = ((sizes.windows, 0.0, sizes.rate), (sizes.more, sizes.changed, sizes.more_rate))
    for place, (number, changed, rate) in enumerate(passes, 1):
        if not number:
            continue
        prior = train_prior(
            tokens(made.train, number, 5 + place, changed), held, codec.alphabet, start=prior,
            width=sizes.width, layers=sizes.layers, heads=sizes.heads, epochs=1, rate=rate,
            **options, **made.training(f"prior-{stem}-{place}"),
        )  # fmt: skip
        nats.append(round(nats_of(prior.cpu(), held, batch_size=50), 4))
    if prior is None:
        raise BundleError(f"no windows to train the prior '{stem}' on: both passes are empty.")
    facts = _facts(
        made, began, windows=sizes.windows, more=sizes.more, batch_size=sizes.prior_batch,
        nats_by_pass=nats,
    )  # fmt: skip
    replace(bundle, priors={**bundle.priors, stem: prior}).save(made.out)
    bundle = load(made.out)
    shipped = bundle.priors[stem]
    assert isinstance(shipped, CausalLM)
    facts["validation_nats"] = round(nats_of(shipped, held, batch_size=50), 4)
    told = {**bundle.card["priors"], stem: {**bundle.card["priors"][stem], **facts}}
    return update(bundle, made.out, {"priors": told})


def update(bundle: Bundle, out: Path, facts: dict[str, Any]) -> Bundle:
    """The bundle as written with these facts in its card, and its README."""
    replace(bundle, card={**bundle.card, **facts}).save(out)
    bundle = load(out)
    write_sound_card(bundle)
    return bundle


def _segments(made: Made, pool: Pool, stem: str, number: int, part: int) -> Tensor:
    """float16 [number, segment]: half the memory."""
    return pool.draw(
        stem, number, made.sizes.segment, (made.seed, part),
        changed=made.sizes.changed if pool is made.train else 0.0,
        make=lambda windows: windows[:, 0].half(),
    )  # fmt: skip


def _of_all(made: Made, pool: Pool, number: int, part: int) -> Tensor:
    """Segments of all stems, shuffled."""
    each = -(-number // len(made.stems))
    drawn = torch.cat([_segments(made, pool, stem, each, part) for stem in made.stems])
    order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(made.seed))
    return drawn[order]


def _mixtures(segments: Tensor, made: Made) -> Tensor:
    torch.manual_seed(made.seed)
    return _mix(segments[: made.sizes.fitted].float(), len(made.stems))


def _frames(segments: Tensor, made: Made) -> Tensor:
    """Frames [N, hop] to fit codes to; silence, which one code says all of, is mostly left out."""
    frames = segments[: made.sizes.fitted].float().reshape(-1, made.sizes.stem.hop)
    energy = frames.square().mean(1)
    kept = energy > 1e-4 * energy.mean()
    some = torch.rand(len(frames), generator=torch.Generator().manual_seed(made.seed)) < 0.02
    return frames[kept | some]


def _codec_facts(
    made: Made, codec: Any, held: Tensor, segments: int, began: float
) -> dict[str, Any]:
    own = codec.lasting(held.shape[1])
    decoded = own.decode(own.encode(held[:, None]))[:, 0]
    distance = log_mel_l1(decoded, held, LogMel(codec.sample_rate))
    facts = _facts(made, began, segments=segments)
    facts["sdr_db"] = round(sdr_of(codec, held), 3)
    facts["logmel_l1"] = round(float(np.nanmean(distance)), 4)
    return facts


def _facts(made: Made, began: float, **values: Any) -> dict[str, Any]:
    return {
        "seed": made.seed,
        "threads": torch.get_num_threads(),
        **values,
        "seconds": round(time.perf_counter() - began),
    }
