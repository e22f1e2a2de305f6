"""The model card of a bundle of sound, written from the facts in its bundle.json."""

from __future__ import annotations

from typing import Any

from ..bundle import Bundle
from ..errors import BundleError
from ..tables import Recipe


def write_sound_card(bundle: Bundle) -> None:
    """Write README.md beside the files of a bundle that `mlass train band` or `spoken` makes.

    Raises BundleError where the bundle has no folder.
    """
    if bundle.path is None:
        raise BundleError(f"bundle '{bundle.name}' has no folder to write a card to.")
    card: dict[str, Any] = dict(bundle.card)
    facts, codec = card["recipe"], card["codec"]
    lines = [
        f"# Bundle `{bundle.name}`",
        "",
        f"{facts['title']}: a codec and an autoregressive prior for each source, a codec of "
        "mixtures, and the tables of their mixtures. Made with mlass_ppl "
        f"{card.get('version', '?')}; train it again with",
        "",
        f"    {facts['command']}",
        "",
        "Weights are float16 safetensors (`codec`, `codec-*`, `prior-*`), tables are exact whole "
        "numbers; all other facts are in `bundle.json`. Reading them runs no code.",
        "",
        f"Data: {facts['data']}.{_variants(facts)}",
        "",
        f"Signals are mono at {codec['sample_rate']:,} Hz, up to {codec['samples']:,} samples "
        f"({codec['samples'] / codec['sample_rate']:.2f} s) at once; a token is {codec['hop']} "
        "samples.",
        "",
        "## Codecs",
        "",
        "Codes are the k-means of single frames in the cosine domain, decoders are convolutional. "
        "SDR and log-mel distance are of validation segments, encoded and decoded; those of "
        "`mixtures`, of means of one to all sources.",
        "",
        "| codec | codes | segments | seed | s | SDR, dB | log-mel L1 | level, RMS |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, own in {"mixtures": codec, **card.get("codecs", {})}.items():
        level = card["levels"].get(key, "")
        lines.append(
            f"| {key} | {own['alphabet']:,} | {_number(own, 'segments')} | {own.get('seed', '?')} "
            f"| {own.get('seconds', '?')} | {own.get('sdr_db', '?')} | {own.get('logmel_l1', '?')} "
            f"| {level} |"
        )
    lines += _priors(card)
    if tables := card.get("tables"):
        lines += ["", "## Tables", "", "| table | counted | coverage |", "|---|---|---|"]
        for entry in tables:
            recipe = str(Recipe.from_json(entry["recipe"])).replace("|", "\\|")
            counted = f"{_number(entry, 'mixtures')} mixtures"
            if "signals" in entry:
                counted = f"{entry['signals']:,} signals"
            lines.append(f"| `{recipe}` | {counted} | {entry['coverage']} |")
    lines += ["", f"Features: Gaussians, {bundle.shrink}", ""]
    for more in card.get("measured", []):
        lines += [f"- {more}"]
    lines += ["", "## Licence", "", facts["licence"], ""]
    (bundle.path / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _priors(card: dict[str, Any]) -> list[str]:
    priors = card.get("priors", {})
    if not priors:
        return []
    varied = any("varied" in own for own in priors.values())
    told = (
        "GPT-2 with a begin token outside the alphabet, trained in bfloat16 autocast on windows as "
        "they are and then on windows of which two thirds are sped up or slowed down. "
    )
    if varied:
        told += (
            "A third pass is over windows of which a third are of the songs, sped up or slowed "
            "down, and two thirds of variants of them: other instruments of each family, drum "
            "kits, keys, tempi and velocities. "
        )
    told += "Nats a token after each pass, on validation windows as they are"
    more = "; of variants, before and after the third pass, on those of validation songs"
    lines = ["", "## Priors", "", f"{told}{more if varied else ''}.", ""]
    lines += [
        f"| prior | layers, width, heads | windows | seed | s | nats |{' of variants |' * varied}",
        f"|---|---|---|---|---|---|{'---|' * varied}",
    ]
    for key, own in priors.items():
        windows = [_number(own, name) for name in ("windows", "more")]
        windows += [_number(own, "varied")] * ("varied" in own)
        nats = own.get("nats_by_pass") or [own.get("validation_nats", "?")]
        line = (
            f"| {key} | {own['layers']}, {own['width']}, {own['heads']} | {' + '.join(windows)} "
            f"| {own.get('seed', '?')} | {own.get('seconds', '?')} | {', '.join(map(str, nats))} |"
        )
        others = ", ".join(map(str, own.get("variants_nats", [])))
        lines.append(line + f" {others} |" * varied)
    return lines


def _variants(facts: dict[str, Any]) -> str:
    return f" Variants: {facts['variants']}." if "variants" in facts else ""


def _number(facts: dict[str, Any], name: str) -> str:
    value = facts.get(name)
    return f"{value:,}" if isinstance(value, int) else "?"
