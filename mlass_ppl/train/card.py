"""The model card of a bundle, written from the facts in its bundle.json."""

from __future__ import annotations

from typing import Any

from ..bundle import Bundle
from ..errors import BundleError
from ..tables import Recipe


def write_card(bundle: Bundle) -> None:
    """Write README.md beside the bundle's files."""
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
    for key, facts in card.get("codecs", {}).items():
        lines += [
            "",
            f"## Codec `{key}`",
            "",
            f"For mixtures alone: K = {facts['alphabet']}, {facts['size']}x{facts['size']} grey.",
        ]
    if tables := card.get("tables"):
        lines += ["", "## Tables", "", "| table | mixtures | coverage |", "|---|---|---|"]
        for entry in tables:
            recipe = str(Recipe.from_json(entry["recipe"])).replace("|", "\\|")
            mixtures = f"{entry['mixtures']:,}" if "mixtures" in entry else "?"
            lines.append(f"| `{recipe}` | {mixtures} | {entry['coverage']} |")
        smoothing = bundle.smoothing
        lines += ["", f"Smoothing: {smoothing or 'none (exact support)'}"]
    if "shrink" in card:
        lines += ["", f"Features: diagonal Gaussians, {bundle.shrink}"]
    lines += [
        "",
        "## Licence",
        "",
        "Weights and tables: MIT, as the library. MNIST: Y. LeCun, C. Cortes, C. Burges.",
        "",
    ]
    (bundle.path / "README.md").write_text("\n".join(lines), encoding="utf-8")
