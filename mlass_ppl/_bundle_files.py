"""The files of a bundle: their names, and what its card tells of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import BundleError
from .tables import Recipe
from .weights import fingerprint

FORMAT = 3
"""Version of the folder layout; a newer one is refused by name. What an earlier version can hold is
written as such: version 2 adds further codecs and kinds of them, features, back-off, and priors
with classes or with a begin token among the codes; version 3 packs the numbers of tables. In every
version files may have a size and a SHA-256 in the card, and the card one of its own."""

CARD, CODEC, REFINER = "bundle.json", "codec.safetensors", "refiner.safetensors"

STAGE = ".new"
"""Folder of files that are not at their places yet."""


def table_file(recipe: Recipe) -> str:
    """Name of a table's file."""
    return f"table-{recipe.slug}.safetensors"


def codec_file(key: str) -> str:
    """Name of the file of a codec besides the main one."""
    return f"codec-{key}.safetensors"


def entries(card: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every file that a card names, with its entry."""
    yield CODEC, card["codec"]
    for key, entry in card.get("codecs", {}).items():
        yield codec_file(key), entry
    for entry in (*card["priors"].values(), *card["tables"]):
        yield entry["file"], entry
    if entry := card.get("refiner"):
        yield REFINER, entry


def digest(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as they stand in its entry."""
    return {"sha256": fingerprint(file), "bytes": file.stat().st_size}


def card_digest(card: Mapping[str, Any]) -> str:
    """SHA-256 of all that a card tells but this number itself; order and line ends do not count."""
    told = {key: value for key, value in card.items() if key != "sha256"}
    text = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_card(path: Path, card: Mapping[str, Any]) -> None:
    """Raise BundleError where a card is not as it was saved. A card that tells no sizes was saved
    before cards had a checksum."""
    sized = any("bytes" in entry for _, entry in entries(card))
    expected = card.get("sha256")
    if (sized or expected is not None) and expected != card_digest(card):
        raise BundleError(
            f"{path / CARD} is not as it was saved: it is damaged, or was edited. Restore it from "
            "the bundle's source; after an edit of your own, seal it: "
            f"mlass_ppl.bundle.seal({str(path)!r})"
        )


def agrees(file: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a file has the size and the checksum that its entry tells; not so without one."""
    try:
        sized = entry.get("bytes") in (None, file.stat().st_size)
        return sized and entry.get("sha256") == fingerprint(file)
    except OSError:
        return False


def inside(path: Path, file: str) -> Path:
    """A file of the bundle. Raises BundleError where a link or its name leads out of the folder."""
    target = (path / file).resolve()
    if not target.is_relative_to(path.resolve()):
        raise BundleError(f"{path / CARD} names a file outside its folder: '{file}'. Mend it.")
    return target


def intact(path: Path, file: str, entry: Mapping[str, Any]) -> Path:
    """A file of the bundle, inside its folder and as its entry tells; what a save that was ended
    left on the stage is taken from there. Raises BundleError naming the file."""
    target, waiting = inside(path, file), inside(path, f"{STAGE}/{file}")
    for place in (target, waiting, target):  # it may be moved while we look
        if agrees(place, entry):
            return place
    if not target.is_file():
        raise BundleError(
            f"bundle file {target.name} is missing from {path}. Restore it from the bundle's "
            "source, or train the bundle again."
        )
    if "sha256" not in entry:
        return target  # nothing to compare it with
    size, expected = target.stat().st_size, entry.get("bytes")
    found = f"SHA-256 {fingerprint(target)[:12]}, expected {entry['sha256'][:12]}"
    if expected not in (None, size):
        found = f"{size:,} bytes, expected {expected:,}"
    raise BundleError(
        f"{target} is not the file that {CARD} describes ({found}): it is damaged or was swapped. "
        "Restore it from the bundle's source."
    )
