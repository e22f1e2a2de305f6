"""The recipe of a bundle's refiner: separate training mixtures, learn from them, write the card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..bundle import Bundle, load
from ..data import mnist_images
from ..declare import Program
from ..infer import Engine
from ..refine import RefinerConfig
from ..search import Search
from .digits import _facts, _update
from .examples import Examples
from .refiner import refined_psnr, train_refiner
from .separating import make_examples

Piece = Callable[[str], Callable[[int, int], None]]
"""Called with what begins; returns its progress callback (done, total)."""


def make_refiner(
    out: Path,
    programs: Sequence[Program],
    data_root: Path | None = None,
    *,
    mixtures: int = 3_000,
    held: int = 128,
    infer: Engine | None = None,
    search: Search | None = None,
    config: RefinerConfig | None = None,
    epochs: int = 20,
    batch_size: int = 48,
    seed: int = 0,
    device: str = "auto",
    run: Path = Path("runs/train-refiner"),
    resume: bool = True,
    piece: Piece | None = None,
) -> Bundle:
    """Train the refiner of the bundle in `out` on separations by each of the programs.

    mixtures, held: to train on and to validate with, of each program, of MNIST's training and
    validation images. Separations are kept in `run`, and with `resume` the training goes on from
    there too. Raises the errors of `make_examples` and `train_refiner`.
    """
    bundle = load(out)
    train: list[Examples] = []
    validation: list[Examples] = []
    splits = [
        (train, mnist_images("train", data_root), mixtures),
        (validation, mnist_images("validation", data_root), held),
    ]
    for place, program in enumerate(programs, 1):
        for examples, images, count in splits:
            what = f"separating {count:,} mixtures, program {place} of {len(programs)}"
            examples.append(
                make_examples(
                    bundle,
                    program,
                    images,
                    mixtures=count,
                    infer=infer,
                    search=search,
                    seed=seed,
                    folder=run / "examples",
                    progress=None if piece is None else piece(what),
                )
            )
    began = time.perf_counter()
    refiner = train_refiner(
        train,
        validation,
        config=config,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        run=run,
        resume=resume,
        device=device,
    )
    facts: dict[str, Any] = _facts(
        epochs=epochs,
        seed=seed,
        batch_size=batch_size,
        mixtures=mixtures,
        steps=epochs * sum(len(group) // batch_size for group in train),
        seconds=time.perf_counter() - began,
    )
    card = {**bundle.card, "refiner": facts}
    replace(bundle, refiner=refiner.cpu(), card=card).save(out)
    bundle = load(out)  # as shipped: weights rounded to float16
    assert bundle.refiner is not None  # just saved
    facts["validation_db"] = [
        {"sources": group.truths.shape[1], "chosen": round(before, 3), "refined": round(after, 3)}
        for group in validation
        for before, after in [refined_psnr(bundle.refiner, group)]
    ]
    return _update(bundle, out, {"refiner": {**bundle.card["refiner"], **facts}})
