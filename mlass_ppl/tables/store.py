"""Counts and moments on disk: safetensors, keys as differences, with a checksum of their own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import TableError
from .cells import CellMoments
from .counts import Counts
from .moments import Moments

_UNSIGNED = (np.uint16, np.uint32, np.uint64)
_SIGNED = (np.int16, np.int32, np.int64)
_NAMES = {"moments": "moments", "cells": "moments of cells"}
_SUMS = ("gaps", "number", "total", "square")
_CELLS = ("number", "total", "cross")


def save_counts(counts: Counts, path: str | Path) -> None:
    """Write counts to a safetensors file, atomically: differences of the sorted keys, and values,
    each in the narrowest of uint16, uint32 and uint64 that holds them."""
    arrays = {"gaps": _gaps(counts.keys), "values": _narrow(counts.values.numpy())}
    _write(Path(path), "counts", {"shape": list(counts.shape)}, arrays)


def load_counts(path: str | Path) -> Counts:
    """Read counts from a safetensors file. Raises TableError, naming the file, when it is missing,
    truncated, altered or holds something else."""
    path = Path(path)
    shape, (gaps, values), sound = _read(path, "counts", ("gaps", "values"))
    keys, values = np.cumsum(gaps.astype(np.int64)), values.astype(np.int64)
    if not sound or len(shape) < 2 or not _fits(keys, values, shape):
        raise _damaged(path, shape)
    return Counts(shape, torch.from_numpy(keys), torch.from_numpy(values))


def save_moments(moments: Moments, path: str | Path) -> None:
    """Write moments to a safetensors file, atomically: differences of the sorted keys, numbers,
    sums and sums of squares, each in the narrowest integers that hold them."""
    arrays = {
        "gaps": _gaps(moments.keys),
        "number": _narrow(moments.number.numpy()),
        "total": _narrow(moments.total.numpy(), _SIGNED),
        "square": _narrow(moments.square.numpy()),
    }
    _write(Path(path), "moments", {"shape": list(moments.shape)}, arrays)


def load_moments(path: str | Path) -> Moments:
    """Read moments from a safetensors file. Raises TableError, naming the file, when it is missing,
    truncated, altered or holds something else."""
    path = Path(path)
    shape, (gaps, *arrays), sound = _read(path, "moments", _SUMS)
    keys = np.cumsum(gaps.astype(np.int64))
    number, total, square = (array.astype(np.int64) for array in arrays)
    wide = total.ndim == 2 and total.shape == square.shape == (len(keys), total.shape[1])
    if not sound or not wide or not total.shape[1] or not _fits(keys, number, shape):
        raise _damaged(path, shape)
    sums = (torch.from_numpy(array) for array in (keys, number, total, square))
    return Moments(shape, total.shape[1], *sums)


def save_cells(cells: CellMoments, path: str | Path) -> None:
    """Write moments of cells to a safetensors file, atomically: numbers, sums and sums of products
    of every token, each in the narrowest integers that hold them."""
    arrays = {
        "number": _narrow(cells.number.numpy()),
        "total": _narrow(cells.total.numpy(), _SIGNED),
        "cross": _narrow(cells.cross.numpy(), _SIGNED),
    }
    _write(Path(path), "cells", {"shape": list(cells.shape)}, arrays)


def load_cells(path: str | Path) -> CellMoments:
    """Read moments of cells from a safetensors file. Raises TableError, naming the file, when it is
    missing, truncated, altered or holds something else."""
    path = Path(path)
    shape, arrays, sound = _read(path, "cells", _CELLS)
    number, total, cross = (array.astype(np.int64) for array in arrays)
    width = total.shape[1] if total.ndim == 2 else 0
    fits = number.shape == shape == total.shape[:1] and len(shape) == 1 and number.size > 0
    fits &= width > 0 and cross.shape == (len(number), width * (width + 1) // 2)
    if not (sound and fits) or (number < 0).any() or total[number == 0].any():
        raise _damaged(path, shape)
    return CellMoments(*(torch.from_numpy(array) for array in (number, total, cross)))


def _write(path: Path, kind: str, facts: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    facts["sha256"] = _checksum(facts["shape"], *arrays.values())
    temporary = path.with_suffix(".part")
    # one key: several would be written in an order that changes from run to run
    temporary.write_bytes(save(dict(arrays), metadata={kind: json.dumps(facts)}))
    os.replace(temporary, path)


def _read(
    path: Path, kind: str, names: Sequence[str]
) -> tuple[tuple[int, ...], list[np.ndarray], bool]:
    """Shape, arrays, and whether they fit their checksum."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})[kind])
            arrays = [file.get_tensor(name) for name in names]
        sound = facts["sha256"] == _checksum(facts["shape"], *arrays)
        return tuple(int(size) for size in facts["shape"]), arrays, sound
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        what = "count table" if kind == "counts" else f"table of {_NAMES[kind]}"
        raise TableError(
            f"{path} is no readable {what} ({type(error).__name__}: {error}). Restore it, or "
            "count it again."
        ) from error


def _damaged(path: Path, shape: tuple[int, ...]) -> TableError:
    return TableError(
        f"{path} is damaged: its entries do not fit its checksum or its shape {shape}. "
        "Restore it, or count it again."
    )


def _gaps(keys: torch.Tensor) -> np.ndarray:
    return _narrow(np.diff(keys.numpy(), prepend=0))


def _narrow(array: np.ndarray, dtypes: Sequence[type[np.integer[Any]]] = _UNSIGNED) -> np.ndarray:
    for dtype in dtypes[:-1]:
        info = np.iinfo(dtype)
        if not array.size or (info.min <= array.min() and array.max() <= info.max):
            return array.astype(dtype)
    return array.astype(dtypes[-1])


def _checksum(shape: list[int], *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(repr(shape).encode())
    for array in arrays:
        digest.update(array.dtype.str.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _fits(keys: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether keys are sorted, unique and inside the shape, and values positive."""
    return bool(
        shape
        and min(shape) > 0
        and keys.shape == values.shape
        and (values > 0).all()
        and (np.diff(keys) > 0).all()
        and (not keys.size or 0 <= keys[0] <= keys[-1] < prod(shape))
    )
