"""A bundle on disk: codec, priors and tables, with the card that says how they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .codecs import Codec, ImageVQVAE, ImageVQVAEConfig
from .errors import BundleError, MlassError, TableError
from .graph import Factor, MixingGraph, Source
from .priors import Prior
from .priors.store import describe_prior, read_prior, write_prior
from .tables import Recipe, Table, load_counts, save_counts
from .tables.counts import Counts
from .tables.smoothing import Additive
from .weights import fingerprint, load_weights, save_weights

FORMAT = 1
"""Version of the folder layout; a newer one is refused by name."""

CARD, CODEC = "bundle.json", "codec.safetensors"


@dataclass(frozen=True)
class Bundle:
    """What `load` returns.

    codec: tokenises signals. priors: by key; a source without a key takes the only one there is.
    counts: by recipe, that is by what was mixed, not by site name, so that one table serves every
    program with a site of that recipe. smoothing: None (exact support) or `Additive(alpha)`.
    card: how all of it was trained (data, seeds, steps, measured quality).
    """

    name: str
    codec: Codec
    priors: Mapping[str, Prior]
    counts: Mapping[Recipe, Counts] = field(default_factory=dict)
    smoothing: Additive | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def prior_key(self, graph: MixingGraph, source: str) -> str:
        """Key of the prior of a source: the one it names, else its own name, else the only one."""
        site = graph.site(source)
        declared = site.prior if isinstance(site, Source) else None
        key = source if declared is None else declared
        if key in self.priors:
            return key
        if declared is None and len(self.priors) == 1:
            return next(iter(self.priors))
        raise BundleError(
            f"bundle '{self.name}' has no prior for source '{source}'"
            + (f" (declared prior '{declared}')" if declared else "")
            + f"; it has {sorted(self.priors)}. Name one: source('{source}', prior=...)."
        )

    def recipe(self, graph: MixingGraph, factor: Factor) -> Recipe:
        """What has to be mixed to count this factor's table."""
        return Recipe.of(graph, factor, lambda source: self.prior_key(graph, source))

    def tables(self, graph: MixingGraph, factors: tuple[Factor, ...]) -> dict[str, Table]:
        """The table of each factor, by factor name. Raises TableError naming the missing site."""
        out = {}
        for factor in factors:
            recipe = self.recipe(graph, factor)
            counts = self.counts.get(recipe)
            command = f"mlass count --program FILE --bundle {self.path or self.name}"
            if counts is None or (not counts.total and self.smoothing is None):
                raise TableError(
                    f"bundle '{self.name}' has no table for '{factor.name}' of '{graph.name}' "
                    f"({recipe}).\n  Count it: {command}"
                )
            expected = (self.codec.alphabet,) * len(factor.scope)
            if counts.shape != expected:
                raise TableError(
                    f"the table of '{factor.name}' was counted for alphabets {counts.shape}, but "
                    f"the codec of '{self.name}' needs {expected}.\n  Count it for this codec: "
                    f"{command} --force"
                )
            out[factor.name] = Table.from_counts(counts, self.smoothing)
        return out

    def save(self, path: str | Path) -> Path:
        """Write the bundle to a folder, weights in float16. Returns the folder.

        Raises BundleError when the codec or a prior has no format on disk, before anything is
        written.
        """
        path = Path(path)
        if not isinstance(self.codec, ImageVQVAE):
            raise BundleError(
                f"cannot save a codec of class {type(self.codec).__name__}: only ImageVQVAE has a "
                "format on disk."
            )
        facts = self.card.get("priors", {})
        priors = {
            key: {**facts.get(key, {}), **describe_prior(key, prior)}
            for key, prior in self.priors.items()
        }
        path.mkdir(parents=True, exist_ok=True)
        codec = {**self.card.get("codec", {}), **self.codec.describe()}
        codec["sha256"] = save_weights(self.codec, path / CODEC)
        for key, prior in self.priors.items():
            priors[key]["sha256"] = write_prior(prior, path / priors[key]["file"])
            priors[key]["codec"] = codec["sha256"]
        known = {entry["file"]: entry for entry in self.card.get("tables", [])}
        tables = []
        for recipe, counts in self.counts.items():
            file = f"table-{recipe.slug}.safetensors"
            save_counts(counts, path / file)
            tables.append(
                {
                    **known.get(file, {}),
                    "file": file,
                    "recipe": recipe.to_json(),
                    "sha256": fingerprint(path / file),
                    "codec": codec["sha256"],
                    "entries": len(counts.keys),
                    "coverage": str(counts.coverage()),
                }
            )
        card = {**self.card, "format": FORMAT, "name": self.name}
        card |= {"codec": codec, "priors": priors, "tables": tables}
        card["smoothing"] = None if self.smoothing is None else {"alpha": self.smoothing.alpha}
        temporary = path / "bundle.json.part"
        temporary.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
        os.replace(temporary, path / CARD)
        return path


