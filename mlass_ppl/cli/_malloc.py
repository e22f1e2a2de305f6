"""Keep freed memory in the process, for loops that ask for the same large blocks again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from the heap and not to give it back; whether it did.

    By default each large tensor is mapped afresh and its pages are zeroed by the kernel at first
    touch: growing key-value caches spend more time there than in arithmetic.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
