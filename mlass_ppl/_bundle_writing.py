"""Writing a bundle: its files, their sizes and checksums, and last the card that names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._bundle_files import (
    CARD,
    CODEC,
    FORMAT,
    REFINER,
    card_digest,
    codec_file,
    digest,
    entries,
    table_file,
)
from ._bundle_reading import read_parts
from ._bundle_stage import staged
from ._durable import write_durably
from .codecs import Codec
from .codecs.kinds import KINDS, StoredCodec
from .errors import BundleError
from .priors.store import describe_prior, write_prior
from .tables import (
    AnyCounts,
    BackOff,
    CellMoments,
    Counts,
    Shrink,
    save_cells,
    save_counts,
    save_moments,
)
from .weights import fingerprint, save_weights

if TYPE_CHECKING:
    from .bundle import Bundle


def write_parts(bundle: Bundle, path: Path) -> Path:
    """Write a bundle's files and card; until all of them are there, the folder holds what it held.

    Raises BundleError when something has no format on disk or the disk is full, and where the
    folder has files that came to it after the bundle was loaded from there.
    """
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
    with staged(path) as stage:
        save_weights(_stored(bundle.codec), stage / CODEC)
        codec |= _kept(stage, path, CODEC)
        for key, extra in bundle.codecs.items():
            save_weights(_stored(extra), stage / codec_file(key))
            codecs[key] |= _kept(stage, path, codec_file(key))
        for key, prior in bundle.priors.items():
            write_prior(prior, stage / priors[key]["file"])
            priors[key] |= _kept(stage, path, priors[key]["file"])
            priors[key]["codec"] = codecs.get(key, codec)["sha256"]
        known = {entry["file"]: entry for entry in old.get("tables", [])}
        tables = []
        for recipe, counts in bundle.counts.items():
            file = table_file(recipe)
            _write_table(counts, stage / file)
            entry = {**known.get(file, {}), "file": file, "recipe": recipe.to_json()}
            entry |= {**_kept(stage, path, file), "codec": codec["sha256"]}
            used = dict.fromkeys(key for key in (*recipe.codecs, *recipe.leaves) if key in codecs)
            if made_for := {key: codecs[key]["sha256"] for key in used}:
                entry["codecs"] = made_for
            entry |= {"entries": len(counts.keys), "coverage": str(counts.coverage())}
            tables.append(entry)
        left = ("codecs", "shrink", "refiner", "sha256")
        card = {key: value for key, value in old.items() if key not in left}
        card |= {"format": 1, "name": bundle.name, "codec": codec}
        card |= {"priors": priors, "tables": tables}
        card["smoothing"] = None if bundle.smoothing is None else asdict(bundle.smoothing)
        if codecs:
            card["codecs"] = codecs
        if bundle.shrink != Shrink() or any(recipe.feature for recipe in bundle.counts):
            card["shrink"] = asdict(bundle.shrink)
        if bundle.refiner is not None:
            save_weights(bundle.refiner, stage / REFINER)
            card["refiner"] = {**old.get("refiner", {}), **bundle.refiner.describe()}
            card["refiner"] |= {**_kept(stage, path, REFINER), "codec": codec["sha256"]}
        card["format"] = _format(bundle, card)
        _check_newer(bundle, path, card)
        _write_card(card, stage)
    return path


def seal(folder: str | Path) -> Path:
    """Write into a bundle's card the size and SHA-256 of each file and the card's own: of a bundle
    that an earlier version saved, or whose card was edited. Returns the folder.

    Raises BundleError where the bundle cannot be loaded: a file that has a checksum must agree.
    """
    path = Path(folder)
    try:
        card = json.loads((path / CARD).read_text("utf-8"))
        card.pop("sha256", None)
        for _, entry in entries(card):
            entry.pop("bytes", None)
        read_parts(path, card)
        for file, entry in entries(card):
            entry |= digest(path / file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{path / CARD} cannot be sealed ({type(error).__name__}: {error}). Mend it first."
        ) from error
    with staged(path) as stage:
        _write_card(card, stage)
    return path


def _write_card(card: dict[str, Any], stage: Path) -> None:
    card["sha256"] = card_digest(card)
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    write_durably(stage / CARD, text.encode())


def _kept(stage: Path, path: Path, file: str) -> dict[str, Any]:
    """Size and checksum of a file on the stage, which is taken off where the bundle has the same:
    less is moved, and the disk need not hold both."""
    facts, there = digest(stage / file), path / file
    same = there.is_file() and not there.is_symlink()
    if same and there.stat().st_size == facts["bytes"] and fingerprint(there) == facts["sha256"]:
        (stage / file).unlink()
    return facts


def _format(bundle: Bundle, card: Mapping[str, Any]) -> int:
    if card["tables"]:
        return FORMAT
    special = any({"labels", "begin"} & entry.keys() for entry in card["priors"].values())
    special |= card["codec"]["kind"] != "image-vqvae"
    special |= "codecs" in card or "shrink" in card or isinstance(bundle.smoothing, BackOff)
    return 2 if special else 1


def _check_newer(bundle: Bundle, path: Path, card: Mapping[str, Any]) -> None:
    """Refuse to drop files that came to the folder after the bundle was loaded from there: another
    process, or an earlier line, saved something that this bundle knows nothing of."""
    if bundle.path is None or bundle.path.resolve() != path.resolve():
        return
    try:
        there = {file for file, _ in entries(json.loads((path / CARD).read_text("utf-8")))}
        known = {file for file, _ in entries(bundle.card)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # the folder has no bundle any more, or the card is of the caller's own making
    if lost := sorted(there - known - {file for file, _ in entries(card)}):
        raise BundleError(
            f"{path} has {', '.join(lost)} since bundle '{bundle.name}' was loaded from it; saving "
            "would lose that. Load it again and repeat the step, or save to another folder."
        )


def _stored(codec: Codec) -> StoredCodec:
    if not isinstance(codec, StoredCodec):
        known = ", ".join(made.__name__ for made, _ in KINDS.values())
        raise BundleError(
            f"cannot save a codec of class {type(codec).__name__}: only {known} have a format on "
            "disk."
        )
    return codec


def _describe_codec(codec: Codec) -> dict[str, Any]:
    return _stored(codec).describe()


def _write_table(counts: AnyCounts, file: Path) -> None:
    if isinstance(counts, Counts):
        save_counts(counts, file)
    elif isinstance(counts, CellMoments):
        save_cells(counts, file)
    else:
        save_moments(counts, file)