def _homes() -> list[Path]:
    package = Path(__file__).parent
    homes = [package / "_models", package.parent / "models"]
    if extra := os.environ.get("MLASS_MODELS"):
        homes.insert(0, Path(extra))
    return homes


def list_bundles() -> list[Path]:
    """Folders of the bundles in `$MLASS_MODELS`, the installed package and the repository."""
    found: dict[str, Path] = {}
    for home in _homes():
        for card in sorted(home.glob("*/bundle.json")):
            found.setdefault(card.parent.name, card.parent)
    return list(found.values())


def load(name_or_path: str | Path) -> Bundle:
    """Load a bundle by name ("mnist") or by the path of its folder.

    Raises BundleError when there is none, a file is missing, corrupt or of a newer format, or a
    prior or table was made for another codec than the one in the folder.
    """
    path = Path(name_or_path)
    if not (path / CARD).is_file():
        known = {folder.name: folder for folder in list_bundles()}
        if str(name_or_path) not in known:
            raise BundleError(
                f"no bundle '{name_or_path}': it is neither a folder with a {CARD} nor one of "
                f"{sorted(known) or 'the installed bundles (there are none)'}. Give its folder, "
                "or put it into $MLASS_MODELS."
            )
        path = known[str(name_or_path)]
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        if card["format"] > FORMAT:
            raise BundleError(
                f"{path / CARD} has format {card['format']}, this library reads up to {FORMAT}. "
                "Upgrade mlass_ppl."
            )
        return _read(path, card)
    except BundleError:
        raise
    except (
        MlassError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, OSError,
    ) as error:  # fmt: skip
        raise BundleError(
            f"{path / CARD} is damaged ({type(error).__name__}: {error}). "
            "Restore the folder from its source, or train the bundle again."
        ) from error


def _read(path: Path, card: dict[str, Any]) -> Bundle:
    facts = card["codec"]
    if facts["kind"] != "image-vqvae":
        raise BundleError(
            f"unknown codec kind '{facts['kind']}' in {path / CARD}: expected 'image-vqvae'."
        )
    names = ImageVQVAEConfig.__dataclass_fields__
    codec = ImageVQVAE(ImageVQVAEConfig(**{key: facts[key] for key in names}))
    load_weights(codec, _intact(path, CODEC, facts))
    made_for = fingerprint(path / CODEC)
    priors: dict[str, Prior] = {}
    for key, entry in card["priors"].items():
        _same_codec(entry, made_for, f"prior '{key}'", path)
        priors[key] = read_prior(entry, _intact(path, entry["file"], entry))
    counts = {}
    for entry in card["tables"]:
        recipe = Recipe.from_json(entry["recipe"])
        _same_codec(entry, made_for, f"table {recipe}", path)
        try:
            counts[recipe] = load_counts(_intact(path, entry["file"], entry))
        except TableError as error:
            raise BundleError(str(error)) from error
    smoothing = card.get("smoothing")
    return Bundle(
        name=card["name"],
        codec=codec,
        priors=priors,
        counts=counts,
        smoothing=None if smoothing is None else Additive(smoothing["alpha"]),
        card=card,
        path=path,
    )


def _intact(path: Path, file: str, entry: dict[str, Any]) -> Path:
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


def _same_codec(entry: dict[str, Any], codec: str, what: str, path: Path) -> None:
    if entry["codec"] != codec:
        raise BundleError(
            f"{what} in {path} was made for another codec ({entry['codec'][:12]}) than {CODEC} "
            f"({codec[:12]}).\n  Restore the folder, or train all of it again: "
            f"mlass train mnist --out {path}"
        )
