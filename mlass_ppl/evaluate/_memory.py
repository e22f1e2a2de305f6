"""Peak memory of the process, per stretch of work where the system can start it afresh."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def reset_peak() -> None:
    """Start the peak afresh. Linux can; elsewhere the peak stays that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float | None:
    """Highest resident memory since `reset_peak`, in megabytes (10^6 bytes); None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
