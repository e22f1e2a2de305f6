"""The files of a bundle: written, read back and checked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .codecs import Codec
from .codecs.kinds import KINDS, StoredCodec
from .errors import BundleError, TableError
from .priors.store import describe_prior, read_prior, write_prior
from .refine.network import Refiner, RefinerConfig
from .tables import (
    Additive,
    AnyCounts,
    BackOff,
    CellMoments,
    Counts,
    Recipe,
    Shrink,
    Smoothing,
    load_cells,
    load_counts,
    load_moments,
    save_cells,
    save_counts,
    save_moments,
)
from .weights import fingerprint, load_weights, save_weights

if TYPE_CHECKING:
    from .bundle import Bundle

FORMAT = 3
"""Version of the folder layout; a newer one is refused by name. What an earlier version can hold is
written as such: version 2 adds further codecs and kinds of them, features, back-off, and priors
with classes or with a begin token among the codes; version 3 packs the numbers of tables."""

CARD, CODEC, REFINER = "bundle.json", "codec.safetensors", "refiner.safetensors"


def table_file(recipe: Recipe) -> str:
    """Name of a table's file."""
    return f"table-{recipe.slug}.safetensors"


def write_parts(bundle: Bundle, path: Path) -> Path:
    """Write a bundle's files and, last, its card. Raises BundleError when something has no format
    on disk, before anything is written."""
    old = bundle.card
    codec = {**old.get("codec", {}), **_describe_codec(bundle.codec)}
    codecs: dict[str, dict[str, Any]] = {}
    for key, extra in bundle.codecs.items():
        if not key or Path(key).name != key:
            raise BundleError(f"codec key '{key}' cannot name a file: expected a word.")
        codecs[key] = {**old.get("codecs", {}).get(key, {}), **_describe_codec(extra)}
    priors = {
        key: {**old.get("priors", {}).get(key, {}), **describe_prior(key, prior)}
        for key, prior in bundle.priors.items()
    }
    for recipe in bundle.counts:
        if lost := set(recipe.codecs) - {"", *codecs}:
            raise BundleError(
                f"table {recipe} was counted for codecs {sorted(lost)}, which bundle "
                f"'{bundle.name}' lacks. Add them, or drop the table."
            )
    path.mkdir(parents=True, exist_ok=True)
    codec["sha256"] = save_weights(_stored_codec(bundle.codec), path / CODEC)
    for key, extra in bundle.codecs.items():
        codecs[key]["sha256"] = save_weights(_stored_codec(extra), path / _codec_file(key))
    for key, prior in bundle.priors.items():
        priors[key]["sha256"] = write_prior(prior, path / priors[key]["file"])
        priors[key]["codec"] = codecs.get(key, codec)["sha256"]
    known = {entry["file"]: entry for entry in old.get("tables", [])}
    tables = []
    for recipe, counts in bundle.counts.items():
        entry = {**known.get(table_file(recipe), {}), "file": table_file(recipe)}
        entry |= _write_table(recipe, counts, path / entry["file"])
        entry["codec"] = codec["sha256"]
        used = dict.fromkeys(key for key in (*recipe.codecs, *recipe.leaves) if key in codecs)
        if made_for := {key: codecs[key]["sha256"] for key in used}:
            entry["codecs"] = made_for
        entry |= {"entries": len(counts.keys), "coverage": str(counts.coverage())}
        tables.append(entry)
    card = {key: value for key, value in old.items() if key not in ("codecs", "shrink", "refiner")}
    card |= {"format": 1, "name": bundle.name, "codec": codec, "priors": priors, "tables": tables}
    card["smoothing"] = None if bundle.smoothing is None else asdict(bundle.smoothing)
    if codecs:
        card["codecs"] = codecs
    if bundle.shrink != Shrink() or any(recipe.feature for recipe in bundle.counts):
        card["shrink"] = asdict(bundle.shrink)
    if bundle.refiner is not None:
        card["refiner"] = {**old.get("refiner", {}), **bundle.refiner.describe()}
        card["refiner"] |= {"sha256": save_weights(bundle.refiner, path / REFINER)}
        card["refiner"] |= {"codec": codec["sha256"]}
    special = any({"labels", "begin"} & entry.keys() for entry in priors.values())
    special |= codec["kind"] != "image-vqvae"
    if special or "codecs" in card or "shrink" in card or isinstance(bundle.smoothing, BackOff):
        card["format"] = 2
    if tables:
        card["format"] = FORMAT
    temporary = path / f"{CARD}.part"
    temporary.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(temporary, path / CARD)
    return path


