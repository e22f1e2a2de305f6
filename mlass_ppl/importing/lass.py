"""The published MNIST model of LASS and MLASS, as a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from pathlib import Path

from .._version import __version__
from ..bundle import Bundle
from ..codecs.grey import PATCH
from ..errors import BundleError
from ..tables import Counts, Recipe
from ..weights import fingerprint
from .files import find_files
from .gpt2 import HEADS, read_gpt2
from .sums import DIGIT, read_sums
from .vqvae import read_vqvae

SOURCE = "LASS (Postolache et al., 2023, arXiv:2301.08562) and MLASS (Scarcelli, 2024)"


def import_lass_mnist(
    folder: str | Path,
    *,
    vqvae: Path | None = None,
    prior: Path | None = None,
    sums: Sequence[Path] = (),
    heads: int = HEADS,
    name: str = "lass",
) -> Bundle:
    """The bundle of the checkpoints that LASS and MLASS published for MNIST.

    folder: where their archives were unpacked. vqvae, prior, sums: files of other names. heads:
    attention heads of the prior, which its weights do not tell (2 in the published one). All other
    sizes are read from the weights: as published, images [1, 28, 28] and 7 x 7 tokens of 256 codes.

    The prior is "digit"; its begin token is code 0. The tables are those of `joint(2)` or
    `chain(2)` (LASS), `chain(n)` (MLASS-BP) and `star(n)` (MLASS-PE), without smoothing. Of two
    tables of one recipe the first is taken, LASS's own before others; the card tells which were
    left out, and the name and SHA-256 of every file. The bundle stays in memory; `save` writes it,
    its weights in float16.

    Files are read as tensors alone: none can run code. Raises BundleError, naming the file and the
    likeliest fix, when one is missing or damaged, holds anything else, or does not fit the others.
    """
    files = find_files(Path(folder), vqvae=vqvae, prior=prior, sums=sums)
    model = read_gpt2(files.prior, heads)
    length = model.length or 0
    codec = read_vqvae(files.vqvae, PATCH * _side(length, files.prior))
    if codec.alphabet != model.alphabet:
        raise BundleError(
            f"{files.vqvae} has {codec.alphabet} codes, but {files.prior} is a prior over "
            f"{model.alphabet}. They must be of one model: name both, with --vqvae and --prior."
        )
    counts: dict[Recipe, Counts] = {}
    imported = {files.vqvae: {"as": "codec"}, files.prior: {"as": f"prior '{DIGIT}'"}}
    for path in files.sums:
        found = read_sums(path, codec.alphabet)
        taken = [recipe for recipe in found if recipe not in counts]
        counts |= {recipe: found[recipe] for recipe in taken}
        imported[path] = {"as": _named(taken)}
        if left := [recipe for recipe in found if recipe not in taken]:
            imported[path]["left out"] = f"{_named(left)}, which a file before it has"
    card = {
        "version": __version__,
        "source": SOURCE,
        "imported": {
            _short(path, Path(folder)): {**facts, "sha256": fingerprint(path)}
            for path, facts in imported.items()
        },
    }
    return Bundle(name, codec, {DIGIT: model}, counts, card=card)


def _named(recipes: Sequence[Recipe]) -> str:
    return f"table {'; '.join(map(str, recipes))}" if recipes else "nothing"


def _side(length: int, path: Path) -> int:
    side = isqrt(length)
    if side * side != length:
        raise BundleError(
            f"{path} knows sequences of {length} tokens, which are no square grid; expected 49, "
            "7 x 7. Is it the prior of images?"
        )
    return side


def _short(path: Path, folder: Path) -> str:
    """A file's name with enough of its folders to tell it from others of the same name."""
    inside = path.is_relative_to(folder)
    return (path.relative_to(folder) if inside else Path(*path.parts[-2:])).as_posix()
