"""Whole numbers in few bytes: byte planes, deflated."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import prod

import numpy as np

_FREE = 1 << 24
"""Numbers that any few bytes may stand for: 128 MiB as int64."""

_RATIO = 16
"""Numbers that each stored byte may stand for beyond those."""


def pack(numbers: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Deflated byte planes of whole numbers, uint8 [B], and the shape of the planes, [W, ...].

    numbers: int64 [...]. Plane w holds byte w, the lowest first, of the numbers in the fewest bytes
    W (two's complement) that hold them all: the higher bytes are nearly all alike and cost next to
    nothing. Runs are all that is looked for (`Z_RLE`): for count tables that is smaller than with a
    search for repeats, and five times as fast. Releases of zlib may write other bytes for the same
    numbers.
    """
    flat = np.ascontiguousarray(numbers, "<i8").reshape(-1)
    widest = max(int(flat.max()), ~int(flat.min())) if flat.size else 0
    width = (widest.bit_length() + 8) // 8  # a bit for the sign
    planes = np.ascontiguousarray(flat.view(np.uint8).reshape(-1, 8)[:, :width].T)
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    packed = deflate.compress(planes.data) + deflate.flush()
    if flat.size > _most(len(packed)):  # so that whatever is written can be read
        packed = zlib.compress(planes.data, 0)
    return np.frombuffer(packed, np.uint8), [width, *numbers.shape]


def unpack(packed: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The numbers, int64 [...], of deflated byte planes, uint8 [B], of the given shape [W, ...].

    Raises ValueError when the shape is none of planes or too large for so few bytes, and when the
    planes do not inflate to exactly that: no more than the shape says is ever inflated.
    """
    most = _most(packed.size)
    if (
        packed.dtype != np.uint8
        or not all(type(size) is int and 0 <= size <= most for size in shape)
        or not shape
        or not 1 <= shape[0] <= 8
        or prod(shape[1:]) > most
    ):
        raise ValueError(
            f"{packed.size:,} bytes cannot hold byte planes of shape {list(shape)}: expected 1 to "
            f"8 planes of at most {most:,} numbers"
        )
    width, size = shape[0], prod(shape[1:])
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(np.ascontiguousarray(packed).data, width * size + 1)
    except zlib.error as error:
        raise ValueError(f"byte planes cannot be inflated: {error}") from error
    if len(raw) != width * size or not inflate.eof or inflate.unused_data:
        raise ValueError(f"byte planes do not inflate to shape {list(shape)}")
    out = np.zeros(size, "<i8")
    # into the highest bytes: the shift brings them down and extends the sign
    out.view(np.uint8).reshape(-1, 8)[:, 8 - width :] = (
        np.frombuffer(raw, np.uint8).reshape(width, size).T
    )
    out >>= 8 * (8 - width)
    return out.astype(np.int64, copy=False).reshape(shape[1:])


def _most(stored: int) -> int:
    return max(_FREE, _RATIO * stored)
