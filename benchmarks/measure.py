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

import torch

Call = Callable[[], Any]


@dataclass(frozen=True)
class Plan:
    """seconds: after which a contender drops out of further rounds, once it has `least` times.
    most: rounds. slow: a first call of so many seconds is taken for a time itself."""

    seconds: float = 2.0
    least: int = 5
    most: int = 50
    slow: float = 2.0


def seconds_of(call: Call, device: torch.device) -> float:
    """Of one call; on a GPU between two events of its stream."""
    if device.type != "cuda":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    torch.cuda.synchronize(device)
    events[0].record()
    call()
    events[1].record()
    torch.cuda.synchronize(device)
    return float(events[0].elapsed_time(events[1])) / 1e3


def times(
    calls: Mapping[str, Call], plan: Plan, device: torch.device | None = None
) -> dict[str, list[float]]:
    """Seconds of each call. The calls are made in turn, round by round, so that whatever else the
    machine does meets all of them. The first call of each warms up and is not counted, unless it is
    slow: then it is, and there are no others but what `seconds` leave room for."""
    device = device or torch.device("cpu")
    found: dict[str, list[float]] = {name: [] for name in calls}
    slow = set()
    for name, call in calls.items():
        took = seconds_of(call, device)
        if took > plan.slow:
            slow.add(name)
            found[name].append(took)
    for _ in range(plan.most):
        for name, call in calls.items():
            least = 1 if name in slow else plan.least
            if len(found[name]) >= least and sum(found[name]) > plan.seconds:
                continue
            found[name].append(seconds_of(call, device))
    return found


def median_ms(seconds: list[float]) -> float:
    return 1e3 * median(seconds)


def extra_mb(call: Call, device: torch.device | None = None) -> float | None:
    """Memory at the peak of a call above that before it, in megabytes (10^6 bytes): resident, or of
    tensors on a GPU. None where the system does not tell (it is Linux that does)."""
    gc.collect()
    if device is not None and device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back what is free, or it hides the next use
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    call()
    return max(0.0, (_status("VmHWM") - before) / 1e6)


def process_peak_mb() -> float | None:
    """Highest resident memory of this program so far, MB; None where the system does not tell. What
    getrusage tells of a child process begins with the memory of its parent."""
    try:
        return _status("VmHWM") / 1e6
    except OSError:
        return None


def _status(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return float("nan") if found is None else 1024.0 * int(found[1])
