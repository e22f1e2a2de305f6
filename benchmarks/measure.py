"""Time and memory of calls that are made in turn."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Plan:
    """seconds: after which a contender drops out of further rounds, once it has `least` times.
    most: rounds."""

    seconds: float = 2.0
    least: int = 5
    most: int = 50


def times(calls: Mapping[str, Callable[[], Any]], plan: Plan) -> dict[str, list[float]]:
    """Seconds of each call. The calls are made in turn, round by round, so that whatever else the
    machine does meets all of them; each is called once before, unmeasured."""
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(plan.most):
        for name, call in calls.items():
            if len(found[name]) >= plan.least and sum(found[name]) > plan.seconds:
                continue
            began = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - began)
    return found


def median_ms(seconds: list[float]) -> float:
    return 1e3 * median(seconds)


def extra_mb(call: Callable[[], Any]) -> float | None:
    """Resident memory at the peak of a call above that before it, in megabytes (10^6 bytes); None
    where the system does not tell (it is Linux that does)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back what is free, or it hides the next use
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    call()
    return max(0.0, (_status("VmHWM") - before) / 1e6)


def _status(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return float("nan") if found is None else 1024.0 * int(found[1])
