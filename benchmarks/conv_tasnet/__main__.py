"""`python -m benchmarks.conv_tasnet {train,evaluate} --help`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from mlass_ppl.errors import MlassError
from mlass_ppl.evaluate.provenance import provenance
from mlass_ppl.weights import fingerprint

from .data import select, stems_of
from .evaluate import evaluate, table
from .model import WEIGHTS, ConvTasNetConfig, StemSeparator
from .train import TrainingConfig, check_rate, train


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    try:
        options.run(options)
    except MlassError as error:
        sys.exit(f"error: {error}")


def _train(options: argparse.Namespace) -> None:
    model = ConvTasNetConfig(
        stems_of(options.sources), options.sample_rate, options.kernel, options.filters,
        options.bottleneck, options.hidden, options.layers, options.stacks,
    )  # fmt: skip
    config = TrainingConfig(
        epochs=options.epochs, batch_size=options.batch_size, crop=options.crop,
        rate=options.learning_rate, limit=options.limit, seed=options.seed,
    )  # fmt: skip
    began = time.perf_counter()
    separator = train(
        options.data_root, model, config, options.out,
        validate=options.validate, device=options.device, precision=options.precision,
    )  # fmt: skip
    separator.save(options.out)
    size = sum(part.numel() for part in separator.parameters())
    print(f"{options.out}: {size:,} weights, {time.perf_counter() - began:.0f} s")


def _evaluate(options: argparse.Namespace) -> None:
    device = torch.device(options.device)
    separator = StemSeparator.load(options.weights).to(device)
    stems = separator.config.stems
    if stems != stems_of(options.sources):
        raise MlassError(
            f"'{options.weights}' separates {', '.join(stems)}; got --sources {options.sources}."
        )
    chunks = select(options.data_root, options.split, options.sources, options.num, options.seed)
    check_rate(chunks.rate, separator.config)
    began = time.perf_counter()
    found = evaluate(separator, chunks, options.batch_size)
    seconds = time.perf_counter() - began
    print(table(found))
    run: dict[str, Any] = {
        **provenance(device),
        "weights": fingerprint(options.weights / WEIGHTS),
        "split": options.split,
        "sources": options.sources,
        "num": options.num,
        "seed": options.seed,
        "seconds": seconds,
    }
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"run": run, **found}, indent=1) + "\n", "utf-8")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.conv_tasnet",
        description="Train and score Conv-TasNet on the songs that the separators are scored on.",
    )
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="on the split `train`; goes on where it stopped")
    training.set_defaults(run=_train)
    training.add_argument("--out", type=Path, required=True, help="folder of the model")
    model, config = ConvTasNetConfig(stems_of(2)), TrainingConfig()
    for owner, names in (
        (model, ("sample_rate", "kernel", "filters", "bottleneck", "hidden", "layers", "stacks")),
        (config, ("epochs", "batch_size", "limit", "seed")),
    ):
        for name in names:
            flag = f"--{name.replace('_', '-')}"
            training.add_argument(flag, type=int, default=getattr(owner, name))
    training.add_argument("--crop", type=float, default=config.crop, help="seconds")
    training.add_argument("--learning-rate", type=float, default=config.rate)
    training.add_argument("--validate", type=int, default=100, help="chunks to validate with")
    training.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    training.add_argument("--device", default="auto", help="as Lightning names it: auto, cpu, gpu")
    scoring = commands.add_parser("evaluate", help="plain SDR, SI-SDR and what is gained in both")
    scoring.set_defaults(run=_evaluate)
    scoring.add_argument("--weights", type=Path, required=True, help="what `train --out` wrote")
    scoring.add_argument("--split", default="validation")
    scoring.add_argument("--num", type=int, default=200, help="chunks")
    scoring.add_argument("--seed", type=int, default=0, help="that the chunks are drawn by")
    scoring.add_argument("--batch-size", type=int, default=8)
    scoring.add_argument("--device", default="cpu")
    scoring.add_argument("--json", type=Path, metavar="FILE")
    for command in (training, scoring):
        command.add_argument("--data-root", type=Path, required=True, help="in Slakh's layout")
        command.add_argument("--sources", type=int, choices=(2, 3, 4), required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
