"""Checks of what `separate` is given: options, graph and mixtures, each with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError, SignalError
from ..graph import MixingGraph
from .signals import alike

_TAKES = {
    "bundle": "a loaded bundle: load('mnist')",
    "infer": "an engine: BP(), Exact(), LoopyBP(), Auto() or Extractor()",
    "search": "a search: SMC(candidates=64)",
    "estimate": "an estimate: Mean() or Nearest()",
    "refine": "None or a refinement: Learned() or Refine(steps=500)",
}


def check_parts(**given: Any) -> None:
    """Raise OptionError for a name, a number or a class where an object is expected."""
    for name, value in given.items():
        if isinstance(value, (str, Path, int, float, type)):
            raise OptionError(f"{name} takes {_TAKES[name]}; got {value!r}.")


Read = Callable[[Any], tuple[Tensor, tuple[str, ...]]]
"""Signals [M, *signal] of whatever was given, with notices."""


def read_observed(
    mixture: Any, graph: MixingGraph, read: Read
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What is observed at each observed site, {site: float32 [M, *signal]}, with notices.

    mixture: one signal (or many) for a program whose observed sites all mix the sources alike; else
    a mapping with the signals of each observed site.
    """
    if not isinstance(mixture, Mapping):
        weights = {name: graph.leaf_weights(name) for name in graph.observed}
        if len(groups := alike(weights)) > 1:
            given = ", ".join(f"'{name}': ..." for name in graph.observed)
            raise SignalError(
                f"'{graph.name}' observes {' and '.join(map(_listed, groups))}, which mix their "
                f"sources differently, but one signal was given. Give one for each: {{{given}}}."
            )
        signals, notices = read(mixture)
        return dict.fromkeys(graph.observed, signals), notices
    check_sites(graph, list(mixture))
    observed: dict[str, Tensor] = {}
    said: list[str] = []
    for name in graph.observed:
        try:
            observed[name], notices = read(mixture[name])
        except SignalError as error:
            raise SignalError(f"observed site '{name}': {error}") from error
        said += notices
    numbers = {name: len(signals) for name, signals in observed.items()}
    if len(set(numbers.values())) > 1:
        listed = ", ".join(f"'{name}': {number}" for name, number in numbers.items())
        raise SignalError(
            f"expected as many mixtures at every observed site, in the same order; got {listed}."
        )
    lengths = {name: list(signals.shape[1:]) for name, signals in observed.items()}
    if len({tuple(length) for length in lengths.values()}) > 1:
        listed = ", ".join(f"'{name}': {length}" for name, length in lengths.items())
        raise SignalError(f"expected signals of one shape at every observed site; got {listed}.")
    return observed, tuple(dict.fromkeys(said))


def check_sites(graph: MixingGraph, given: Sequence[Any]) -> None:
    """Raise SignalError unless the sites that signals are given for are the observed ones."""
    listed = ", ".join(map(repr, given)) or "none"
    for name in given:
        if name not in graph.observed:
            raise SignalError(
                f"'{graph.name}' does not observe {name!r}; expected a signal for each of "
                f"{_listed(graph.observed)}, got {listed}."
            )
    if missing := [name for name in graph.observed if name not in given]:
        raise SignalError(
            f"no signal for {_listed(missing)}: '{graph.name}' observes "
            f"{_listed(graph.observed)}, given {'is' if len(given) == 1 else 'are'} {listed}."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def paths_in(mixture: Any) -> Sequence[Any] | None:
    """What is to be read from files: a path, or a list that holds one; None where nothing is."""
    if isinstance(mixture, (str, Path)):
        return [mixture]
    if isinstance(mixture, (list, tuple)) and any(isinstance(x, (str, Path)) for x in mixture):
        return mixture
    return None


def as_tensor(mixture: Any, what: str) -> Tensor:
    """A tensor of numbers that were given in memory. Raises SignalError on anything else than
    `what`."""
    try:
        # a copy: arrays may be read-only or run backwards, which tensors cannot
        numbers = np.array(mixture) if isinstance(mixture, np.ndarray) else mixture
        return torch.as_tensor(numbers).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SignalError(
            f"expected {what} tensor, an array or a path, got {type(mixture).__name__} ({error})."
        ) from error


def read_images(mixture: Any, shape: tuple[int, ...]) -> tuple[Tensor, tuple[str, ...]]:
    """Mixtures float32 [M, *shape] in [0, 1], from whatever was given, with notices."""
    if (paths := paths_in(mixture)) is not None:
        return _read_files(paths, shape)
    signals = as_tensor(mixture, "an image")
    given = list(signals.shape)
    if signals.is_complex() or signals.dtype == torch.bool:
        raise SignalError(f"expected real pixel values in [0, 1], got {signals.dtype}.")
    signals = signals / 255 if signals.dtype == torch.uint8 else signals.float()
    while signals.ndim <= len(shape):
        signals = signals[None]
    if tuple(signals.shape[1:]) != shape or not len(signals):
        full = ", ".join(map(str, shape))
        raise SignalError(
            f"expected images [{', '.join(map(str, shape[1:]))}], [{full}] or [M, {full}] with M "
            f"at least 1, got {given}. Image files of any size can be given as paths; they are "
            "resized."
        )
    if not torch.isfinite(signals).all():
        raise SignalError("the mixture holds NaN or infinite pixels; expected values in [0, 1].")
    if signals.min() < -1e-6 or signals.max() > 1 + 1e-6:
        raise SignalError(
            f"pixels must lie in [0, 1], got [{float(signals.min()):.3g}, "
            f"{float(signals.max()):.3g}]. Divide 8-bit images by 255."
        )
    return signals, ()


def _read_files(paths: Any, shape: tuple[int, ...]) -> tuple[Tensor, tuple[str, ...]]:
    from ..data.images import read_image

    if len(shape) != 3 or shape[0] != 1:
        raise SignalError(f"files are read as grey images; this codec takes signals {list(shape)}.")
    images, notices = [], []
    for path in paths:
        if not isinstance(path, (str, Path)):
            raise SignalError(
                f"expected paths only, or tensors only, got a path and a {type(path).__name__}."
            )
        image, said = read_image(path, (shape[1], shape[2]))
        images.append(image)
        notices += [f"{Path(path).name}: {notice}" for notice in said]
    return torch.stack(images), tuple(notices)
