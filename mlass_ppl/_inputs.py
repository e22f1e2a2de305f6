"""Checks of what `separate` is given: options, graph and mixtures, each with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import OptionError, SignalError
from .graph import MixingGraph

_TAKES = {
    "bundle": "a loaded bundle: load('mnist')",
    "infer": "an engine: BP(), Exact() or Extractor()",
    "search": "a search: Sample(candidates=64)",
    "refine": "None or a refinement: Refine(steps=500)",
}


def check_parts(**given: Any) -> None:
    """Raise OptionError for a name, a number or a class where an object is expected."""
    for name, value in given.items():
        if isinstance(value, (str, Path, int, float, type)):
            raise OptionError(f"{name} takes {_TAKES[name]}; got {value!r}.")


def one_signal(graph: MixingGraph) -> dict[str, float]:
    """Weights of the sources in the observed signal; all observed sites must mix them alike."""
    first = graph.leaf_weights(graph.observed[0])
    for name in graph.observed[1:]:
        other = graph.leaf_weights(name)
        if any(abs(first.get(key, 0) - other.get(key, 0)) > 1e-6 for key in {*first, *other}):
            raise SignalError(
                f"'{graph.name}' observes '{graph.observed[0]}' and '{name}', which mix their "
                "sources differently, but one signal was given. Return one mixture, or give both "
                "the same weights."
            )
    return first


def read_signals(mixture: Any, shape: tuple[int, ...]) -> tuple[Tensor, tuple[str, ...]]:
    """Mixtures float32 [M, *shape] in [0, 1], from whatever was given, with notices."""
    if isinstance(mixture, (str, Path)):
        return _read_files([mixture], shape)
    if isinstance(mixture, (list, tuple)) and any(isinstance(x, (str, Path)) for x in mixture):
        return _read_files(mixture, shape)
    try:
        # a copy: arrays may be read-only or run backwards, which tensors cannot
        signals = torch.as_tensor(
            np.array(mixture) if isinstance(mixture, np.ndarray) else mixture
        ).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SignalError(
            f"expected an image tensor, an array or a path, got {type(mixture).__name__} ({error})."
        ) from error
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
    from .data.images import read_image

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
