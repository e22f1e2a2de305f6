"""The recipe of the digit bundle's prior, second part: classes, and on with augmented images."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..bundle import Bundle, load
from ..data import mnist_images, mnist_labels
from ..errors import BundleError
from ..priors import CausalLM
from .continued import continue_prior
from .digits import _facts, _update, encode_all
from .labels import add_labels
from .prior import nats_of

LABEL_EPOCHS = 2
"""Passes over the training images that teach a prior without classes its begin tokens."""


def continue_digits(
    out: Path,
    data_root: Path | None = None,
    *,
    key: str = "digit",
    epochs: int = 16,
    batch_size: int = 128,
    rate: float = 1e-3,
    augmented: float = 0.6,
    labelled: float = 0.3,
    seed: int = 0,
    device: str = "auto",
    run: Path = Path("runs/train-continued"),
    resume: bool = True,
) -> Bundle:
    """Train the prior `key` of the bundle in `out` on, as `continue_prior` does, on MNIST.

    A prior without classes is taught them first (`add_labels`) and saved. The bundle is written
    with the new weights and a card that says how they were made: the facts of the earlier trainings
    stay, those of this one are added to the list `continued`, with the nats a token on the
    validation images, without the class and given it, `before` and `after`, and the prior's
    `validation_nats`, `label_nats` and `train_nats` are those of the new weights. Tables and the
    refiner stay: they are of the codec.

    Raises BundleError where the bundle has no such prior that can be trained, DataError without
    MNIST's files, and the errors of `continue_prior`: OptionError, too, where `run` is of a
    training that began with other weights, as after this very training has ended.
    """
    bundle = load(out)
    prior = _trainable(bundle, key)
    images, labels = mnist_images("train", data_root), mnist_labels("train", data_root)
    held, own = mnist_images("validation", data_root), mnist_labels("validation", data_root)
    tokens, validation = encode_all(bundle.codec, images), encode_all(bundle.codec, held)
    if not prior.labels:
        options: dict[str, Any] = {"epochs": LABEL_EPOCHS, "batch_size": batch_size, "seed": seed}
        prior = add_labels(prior, tokens, labels, (validation, own), **options)
        told = (
            f"{LABEL_EPOCHS} epochs over the training images, AdamW at 0.01 on a cosine, batches "
            f"of {batch_size}, seed {seed}, nothing but the {prior.labels} begin tokens moved"
        )
        bundle = _with(bundle, out, key, prior, {"labels_trained": told})
        prior = _trainable(bundle, key)  # as shipped: weights rounded to float16
    before = _nats(prior, validation, own)
    began = time.perf_counter()
    trained = continue_prior(
        prior,
        bundle.codec,
        images,
        labels,
        (held, own),
        epochs=epochs,
        batch_size=batch_size,
        rate=rate,
        augmented=augmented,
        labelled=labelled,
        seed=seed,
        run=run,
        resume=resume,
        device=device,
    )
    facts = _facts(
        epochs=epochs,
        seed=seed,
        batch_size=batch_size,
        steps=epochs * (len(tokens) // batch_size),
        rate=rate,
        augmented=augmented,
        labelled=labelled,
        seconds=time.perf_counter() - began,
    )
    earlier = bundle.card["priors"][key].get("continued", [])
    bundle = _with(bundle, out, key, trained, {})
    prior = _trainable(bundle, key)
    after = _nats(prior, validation, own)
    entry: dict[str, Any] = {**after, "train_nats": round(nats_of(prior, tokens[:5000]), 4)}
    entry["continued"] = [*earlier, {**facts, "before": before, "after": after}]
    return _with(bundle, out, key, prior, entry)


def _trainable(bundle: Bundle, key: str) -> CausalLM:
    prior = bundle.priors.get(key)
    if isinstance(prior, CausalLM):
        return prior
    raise BundleError(
        f"bundle '{bundle.name}' has no prior '{key}' that can be trained on, only "
        f"{sorted(bundle.priors)}. Name one of them, or train one first: mlass train prior --out "
        f"{bundle.path}"
    )


def _nats(prior: CausalLM, tokens: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        "validation_nats": round(nats_of(prior, tokens), 4),
        "label_nats": round(nats_of(prior, tokens, labels), 4),
    }


def _with(bundle: Bundle, out: Path, key: str, prior: CausalLM, facts: dict[str, Any]) -> Bundle:
    """The bundle as written with this prior and with these facts added to its card's."""
    priors = {**bundle.card["priors"], key: {**bundle.card["priors"][key], **facts}}
    return _update(replace(bundle, priors={**bundle.priors, key: prior}), out, {"priors": priors})
