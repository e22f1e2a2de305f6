"""Counts on disk: safetensors, keys as differences, with a checksum of their own."""

from __future__ import annotations

import hashlib
import json
import os
from math import prod
from pathlib import Path

import numpy as np
import torch

from ..errors import TableError
from .counts import Counts


def save_counts(counts: Counts, path: str | Path) -> None:
    """Write counts to a safetensors file, atomically: differences of the sorted keys, and values,
    each in the narrowest of uint16, uint32 and uint64 that holds them."""
    from safetensors.numpy import save

    path = Path(path)
    shape = list(counts.shape)
    gaps = _narrow(np.diff(counts.keys.numpy(), prepend=0))
    values = _narrow(counts.values.numpy())
    facts = json.dumps({"shape": shape, "sha256": _checksum(shape, gaps, values)})
    temporary = path.with_suffix(".part")
    # one key: several would be written in an order that changes from run to run
    temporary.write_bytes(save({"gaps": gaps, "values": values}, metadata={"counts": facts}))
    os.replace(temporary, path)


def load_counts(path: str | Path) -> Counts:
    """Read counts from a safetensors file. Raises TableError, naming the file, when it is missing,
    truncated, altered or holds something else."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})["counts"])
            gaps, values = file.get_tensor("gaps"), file.get_tensor("values")
        sound = facts["sha256"] == _checksum(facts["shape"], gaps, values)
        shape = tuple(int(size) for size in facts["shape"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TableError(
            f"{path} is no readable count table ({type(error).__name__}: {error}). Restore it, or "
            "count it again."
        ) from error
    keys = np.cumsum(gaps.astype(np.int64))
    values = values.astype(np.int64)
    if not sound or not _fits(keys, values, shape):
        raise TableError(
            f"{path} is damaged: its entries do not fit its checksum or its shape {shape}. "
            "Restore it, or count it again."
        )
    return Counts(shape, torch.from_numpy(keys), torch.from_numpy(values))


def _narrow(array: np.ndarray) -> np.ndarray:
    for dtype in (np.uint16, np.uint32):
        if not array.size or array.max() <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array.astype(np.uint64)


def _checksum(shape: list[int], gaps: np.ndarray, values: np.ndarray) -> str:
    digest = hashlib.sha256(repr(shape).encode())
    for array in (gaps, values):
        digest.update(array.dtype.str.encode())
        digest.update(array.data)
    return digest.hexdigest()


def _fits(keys: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether keys are sorted, unique and inside the shape, and values positive."""
    return bool(
        len(shape) >= 2
        and keys.shape == values.shape
        and (values > 0).all()
        and (np.diff(keys) > 0).all()
        and (not keys.size or 0 <= keys[0] <= keys[-1] < prod(shape))
    )
