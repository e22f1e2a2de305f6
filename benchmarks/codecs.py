"""What codecs and priors are worth, each trained here alike: python -m benchmarks.codecs --help

Every row trains a codec and a prior on the same few digits for the same number of epochs, differs
from the first row in one thing, and separates the same validation mixtures. So rows compare with
each other and not with the shipped bundle, which was trained for longer. What is done stays done:
the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mlass_ppl as mlass
from mlass_ppl.codecs import ImageVQVAEConfig
from mlass_ppl.data import mnist_images
from mlass_ppl.train.codec import psnr_of, train_codec
from mlass_ppl.train.digits import encode_all
from mlass_ppl.train.prior import nats_of, train_prior

from .ablation import STAGES, ceiling, counted, run
from .settings import LINEAR, Setting

VALIDATION = 2_000
"""Validation digits that codec and prior are measured on."""


@dataclass(frozen=True)
class Variant:
    """What is trained. mixed: largest number of digits in a training image of the codec."""

    name: str
    codec: ImageVQVAEConfig = ImageVQVAEConfig()
    mixed: int = 3
    width: int = 96
    layers: int = 3
    epochs: float = 1.0

    @property
    def of_codec(self) -> str:
        """Name of the folder of the codec, which variants of the prior share."""
        sizes = self.codec
        return (
            f"k{sizes.alphabet}-encoder{sizes.encoder}-context{sizes.context}-"
            f"decoder{sizes.decoder}-mixed{self.mixed}"
        )


VARIANTS = (
    Variant("as shipped, smaller"),
    Variant("encoder sees 12 x 12 pixels", ImageVQVAEConfig(context=1)),
    Variant("alphabet 128", ImageVQVAEConfig(alphabet=128)),
    Variant("alphabet 512", ImageVQVAEConfig(alphabet=512)),
    Variant("codec trained on digits alone", mixed=1),
    Variant("prior 2 layers of 48", width=48, layers=2),
    Variant("prior 4 layers of 160", width=160, layers=4),
    Variant("decoder of 32 channels", ImageVQVAEConfig(decoder=32)),
    Variant("decoder of 128 channels", ImageVQVAEConfig(decoder=128)),
    Variant("prior trained a third as long", epochs=1 / 3),
    Variant("encoder sees 20 x 20 pixels", ImageVQVAEConfig(context=2)),
    Variant("alphabet 64", ImageVQVAEConfig(alphabet=64)),
)


def programs(n: int) -> list[tuple[str, Any, mlass.Engine]]:
    """The published model, and the default."""
    return [
        ("tokens", mlass.chain(n), mlass.BP()),
        ("linear feature", mlass.joint(n, evidence=LINEAR), mlass.Auto()),
    ]


def trained(
    variant: Variant, digits: int, epochs: tuple[int, int], out: Path
) -> tuple[mlass.Bundle, dict[str, Any]]:
    """The bundle of a variant, with the shipped refiner, and what was measured of its parts."""
    images = mnist_images("train")[:digits]
    held = mnist_images("validation")[:VALIDATION]
    began = time.perf_counter()
    codec = train_codec(
        images, held, config=variant.codec, sources=variant.mixed, epochs=epochs[0],
        run=out / variant.of_codec, device="cpu",
    )  # fmt: skip
    tokens, validation = encode_all(codec, images), encode_all(codec, held)
    prior = train_prior(
        tokens, validation, codec.alphabet, width=variant.width, layers=variant.layers,
        heads=variant.width // 16, epochs=max(1, round(epochs[1] * variant.epochs)),
        run=out / variant.name.replace(" ", "-"), device="cpu",
    )  # fmt: skip
    facts = {
        "codec_psnr": psnr_of(codec, held),
        "nats": nats_of(prior, validation),
        "weights": sum(p.numel() for p in prior.parameters()),
        "train_seconds": time.perf_counter() - began,
    }
    shipped = mlass.load("mnist")
    bundle = mlass.Bundle(
        "ablation", codec, {"digit": prior}, refiner=shipped.refiner, shrink=shipped.shrink
    )
    return bundle, facts


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of all rows: PSNR in dB, and what each gains over the first variant, refined."""
    first = VARIANTS[0].name
    base = {
        (row["sources"], row["group"]): np.array(row["learned mean"])
        for row in rows
        if row["setting"] == first
    }
    lines = [
        "| n | evidence | trained | codec dB | nats a token | raw | refined "
        "| refined, to the first | ceiling, refined |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["sources"], row["group"])):
        gain = np.array(row["learned mean"]) - base[row["sources"], row["group"]]
        lines.append(
            f"| {row['sources']} | {row['group']} | {row['setting']} | {row['codec_psnr']:.2f} "
            f"| {row['nats']:.3f} | {_spread(row['raw mean'])} | {_spread(row['learned mean'])} "
            f"| {_spread(gain) if row['setting'] != first else ''} "
            f"| {np.mean(row['ceiling learned']):.2f} |"
        )
    return "\n".join(lines)


def _spread(values: Any) -> str:
    return f"{np.mean(values):.2f} ± {np.std(values) / max(len(values) - 1, 1) ** 0.5:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs", description=__doc__)
    parser.add_argument("--sources", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--num", type=int, default=48, help="validation mixtures")
    parser.add_argument("--digits", type=int, default=20_000, help="training digits")
    parser.add_argument("--epochs", type=int, nargs=2, default=(6, 6), help="of codec and prior")
    parser.add_argument("--mixtures", type=int, default=100_000, help="to count the tables")
    parser.add_argument("--pairing-seed", type=int, default=7)
    parser.add_argument("--only", default="", help="variants whose name holds this")
    parser.add_argument("--out", type=Path, default=Path("runs/codecs"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "codecs.json"
    rows = json.loads(store.read_text("utf-8")) if store.is_file() else []
    digits, epochs = mnist_images("validation"), tuple(options.epochs)
    for variant in VARIANTS:
        if options.only not in variant.name:
            continue
        done = {(row["sources"], row["group"]) for row in rows if row["setting"] == variant.name}
        if len(done) == 2 * len(options.sources):
            continue
        bundle, facts = trained(variant, options.digits, epochs, options.out)
        for n in options.sources:
            limit = ceiling(bundle, digits, n, options.num, options.pairing_seed)
            for evidence, program, infer in programs(n):
                if (n, evidence) in done:
                    continue
                setting = Setting(evidence, variant.name, program, infer, mlass.SMC(64))
                ready = counted(bundle, [setting], options.mixtures)
                row, _ = run(
                    setting, ready, digits, options.num, options.pairing_seed, 64, descent=False
                )
                row |= facts | {f"ceiling {s}": limit[s] for s in ("raw", "learned")}
                rows.append(row)
                store.write_text(json.dumps(rows) + "\n", "utf-8")
                means = "  ".join(f"{s} {np.mean(row[s]):.2f}" for s in STAGES if s in row)
                print(f"n={n} {evidence}: {variant.name}: {means}", flush=True)
    print(table(rows))
    (options.out / "codecs.md").write_text(table(rows) + "\n", "utf-8")


if __name__ == "__main__":
    main()
