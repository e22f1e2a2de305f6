"""Steps of the digit bundle's recipe; each writes the bundle and its card."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._version import __version__
from ..bundle import Bundle, load
from ..codecs import Codec, ImageVQVAEConfig
from ..data import mnist_images
from ..declare import Program, compile_program
from ..graph import MixingGraph
from ..infer import Engine
from .card import write_card

Progress = Callable[[int, int], None]

_DATA = "MNIST, the first 55,000 of the 60,000 training images (the last 5,000 are validation)"


def make_codec(
    out: Path,
    data_root: Path | None = None,
    *,
    epochs: int = 8,
    config: ImageVQVAEConfig | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path = Path("runs/train-codec"),
    resume: bool = True,
) -> Bundle:
    """Train the codec and begin a new bundle in `out`."""
    from .codec import psnr_of, train_codec

    images, validation = mnist_images("train", data_root), mnist_images("validation", data_root)
    began = time.perf_counter()
    codec = train_codec(
        images,
        validation,
        config=config,
        epochs=epochs,
        seed=seed,
        device=device,
        run=run,
        resume=resume,
    )
    facts = _facts(epochs=epochs, seed=seed, batch_size=128, seconds=time.perf_counter() - began)
    facts["steps"] = epochs * (len(images) // 128)
    Bundle(out.name, codec.cpu(), {}, card={"version": __version__, "codec": facts}).save(out)
    bundle = load(out)  # as shipped: weights rounded to float16
    facts["psnr_db"] = round(psnr_of(bundle.codec, validation), 3)
    return _update(bundle, out, {"codec": {**bundle.card["codec"], **facts}})


def make_prior(
    out: Path,
    data_root: Path | None = None,
    *,
    epochs: int = 10,
    seed: int = 0,
    device: str = "auto",
    run: Path = Path("runs/train-prior"),
    resume: bool = True,
) -> Bundle:
    """Train the prior "digit" on the tokens of the bundle's codec."""
    from .prior import nats_of, train_prior

    bundle = load(out)
    tokens = encode_all(bundle.codec, mnist_images("train", data_root))
    validation = encode_all(bundle.codec, mnist_images("validation", data_root))
    began = time.perf_counter()
    prior = train_prior(
        tokens,
        validation,
        bundle.codec.alphabet,
        epochs=epochs,
        seed=seed,
        device=device,
        run=run,
        resume=resume,
    )
    facts = _facts(epochs=epochs, seed=seed, batch_size=128, seconds=time.perf_counter() - began)
    facts["steps"] = epochs * (len(tokens) // 128)
    facts["train_nats"] = round(nats_of(prior.cpu(), tokens[:5000]), 4)
    facts["validation_nats"] = round(nats_of(prior, validation), 4)
    bundle = replace(bundle, priors={**bundle.priors, "digit": prior})
    priors = {**bundle.card.get("priors", {}), "digit": facts}
    return _update(bundle, out, {"priors": priors})


def count_into(
    out: Path,
    program: Program | MixingGraph,
    infer: Engine,
    data_root: Path | None = None,
    *,
    mixtures: int,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Count what the bundle in `out` lacks of the tables that an engine needs for a program;
    returns a line on each table."""
    bundle, graph = load(out), compile_program(program)
    factors = infer.factors(graph)
    needed = (recipe for factor in factors for recipe in bundle.recipes(graph, factor))
    recipes = list(dict.fromkeys(needed))
    if force:
        kept = {recipe: c for recipe, c in bundle.counts.items() if recipe not in recipes}
        bundle = replace(bundle, counts=kept)
    lacking = bundle.lacking(graph, factors)
    said = [f"already counted: {recipe}" for recipe in recipes if recipe not in lacking]
    if lacking:
        images = mnist_images("train", data_root)
        options: dict[str, Any] = {"mixtures": mixtures, "seed": seed, "progress": progress}
        bundle = bundle.count(graph, images, infer=infer, **options)
        said += [f"{recipe}: {bundle.counts[recipe].coverage()}" for recipe in lacking]
        _update(bundle, bundle.path or out, {})
    return said


@torch.no_grad()
def encode_all(codec: Codec, images: Tensor, batch_size: int = 1_000) -> Tensor:
    """Tokens int64 [N, T] of many images."""
    return torch.cat([codec.encode(batch) for batch in images.split(batch_size)])


def _facts(**values: Any) -> dict[str, Any]:
    values["seconds"] = round(values["seconds"])
    return {"data": _DATA, "threads": torch.get_num_threads(), **values}


def _update(bundle: Bundle, out: Path, facts: dict[str, Any]) -> Bundle:
    replace(bundle, card={**bundle.card, **facts}).save(out)
    bundle = load(out)
    write_card(bundle)
    return bundle
