"""Sparse arrays as the package `sparse` saves them, in which the references keep large counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import BundleError


def read_npz(path: Path) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Coordinates int64 [D, E], values [E] and shape of a sparse COO array.

    Raises BundleError, naming the file, when it is missing, damaged or holds something else.
    Nothing in it is run: arrays of Python objects are refused.
    """
    try:
        with np.load(path) as file:  # by default numpy refuses arrays of objects
            where, values, shape, rest = (
                file[name] for name in ("coords", "data", "shape", "fill_value")
            )
        sizes = tuple(int(size) for size in shape)
        if rest.item() != 0 or min(sizes) < 0:
            raise ValueError(f"fill value {rest.item()}, shape {sizes}")
        return torch.from_numpy(where.astype(np.int64)), torch.from_numpy(values), sizes
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}. Is it whole?") from error
    except Exception as error:  # a damaged archive may fail in any way
        raise BundleError(
            f"{path} is no sparse array with zeros elsewhere ({type(error).__name__}: {error}). "
            "Expected coords, data, shape and fill_value, as sparse.save_npz writes them of a COO "
            "array. Was the download cut short?"
        ) from error
