"""The model card of a bundle, written from the facts in its bundle.json."""

from __future__ import annotations

from typing import Any

from ..bundle import Bundle
from ..errors import BundleError
from ..tables import Recipe


def write_card(bundle: Bundle) -> None:
    """Write README.md beside the files of a bundle of digits, as `mlass train mnist` makes it."""
    if bundle.card["codec"]["kind"] != "image-vqvae":
        return  # what an import says of itself stays
    if bundle.path is None:
        raise BundleError(f"bundle '{bundle.name}' has no folder to write a card to.")
    card: dict[str, Any] = dict(bundle.card)
    codec = card["codec"]
    lines = [
        f"# Bundle `{bundle.name}`",
        "",
        "Handwritten digits: an image codec, an autoregressive prior over its tokens and the count "
        "tables of their mixtures. Made with mlass_ppl "
        f"{card.get('version', '?')}; train it again with",
        "",
        f"    mlass train mnist --out models/{bundle.name}",
        "",
        "Weights are float16 safetensors (`codec`, `prior-*`), tables are exact integer counts; "
        "all other facts are in `bundle.json`. Reading them runs no code.",
        "",
        "## Codec",
        "",
        f"VQ-VAE, {codec['size']}x{codec['size']} grey to "
        f"{codec['size'] // 4}x{codec['size'] // 4} tokens, K = {codec['alphabet']}; each token "
        "sees its own 4x4 patch, the decoder sees its neighbours. "
        f"Trained on images and on means of two and three of them. Data: {codec.get('data', '?')}.",
        "",
        f"- {codec.get('epochs', '?')} epochs, {codec.get('steps', '?')} steps of "
        f"{codec.get('batch_size', '?')}, seed {codec.get('seed', '?')}, "
        f"{codec.get('seconds', '?')} s on {codec.get('threads', '?')} threads (shared machine)",
        f"- encode-decode PSNR on the 5,000 validation images: {codec.get('psnr_db', '?')} dB",
    ]
    for key, prior in card.get("priors", {}).items():
        lines += [
            "",
            f"## Prior `{key}`",
            "",
            f"GPT-2 with {prior['layers']} layers, {prior['width']} wide, {prior['heads']} heads, "
            f"and a begin token outside the alphabet; {prior['length']} tokens.",
            "",
            f"- {prior.get('epochs', '?')} epochs, {prior.get('steps', '?')} steps of "
            f"{prior.get('batch_size', '?')}, seed {prior.get('seed', '?')}, "
            f"{prior.get('seconds', '?')} s on {prior.get('threads', '?')} threads "
            "(shared machine), bfloat16 autocast",
            f"- {prior.get('validation_nats', '?')} nats a token on validation, "
            f"{prior.get('train_nats', '?')} on training images",
        ]
        if classes := prior.get("labels"):
            lines.append(
                f"- {classes} classes, each with a begin token of its own: "
                f"{prior.get('label_nats', '?')} nats a token on validation given the class"
            )
        for more in prior.get("continued", []):
            lines.append(
                f"- then `mlass train continue`: {more['epochs']} epochs, {more['steps']} steps of "
                f"{more['batch_size']}, seed {more['seed']}, {more['augmented']:.0%} of the images "
                f"augmented and {more['labelled']:.0%} of the rows with their class, "
                f"{more['seconds']} s; from {more['before']['validation_nats']} to "
                f"{more['after']['validation_nats']} nats a token on validation, and from "
                f"{more['before']['label_nats']} to {more['after']['label_nats']} given the class"
            )
            lines += [f"- {more['note']}"] if "note" in more else []
    if refiner := card.get("refiner"):
        lines += [
            "",
            "## Refiner",
            "",
            f"A convolutional network, {refiner['width']} wide, that corrects a separation's "
            f"signals, trained on separations of {_mixtures(refiner)}.",
            "",
            f"- {refiner.get('epochs', '?')} epochs, {refiner.get('steps', '?')} steps of "
            f"{refiner.get('batch_size', '?')}, seed {refiner.get('seed', '?')}, "
            f"{refiner.get('seconds', '?')} s on {refiner.get('threads', '?')} threads "
            "(shared machine), bfloat16 autocast",
        ]
        lines += [
            f"- {found['sources']} sources: {found['chosen']} dB as decoded, {found['refined']} dB "
            "refined, on mixtures of validation images"
            for found in refiner.get("validation_db", [])
        ]
        lines += [f"- {refiner['note']}"] if "note" in refiner else []
    for key, facts in card.get("codecs", {}).items():
        lines += [
            "",
            f"## Codec `{key}`",
            "",
            f"For mixtures alone: K = {facts['alphabet']}, {facts['size']}x{facts['size']} grey.",
        ]
        if facts["kind"] == "patches":
            lines += [
                "",
                "The nearest of K centres of 4x4 patches: k-means of "
                f"{facts.get('mixtures', '?')} mixtures each of {facts.get('mixed', '?')} training "
                f"images, seed {facts.get('seed', '?')}; encode-decode PSNR on mixtures of "
                f"validation images: {facts.get('psnr_db', '?')} dB",
            ]
    if tables := card.get("tables"):
        lines += ["", "## Tables", "", "| table | mixtures | coverage |", "|---|---|---|"]
        for entry in tables:
            recipe = str(Recipe.from_json(entry["recipe"])).replace("|", "\\|")
            mixtures = f"{entry['mixtures']:,}" if "mixtures" in entry else "?"
            if "signals" in entry:
                mixtures = f"{entry['signals']:,} signals"
            lines.append(f"| `{recipe}` | {mixtures} | {entry['coverage']} |")
        smoothing = bundle.smoothing
        lines += ["", f"Smoothing: {smoothing or 'none (exact support)'}"]
    if "shrink" in card:
        lines += ["", f"Features: Gaussians, {bundle.shrink}"]
    lines += [
        "",
        "## Licence",
        "",
        "Weights and tables: MIT, as the library. MNIST: Y. LeCun, C. Cortes, C. Burges.",
        "",
    ]
    (bundle.path / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _mixtures(refiner: dict[str, Any]) -> str:
    count = refiner.get("mixtures", "?")
    if isinstance(count, str):
        return f"training mixtures: {count}"
    return f"{count:,} training mixtures of each number of sources"