def read_parts(path: Path, card: dict[str, Any]) -> dict[str, Any]:
    """The fields of a bundle, from its folder and card. Raises BundleError where a file is missing
    or altered or was made for another codec; what a damaged card raises is the caller's."""
    if card["format"] > FORMAT:
        raise BundleError(
            f"{path / CARD} has format {card['format']}, this library reads up to {FORMAT}. "
            "Upgrade mlass_ppl."
        )
    codec = _read_codec(path, CODEC, card["codec"])
    codecs = {
        key: _read_codec(path, _codec_file(key), facts)
        for key, facts in card.get("codecs", {}).items()
    }
    made_for = {CODEC: fingerprint(path / CODEC)}
    made_for |= {key: fingerprint(path / _codec_file(key)) for key in codecs}
    priors = {}
    for key, entry in card["priors"].items():
        own = {"codec": made_for[CODEC], "codecs": {key: entry["codec"]}}
        _same_codec(own if key in codecs else entry, made_for, f"prior '{key}'", path)
        priors[key] = read_prior(entry, _intact(path, entry["file"], entry))
    counts: dict[Recipe, AnyCounts] = {}
    for entry in card["tables"]:
        recipe = Recipe.from_json(entry["recipe"])
        _same_codec(entry, made_for, f"table {recipe}", path)
        read: Callable[[Path], AnyCounts] = load_moments if recipe.feature else load_counts
        if recipe.cells:
            read = load_cells
        try:
            counts[recipe] = read(_intact(path, entry["file"], entry))
        except TableError as error:
            raise BundleError(str(error)) from error
    refiner = None
    if facts := card.get("refiner"):
        _same_codec(facts, made_for, "the refiner", path)
        sizes = {key: facts[key] for key in RefinerConfig.__dataclass_fields__}
        refiner = Refiner(RefinerConfig(**sizes))
        load_weights(refiner, _intact(path, REFINER, facts))
    return {
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


def _codec_file(key: str) -> str:
    return f"codec-{key}.safetensors"


def _stored_codec(codec: Codec) -> StoredCodec:
    if not isinstance(codec, StoredCodec):
        known = ", ".join(made.__name__ for made, _ in KINDS.values())
        raise BundleError(
            f"cannot save a codec of class {type(codec).__name__}: only {known} have a format on "
            "disk."
        )
    return codec


def _describe_codec(codec: Codec) -> dict[str, Any]:
    return _stored_codec(codec).describe()


def _read_codec(path: Path, file: str, facts: Mapping[str, Any]) -> StoredCodec:
    if facts["kind"] not in KINDS:
        raise BundleError(
            f"unknown codec kind '{facts['kind']}' in {path / CARD}: expected one of "
            f"{', '.join(KINDS)}."
        )
    made, config = KINDS[facts["kind"]]
    codec = made(config(**{key: facts[key] for key in config.__dataclass_fields__ if key in facts}))
    load_weights(codec, _intact(path, file, facts))
    return codec


def _write_table(recipe: Recipe, counts: AnyCounts, path: Path) -> dict[str, Any]:
    if isinstance(counts, Counts):
        save_counts(counts, path)
    elif isinstance(counts, CellMoments):
        save_cells(counts, path)
    else:
        save_moments(counts, path)
    return {"recipe": recipe.to_json(), "sha256": fingerprint(path)}


def _read_smoothing(facts: Mapping[str, Any] | None) -> Smoothing | None:
    if facts is None:
        return None
    return BackOff(**facts) if "strength" in facts else Additive(**facts)


def _intact(path: Path, file: str, entry: Mapping[str, Any]) -> Path:
    """A file of the bundle, inside its folder and with the checksum that its card tells."""
    target = (path / file).resolve()
    if not target.is_relative_to(path.resolve()):
        raise BundleError(f"{path / CARD} names a file outside its folder: '{file}'. Mend it.")
    if not target.is_file():
        raise BundleError(
            f"bundle file {target.name} is missing from {path}. Restore it from the bundle's "
            "source, or train the bundle again."
        )
    if entry.get("sha256", found := fingerprint(target)) != found:
        raise BundleError(
            f"{target} is not the file that {CARD} describes (SHA-256 {found[:12]}, expected "
            f"{entry['sha256'][:12]}): it is damaged or was swapped. Restore it from the bundle's "
            "source."
        )
    return target


def _same_codec(
    entry: Mapping[str, Any], made_for: Mapping[str, str], what: str, path: Path
) -> None:
    """Check that a prior or a table was made for the codecs in the folder, known by fingerprint."""
    for key, codec in {CODEC: entry["codec"], **entry.get("codecs", {})}.items():
        if codec != made_for[key]:
            file = key if key == CODEC else _codec_file(key)
            raise BundleError(
                f"{what} in {path} was made for another codec ({codec[:12]}) than {file} "
                f"({made_for[key][:12]}).\n  Restore the folder, or train all of it again: "
                f"mlass train mnist --out {path}"
            )
