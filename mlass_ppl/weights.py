"""Weights of a module on disk: float16 safetensors, checked when they are read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from ._durable import write_durably
from .errors import BundleError

_STATISTICS = ("embed_avg", "cluster_size", "num_batches_tracked")
"""Buffers that only training needs."""

_TIED = "lm_head.weight"
"""Tied to the embedding, so it is stored once."""


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_weights(module: nn.Module, path: Path) -> str:
    """Write a module's weights as float16 safetensors, atomically; returns their fingerprint.

    Raises BundleError when a weight is not finite in float16 and when the disk is full; nothing is
    written then.
    """
    from safetensors.torch import save

    state = {}
    for key, value in module.state_dict().items():
        if key.endswith((*_STATISTICS, _TIED)):
            continue
        state[key] = value.half().contiguous() if value.is_floating_point() else value
        if not torch.isfinite(state[key]).all():
            raise BundleError(
                f"cannot save {path.name}: '{key}' holds values that are not finite in float16 "
                "(largest 65,504). Did the training diverge?"
            )
    data = save(state)
    write_durably(path, data)
    return hashlib.sha256(data).hexdigest()


def load_weights(module: nn.Module, path: Path) -> None:
    """Read float16 weights into a module as float32, freeze it and set it to evaluation.

    Raises BundleError, naming the file, when it is unreadable, does not fit the module or holds
    values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{path} is corrupt ({error}). Restore it, or train the bundle again."
        ) from error
    for key, value in state.items():
        if value.is_floating_point():
            if not torch.isfinite(value).all():
                raise BundleError(
                    f"{path} holds NaN or infinite weights in '{key}'. Restore it, or train the "
                    "bundle again."
                )
            state[key] = value.float()
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a weight of another shape
        reason = str(error).splitlines()[-1].strip()
        raise BundleError(
            f"{path} does not fit the sizes in its card ({reason}). Restore both from one source."
        ) from error
    missing = [key for key in missing if not key.endswith((*_STATISTICS, _TIED))]
    if missing or unexpected:
        raise BundleError(
            f"{path} does not fit the sizes in its card: missing {missing[:3]}, unexpected "
            f"{unexpected[:3]}. Restore both from one source."
        )
    module.eval().requires_grad_(False)
