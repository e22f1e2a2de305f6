"""Reading a bundle: every file is compared with the card before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ._bundle_files import CARD, CODEC, FORMAT, REFINER, check_card, codec_file, intact
from .codecs.kinds import KINDS, StoredCodec
from .errors import BundleError, TableError
from .priors.store import read_prior
from .refine.network import Refiner, RefinerConfig
from .tables import (
    Additive,
    AnyCounts,
    BackOff,
    Recipe,
    Shrink,
    Smoothing,
    load_cells,
    load_counts,
    load_moments,
)
from .weights import fingerprint, load_weights


def read_parts(path: Path, card: dict[str, Any]) -> dict[str, Any]:
    """The fields of a bundle, from its folder and card. Raises BundleError where a file is missing
    or altered or was made for another codec; what a damaged card raises is the caller's."""
    if card["format"] > FORMAT:
        raise BundleError(
            f"{path / CARD} has format {card['format']}, this library reads up to {FORMAT}. "
            "Upgrade mlass_ppl."
        )
    made_for: dict[str, str] = {}
    codec = _read_codec(path, CODEC, card["codec"], made_for, CODEC)
    codecs = {
        key: _read_codec(path, codec_file(key), facts, made_for, key)
        for key, facts in card.get("codecs", {}).items()
    }
    priors = {}
    for key, entry in card["priors"].items():
        own = {"codec": made_for[CODEC], "codecs": {key: entry["codec"]}}
        _same_codec(own if key in codecs else entry, made_for, f"prior '{key}'", path)
        priors[key] = read_prior(entry, intact(path, entry["file"], entry))
    counts: dict[Recipe, AnyCounts] = {}
    for entry in card["tables"]:
        recipe = Recipe.from_json(entry["recipe"])
        _same_codec(entry, made_for, f"table {recipe}", path)
        counts[recipe] = _read_table(recipe, intact(path, entry["file"], entry))
    refiner = None
    if facts := card.get("refiner"):
        _same_codec(facts, made_for, "the refiner", path)
        sizes = {key: facts[key] for key in RefinerConfig.__dataclass_fields__}
        refiner = Refiner(RefinerConfig(**sizes))
        load_weights(refiner, intact(path, REFINER, facts))
    parts = {
        "name": card["name"],
        "codec": codec,
        "priors": priors,
        "counts": counts,
        "smoothing": _read_smoothing(card.get("smoothing")),
        "card": card,
        "path": path,
        "codecs": codecs,
        "shrink": Shrink(**card.get("shrink", {})),
        "refiner": refiner,
    }
    check_card(path, card)  # last: what is wrong with one part says more
    return parts


def _read_codec(
    path: Path, file: str, facts: Mapping[str, Any], made_for: dict[str, str], key: str
) -> StoredCodec:
    """A codec; its checksum goes to `made_for`."""
    if facts["kind"] not in KINDS:
        raise BundleError(
            f"unknown codec kind '{facts['kind']}' in {path / CARD}: expected one of "
            f"{', '.join(KINDS)}."
        )
    made, config = KINDS[facts["kind"]]
    codec = made(config(**{key: facts[key] for key in config.__dataclass_fields__ if key in facts}))
    place = intact(path, file, facts)
    load_weights(codec, place)
    made_for[key] = facts["sha256"] if "sha256" in facts else fingerprint(place)
    return codec


def _read_table(recipe: Recipe, file: Path) -> AnyCounts:
    read: Callable[[Path], AnyCounts] = load_moments if recipe.feature else load_counts
    if recipe.cells:
        read = load_cells
    try:
        return read(file)
    except TableError as error:
        raise BundleError(str(error)) from error


def _read_smoothing(facts: Mapping[str, Any] | None) -> Smoothing | None:
    if facts is None:
        return None
    return BackOff(**facts) if "strength" in facts else Additive(**facts)


def _same_codec(
    entry: Mapping[str, Any], made_for: Mapping[str, str], what: str, path: Path
) -> None:
    """Check that a prior or a table was made for the codecs in the folder, known by fingerprint."""
    for key, codec in {CODEC: entry["codec"], **entry.get("codecs", {})}.items():
        if codec != made_for[key]:
            file = key if key == CODEC else codec_file(key)
            raise BundleError(
                f"{what} in {path} was made for another codec ({codec[:12]}) than {file} "
                f"({made_for[key][:12]}).\n  Restore the folder, or train all of it again: "
                f"mlass train mnist --out {path}"
            )
