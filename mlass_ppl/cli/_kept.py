"""Pictures of a mixture's folder: those of several candidates in folders of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from ..separation import Separation


def write_kept(one: Separation, folder: Path, keep: int) -> list[dict[str, Any]]:
    """Write the `keep` best distinct candidates of a separation of one mixture, or as many as there
    are, as {number}/{source}.png below a folder, from 1 on. Returns what is known of each."""
    assert one.candidates is not None  # `--keep` asks for them
    out = []
    for number, candidate in enumerate(one.ranking(keep)[0].tolist(), 1):
        if candidate < 0:
            break
        (folder / str(number)).mkdir(exist_ok=True)
        files = {f"{number}/{name}.png": kept for name, kept in one.candidates.items()}
        for file, kept in files.items():
            save_png(kept[0, candidate], folder / file)
        weight = float(one.log_weights[0, candidate])
        out.append(
            {
                "files": list(files),
                "mixture_error": float(one.errors[0, candidate]),
                "log_prior": float(one.log_prior[0, candidate]),
                "log_weight": weight if isfinite(weight) else None,
            }
        )
    return out


def clear(folder: Path, files: Sequence[str]) -> None:
    """Remove files of an earlier run, and the numbered folders that they leave empty. What does not
    lie in the folder, or in a numbered one below it, is left alone."""
    for name in files:
        parts = Path(name).parts
        numbered = len(parts) == 2 and parts[0].isdigit()
        if numbered or parts == (name,):
            (folder / name).unlink(missing_ok=True)
        if numbered and (below := folder / parts[0]).is_dir() and not any(below.iterdir()):
            below.rmdir()


def save_png(signal: Tensor, path: Path) -> None:
    """Write a signal [1, H, W] in [0, 1] as an 8-bit grey PNG."""
    from PIL import Image

    pixels = signal.detach().cpu().numpy()[0].clip(0, 1)
    Image.fromarray((pixels * 255).round().astype(np.uint8), mode="L").save(path)
