"""What made a table: commit, versions, machine, weights."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from .._version import __version__


def provenance(device: torch.device) -> dict[str, Any]:
    """Facts about this process: `version`, `commit` (None outside the project's own checkout; with
    `+changes` where tracked files differ from it), `torch`, `python`, `device`, `threads`."""
    return {
        "version": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
    }


def bundle_hash(bundle: Any) -> str:
    """SHA-256 over a bundle's files, how its tables are smoothed and the refiner's weights, where
    there is one; over its card if it has no files."""
    made = (getattr(bundle, "smoothing", None), getattr(bundle, "shrink", None))
    digest = hashlib.sha256(repr(made).encode())
    if (refiner := getattr(bundle, "refiner", None)) is not None:
        for (
            name,
            weights,
        ) in refiner.state_dict().items():  # it may be of another folder, or of none
            digest.update(f"{name} ".encode() + weights.cpu().numpy().tobytes())
    if bundle.path is None:
        digest.update(repr(sorted(bundle.card.items())).encode())
    else:
        for file in sorted(Path(bundle.path).iterdir()):
            if file.suffix in (".json", ".safetensors"):
                digest.update(f"{file.name} {file.stat().st_size} ".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def codec_device(codec: Any) -> torch.device:
    """Device of a codec's weights; the CPU where it has none."""
    first = next(iter(codec.parameters()), None) if hasattr(codec, "parameters") else None
    return torch.device("cpu") if first is None else first.device


def _commit() -> str | None:
    package = Path(__file__).parents[1]
    # a package installed into somebody else's checkout is no file of that checkout
    if _git(package, "ls-files", "--error-unmatch", "_version.py") is None:
        return None
    head = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{head}+changes" if head and changes else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({_processor()}, {os.cpu_count()} cores)"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
