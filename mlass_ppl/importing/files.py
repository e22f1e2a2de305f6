"""Where the published files of LASS and MLASS lie, and what to say where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError

VQVAE, PRIOR = "vqvae/256-sigmoid-big.pt", "unconditioned/256-sigmoid-big.pt"
SUMS = ("sum/*.pt", "sum/*.npz", "models/sums-MNIST*/*.pt", "models/sums-MNIST*/*.npz")
"""LASS's table and MLASS-PE's are in sum/, MLASS-BP's in models/sums-MNIST-gm/."""

_INSIDE = (".", "checkpoints", "lass_mnist", "lass_mnist/checkpoints")
_TABLE = "sum/256-sigmoid-big.pt"
_SHOWN = 8


@dataclass(frozen=True)
class LassFiles:
    """The files of an import. sums: LASS's own table first, the others by name."""

    vqvae: Path
    prior: Path
    sums: tuple[Path, ...]


def find_files(
    folder: Path,
    *,
    vqvae: Path | None = None,
    prior: Path | None = None,
    sums: Sequence[Path] = (),
) -> LassFiles:
    """The published files in a folder: the checkpoints' own, `lass_mnist` or the repository.

    vqvae, prior, sums: files to take instead. Raises BundleError that lists what was expected and
    what was found, when one is missing.
    """
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise BundleError(
            f"{folder} {kind}; expected the folder of the published checkpoints. An archive is "
            "unpacked first, with tar -xf lass-mnist-ckpts.tar, into a folder of its own."
        )
    roots = [folder / inside for inside in _INSIDE]
    codec, model = vqvae or _first(roots, VQVAE), prior or _first(roots, PRIOR)
    tables = list(sums) or _tables(roots)
    if codec is None or model is None or not tables:
        raise BundleError(_missing(folder, codec, model, tables))
    return LassFiles(codec, model, tuple(dict.fromkeys(tables)))


def _first(roots: Sequence[Path], name: str) -> Path | None:
    return next((root / name for root in roots if (root / name).is_file()), None)


def _tables(roots: Sequence[Path]) -> list[Path]:
    found = [path for root in roots for glob in SUMS for path in sorted(root.glob(glob))]
    return sorted(found, key=lambda path: path.parts[-2:] != tuple(_TABLE.split("/")))


def _missing(folder: Path, vqvae: Path | None, prior: Path | None, sums: Sequence[Path]) -> str:
    lines = [f"{folder} does not hold all files of the published model:"]
    for what, expected, found in (
        ("VQ-VAE", VQVAE, [vqvae] if vqvae else []),
        ("prior", PRIOR, [prior] if prior else []),
        ("tables", f"{_TABLE}, or others as {', '.join(SUMS)}", list(sums)),
    ):
        said = ", ".join(map(str, found)) if found else "missing"
        lines.append(f"  {what}: expected {expected}; {said}")
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    lines.append(f"The folder holds {', '.join(there[:_SHOWN]) or 'no files'}{more}.")
    lines.append(
        "Unpack the archive there (tar -xf lass-mnist-ckpts.tar), or name files of other names: "
        "--vqvae, --prior, --sums."
    )
    return "\n".join(lines)
