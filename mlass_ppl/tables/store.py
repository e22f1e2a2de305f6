"""Counts and moments on disk: safetensors of packed numbers, with a checksum of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._durable import write_durably
from ..errors import TableError
from .cells import CellMoments
from .counts import Counts
from .moments import Moments
from .packing import pack, unpack

_NAMES = {
    "counts": "count table",
    "moments": "table of moments",
    "cells": "table of moments of cells",
}
_SUMS = ("gaps", "number", "total", "square")
_CELLS = ("number", "total", "cross")


def save_counts(counts: Counts, path: str | Path) -> None:
    """Write counts to a safetensors file, atomically: differences of the sorted keys, and values,
    as deflated byte planes."""
    arrays = {"gaps": _gaps(counts.keys), "values": counts.values.numpy()}
    _write(Path(path), "counts", counts.shape, arrays)


def load_counts(path: str | Path) -> Counts:
    """Read counts from a safetensors file. Raises TableError, naming the file, when it is missing,
    truncated, altered, inflates to something else than it declares or holds something else."""
    path = Path(path)
    shape, (gaps, values) = _read(path, "counts", ("gaps", "values"))
    keys = np.cumsum(gaps)
    if len(shape) < 2 or not _fits(keys, values, shape):
        raise _damaged(path, shape)
    return Counts(shape, torch.from_numpy(keys), torch.from_numpy(values))


def save_moments(moments: Moments, path: str | Path) -> None:
    """Write moments to a safetensors file, atomically: differences of the sorted keys, numbers,
    sums and sums of squares, as deflated byte planes."""
    arrays = {
        "gaps": _gaps(moments.keys),
        "number": moments.number.numpy(),
        "total": moments.total.numpy(),
        "square": moments.square.numpy(),
    }
    _write(Path(path), "moments", moments.shape, arrays)


def load_moments(path: str | Path) -> Moments:
    """Read moments from a safetensors file. Raises TableError, naming the file, when it is missing,
    truncated, altered, inflates to something else than it declares or holds something else."""
    path = Path(path)
    shape, (gaps, number, total, square) = _read(path, "moments", _SUMS)
    keys = np.cumsum(gaps)
    wide = total.ndim == 2 and total.shape == square.shape == (len(keys), total.shape[1])
    if not wide or not total.shape[1] or not _fits(keys, number, shape):
        raise _damaged(path, shape)
    sums = (torch.from_numpy(array) for array in (keys, number, total, square))
    return Moments(shape, total.shape[1], *sums)


def save_cells(cells: CellMoments, path: str | Path) -> None:
    """Write moments of cells to a safetensors file, atomically: numbers, sums and sums of products
    of every token, as deflated byte planes."""
    arrays = {
        "number": cells.number.numpy(),
        "total": cells.total.numpy(),
        "cross": cells.cross.numpy(),
    }
    _write(Path(path), "cells", cells.shape, arrays)


def load_cells(path: str | Path) -> CellMoments:
    """Read moments of cells from a safetensors file. Raises TableError, naming the file, when it is
    missing, truncated, altered, inflates to something else than it declares or holds something
    else."""
    path = Path(path)
    shape, (number, total, cross) = _read(path, "cells", _CELLS)
    width = total.shape[1] if total.ndim == 2 else 0
    fits = number.shape == shape == total.shape[:1] and len(shape) == 1 and number.size > 0
    fits &= width > 0 and cross.shape == (len(number), width * (width + 1) // 2)
    if not fits or (number < 0).any() or total[number == 0].any():
        raise _damaged(path, shape)
    return CellMoments(*(torch.from_numpy(array) for array in (number, total, cross)))


def _write(path: Path, kind: str, shape: Sequence[int], arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    packed, planes = {}, {}
    for name, array in arrays.items():
        packed[name], planes[name] = pack(array)
    facts: dict[str, Any] = {"shape": list(shape), "planes": planes}
    facts["sha256"] = _checksum([facts["shape"], planes], *packed.values())
    # one key: several would be written in an order that changes from run to run
    write_durably(path, save(packed, metadata={kind: json.dumps(facts)}))


def _read(path: Path, kind: str, names: Sequence[str]) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """Shape, and int64 arrays, whose bytes on disk fit their checksum."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})[kind])
            arrays = [file.get_tensor(name) for name in names]
        shape, planes = tuple(int(size) for size in facts["shape"]), facts.get("planes")
        # what has no planes was written before numbers were packed: narrow integers as they are
        checked = facts["shape"] if planes is None else [facts["shape"], planes]
        if facts["sha256"] != _checksum(checked, *arrays):
            raise _damaged(path, shape)
        if planes is None:
            return shape, [array.astype(np.int64) for array in arrays]
        sizes = [planes[name] for name in names]
        return shape, [unpack(*each) for each in zip(arrays, sizes, strict=True)]
    except (SafetensorError, OSError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise TableError(
            f"{path} is no readable {_NAMES[kind]} ({type(error).__name__}: {error}). Restore it, "
            "or count it again."
        ) from error


def _damaged(path: Path, shape: tuple[int, ...]) -> TableError:
    return TableError(
        f"{path} is damaged: its entries do not fit its checksum or its shape {shape}. "
        "Restore it, or count it again."
    )


def _gaps(keys: torch.Tensor) -> np.ndarray:
    return np.diff(keys.numpy(), prepend=0)


def _checksum(facts: list[Any], *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(repr(facts).encode())
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
        and (keys[1:] > keys[:-1]).all()
        and (not keys.size or 0 <= keys[0] <= keys[-1] < prod(shape))
    )
