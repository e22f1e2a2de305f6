"""A bundle: codecs, priors and tables, with the card that says how they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ._bundle_files import CARD as CARD
from ._bundle_files import CODEC as CODEC
from ._bundle_files import FORMAT as FORMAT
from ._bundle_files import inside, table_file
from ._bundle_reading import read_parts
from ._bundle_stage import finish
from ._bundle_tables import how_counted, is_counted, is_symmetric, make_table, shapes
from ._bundle_writing import seal as seal
from ._bundle_writing import write_parts
from .codecs import Codec
from .declare import Program, compile_program
from .errors import BundleError, GraphError, MlassError
from .graph import Factor, Mix, MixingGraph, Source
from .priors import Prior
from .refine.network import Refiner
from .tables import AnyCounts, AnyTable, Recipe, Shrink, Smoothing, count
from .tables.jobs import recipes_of

if TYPE_CHECKING:
    from .infer import Engine


@dataclass(frozen=True)
class Bundle:
    """What `load` returns.

    codec: tokenises signals. priors: by key; a source without a key takes the only one there is.
    counts: by recipe, that is by what was mixed, not by site name, so that one table serves every
    program with a site of that recipe; moments where the site is a feature, and of each part's
    cells where it is a linear one. smoothing: None (exact
    support), `Additive(alpha)` or `BackOff(strength)`. card: how all of it was trained (data,
    seeds, steps, measured quality). codecs: further ones, by the key that mixtures declare, or by
    the key of a prior, whose sources then have that alphabet of their own. shrink: of the moments
    of features. refiner: the network that `Learned` refines with, if any.
    """

    name: str
    codec: Codec
    priors: Mapping[str, Prior]
    counts: Mapping[Recipe, AnyCounts] = field(default_factory=dict)
    smoothing: Smoothing | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    codecs: Mapping[str, Codec] = field(default_factory=dict)
    shrink: Shrink = Shrink()
    refiner: Refiner | None = None

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

    def codec_of(self, graph: MixingGraph, name: str) -> Codec:
        """The codec of a site: the one whose key it declares, of a source the one of its prior's
        key where there is one, else the main one."""
        site = graph.site(name)
        if not isinstance(site, Mix):
            return self.codecs.get(self.prior_key(graph, name), self.codec)
        key = site.codec
        if key is None:
            return self.codec
        if key not in self.codecs:
            raise BundleError(
                f"bundle '{self.name}' has no codec '{key}' for site '{name}'; besides the "
                f"main one it has {sorted(self.codecs)}. Name one of them, or leave "
                "codec=... out."
            )
        return self.codecs[key]

    def recipe(self, graph: MixingGraph, factor: Factor) -> Recipe:
        """What a factor's table is of. Raises GraphError where parents that were declared symmetric
        are not exchangeable."""
        recipe = Recipe.of(graph, factor, lambda source: self.prior_key(graph, source))
        if is_symmetric(graph, factor) and not recipe.exchangeable:
            raise GraphError(
                f"mixture '{factor.child}' of '{graph.name}' declares symmetric=True, but its "
                f"parents {list(factor.parents)} are not exchangeable ({recipe}): they must hold "
                "sources of the same priors in the same shares, in tokens of one codec. Drop "
                "symmetric=True."
            )
        return recipe

    def recipes(self, graph: MixingGraph, factor: Factor) -> tuple[Recipe, ...]:
        """What has to be mixed to count this factor's table: its `recipe`, or of a linear feature
        the recipes of the cells of its parts. Raises as `recipe` does."""
        whole = self.recipe(graph, factor)
        if not factor.linear:
            return (whole,)
        return recipes_of(graph, factor, lambda source: self.prior_key(graph, source))

    def tables(self, graph: MixingGraph, factors: tuple[Factor, ...]) -> dict[str, AnyTable]:
        """The table of each factor, by factor name: smoothed, of features shrunk, and of parents
        that were declared symmetric in either order.

        Raises TableError naming a site whose table is missing or of other alphabets, and the
        command that counts it; GraphError where symmetric parents are not exchangeable, and
        BundleError where a prior or a codec is missing.
        """
        return {factor.name: make_table(self, graph, factor) for factor in factors}

    def lacking(self, graph: MixingGraph, factors: tuple[Factor, ...]) -> dict[Recipe, Factor]:
        """What has to be counted for these factors: recipes that nothing was counted for, or for
        codecs of other alphabets; each with the first factor that needs it."""
        out: dict[Recipe, Factor] = {}
        for factor in factors:
            wanted = zip(self.recipes(graph, factor), shapes(self, graph, factor), strict=True)
            for recipe, shape in wanted:
                if not is_counted(self.counts.get(recipe), shape):
                    out.setdefault(recipe, factor)
        return out

    def count(
        self,
        program: Program | MixingGraph,
        signals: Mapping[str, Tensor] | Tensor,
        *,
        infer: Engine | None = None,
        mixtures: int = 100_000,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Bundle:
        """This bundle with the tables of a program that it lacks, counted as by `count`.

        Tables are known by recipe: what is there, for the codecs' alphabets, is not counted again.
        signals: [N, *signal_shape], or by prior key. infer: the engine whose tables are wanted
        (default: those of the program's own sites). The bundle stays in memory; `save` writes it.
        Raises the errors of `tables`, missing tables apart, and those of `count`.
        """
        graph = compile_program(program)
        lacking = self.lacking(graph, graph.factors if infer is None else infer.factors(graph))
        if not lacking:
            return self
        counted = count(
            graph,
            self.codec,
            signals,
            codecs=self.codecs,
            factors=list(dict.fromkeys(lacking.values())),
            skip=self.counts.keys() - lacking.keys(),
            mixtures=mixtures,
            seed=seed,
            kind=lambda source: self.prior_key(graph, source),
            progress=progress,
        )
        files = {table_file(recipe) for recipe in counted}
        facts = [entry for entry in self.card.get("tables", []) if entry["file"] not in files]
        facts += [
            {
                "file": table_file(recipe),
                **how_counted(self, recipe, counted[recipe], mixtures, seed),
            }
            for recipe in sorted(counted, key=table_file)
        ]
        card = {**self.card, "tables": facts}
        return replace(self, counts={**self.counts, **counted}, card=card)

    def save(self, path: str | Path) -> Path:
        """Write the bundle to a folder, weights in float16. Returns the folder.

        Whatever ends the process, the folder holds this bundle or what it held before. Raises
        BundleError, and changes nothing, when a codec or a prior has no format on disk, the disk is
        full, or the folder has files that came to it after this bundle was loaded from there.
        """
        return write_parts(self, Path(path))


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

    Each file is compared with its size and SHA-256 in the card before it is used. Raises
    BundleError when there is none, a file is missing, altered, swapped or of a newer format, lies
    outside the folder, or a prior or table was made for another codec than the one there.
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
    finish(path)
    while True:
        card = inside(path, CARD).read_bytes()
        try:
            return _loaded(path, card)
        except BundleError:
            if (path / CARD).read_bytes() == card:
                raise
            # saved anew while it was read


def _loaded(path: Path, card: bytes) -> Bundle:
    try:
        return Bundle(**read_parts(path, json.loads(card.decode())))
    except BundleError:
        raise
    except (
        MlassError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, OSError,
    ) as error:  # fmt: skip
        raise BundleError(
            f"{path / CARD} is damaged ({type(error).__name__}: {error}). "
            "Restore the folder from its source, or train the bundle again."
        ) from error
