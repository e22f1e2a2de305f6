"""A separation as others take it: files of its signals and tokens, and sounds to hear and see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import OptionError, SignalError

if TYPE_CHECKING:
    from ..separation import Separation

_SHOWN = 4
"""Mixtures of sound that are drawn and played: a notebook keeps every one of them in its file."""


def image_files(found: Separation) -> dict[str, Tensor]:
    """As `Separation.images`."""
    if found.sample_rate is not None:
        raise SignalError("these are sounds, not images: save(directory) writes them as WAV.")
    several = len(found.importance) > 1
    given = {site if several else "mixture": found.observed[site] for site in found.importance}
    return _files({name: found[name] for name in found.signals}, given, ".png")


def stems(found: Separation) -> tuple[dict[str, Tensor], Tensor]:
    """Each source as it is in what was observed, {source: [M, channels, S]}, and that itself,
    [M, channels, S]: a channel for each observed signal. The stems add up to it, as far as the
    separation goes."""
    sites = list(found.importance)
    weights = [found.graph.leaf_weights(site) for site in sites]
    parts = {
        name: torch.cat([own.get(name, 0.0) * found[name] for own in weights], 1)
        for name in found.signals
    }
    return parts, torch.cat([found.observed[site] for site in sites], 1)


def shown(found: Separation) -> dict[str, Tensor]:
    """The first mixtures of sound and their stems by what they are to be called, {name: [channels,
    S]}."""
    parts, given = stems(found)
    rows = range(min(len(found), _SHOWN))
    return {
        name if len(found) == 1 else f"{name} {row}": signals[row].cpu()
        for row in rows
        for name, signals in {"mixture": given, **parts}.items()
    }


def save(found: Separation, directory: str | Path, force: bool) -> list[Path]:
    """As `Separation.save`."""
    from safetensors.torch import save_file

    directory, one = Path(directory), len(found) == 1
    rate = found.sample_rate
    if rate is None and (found.mixtures.ndim != 4 or found.mixtures.shape[1] != 1):
        raise SignalError(f"only grey images are saved, got {list(found.mixtures.shape)}.")
    if rate is None:
        files = image_files(found)
    else:
        parts, given = stems(found)
        files = _files(parts, {"mixture": given}, ".wav")
    plan = {
        directory / ("" if one else f"{row:04d}") / file: signals[row].detach().cpu()
        for row in range(len(found))
        for file, signals in files.items()
    }
    tokens = directory / "tokens.safetensors"
    taken = [path for path in (*plan, tokens) if path.exists()]
    if taken and not force:
        raise OptionError(
            f"{taken[0]} exists ({len(taken)} files in all); pass force=True to overwrite."
        )
    for path, signal in plan.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, signal, rate)
    save_file({name: own.contiguous() for name, own in found.tokens.items()}, tokens)
    return [*plan, tokens]


def _files(
    sources: Mapping[str, Tensor], given: Mapping[str, Tensor], suffix: str
) -> dict[str, Tensor]:
    """Signals by file name. Raises OptionError where a name cannot be a file's, or two are one."""
    if both := [name for name in given if name in sources]:
        raise OptionError(
            f"source '{both[0]}' and the mixture would both be written to '{both[0]}{suffix}'. "
            "Rename the source in the program."
        )
    for name in (*sources, *given):
        if set(name) & set('/\\:*?"'):
            raise OptionError(
                f"site '{name}' cannot be written to '{name}{suffix}': file names cannot hold "
                "such signs. Rename it in the program."
            )
    return {f"{name}{suffix}": signals for name, signals in {**sources, **given}.items()}


def _write(path: Path, signal: Tensor, rate: int | None) -> None:
    if rate is not None:
        from ..audio import write_audio

        write_audio(path, signal, rate, force=True)
        return
    from PIL import Image

    pixels = (signal[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(path)
