"""The folders that `mlass separate` writes: one for each mixture, kept unless told otherwise."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..errors import OptionError

if TYPE_CHECKING:
    from ..separation import Separation

FACTS, GRID, MIXTURE = "facts.json", "grid.png", "mixture.png"


@dataclass(frozen=True)
class Track:
    """One mixture to separate: the file it comes from and the folder its sources go to."""

    file: Path
    folder: Path

    @property
    def done(self) -> bool:
        """Whether an earlier run finished it: the facts are written last."""
        return (self.folder / FACTS).is_file()


def tracks_for(files: Sequence[Path], out: Path) -> list[Track]:
    """A folder below `out` for each file, called after it.

    Files of one stem are told apart by their endings, then by the folders they lie in, then by a
    number; so a file's folder depends on what else is separated only where names collide.
    """
    names = [file.stem for file in files]
    endings = [f"{file.stem}_{file.suffix[1:]}" for file in files]
    parents = [
        f"{file.resolve().parent.name}_{ending}"
        for file, ending in zip(files, endings, strict=True)
    ]
    for others in (endings, parents):
        often = Counter(names)
        names = [
            other if often[name] > 1 else name for name, other in zip(names, others, strict=True)
        ]
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 1
        while names[place] in taken:
            number += 1
            names[place] = f"{name}_{number}"
        taken.add(names[place])
    return [Track(file, out / name) for file, name in zip(files, names, strict=True)]


def check_names(sources: Sequence[str]) -> None:
    """Raise OptionError when a source's name cannot be the name of its file."""
    for name in sources:
        if (
            f"{name}.png" in (GRID, MIXTURE)
            or name in ("", ".", "..")
            or set(name) & set('/\\:*?"')
        ):
            raise OptionError(
                f"source '{name}' cannot be written to '{name}.png': that name is taken or holds "
                "signs that file names cannot have. Rename it in the program."
            )


def write_track(
    track: Track, separation: Separation, row: int, facts: dict[str, Any], *, notices: Sequence[str]
) -> dict[str, Any]:
    """Write one row of a separation: {source}.png, mixture.png, grid.png and last facts.json.

    Files of an earlier run that its facts.json names are removed first. Returns the facts.
    """
    from ..draw import draw_separation

    folder = track.folder
    if folder.exists() and not folder.is_dir():
        raise OptionError(
            f"'{folder}' is a file; expected a folder to write to. Give another --out."
        )
    _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"{name}.png" for name in separation.signals]
    for name, file in zip(separation.signals, files, strict=True):
        save_png(separation[name][row], folder / file)
    save_png(separation.mixtures[row], folder / MIXTURE)
    one = select(separation, row)
    draw_separation(one, folder / GRID, labels=[track.folder.name[:24]])
    facts = {
        "file": str(track.file),
        "notices": list(notices),
        **facts,
        "mixture_error": one.reconstruction_error().item(),
        "files": [*files, MIXTURE, GRID],
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (folder / FACTS).write_text(text, encoding="utf-8")
    return facts


def _clear(folder: Path) -> None:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        files = [str(name) for name in facts["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    (folder / FACTS).unlink(missing_ok=True)
    for name in files:
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)


def select(separation: Separation, row: int) -> Separation:
    """The separation of one mixture out of a batch."""
    from dataclasses import replace

    def cut(signals: Any) -> Any:
        return None if signals is None else {k: v[row : row + 1] for k, v in signals.items()}

    return replace(
        separation,
        mixtures=separation.mixtures[row : row + 1],
        signals=cut(separation.signals),
        refined=cut(separation.refined),
        tokens=cut(separation.tokens),
        evidence=separation.evidence[row : row + 1],
        errors=separation.errors[row : row + 1],
        chosen=separation.chosen[row : row + 1],
        candidates=cut(separation.candidates),
        candidate_tokens=cut(separation.candidate_tokens),
    )


def save_png(signal: Tensor, path: Path) -> None:
    """Write a signal [1, H, W] in [0, 1] as an 8-bit grey PNG."""
    from PIL import Image

    pixels = signal.detach().cpu().numpy()[0].clip(0, 1)
    Image.fromarray((pixels * 255).round().astype(np.uint8), mode="L").save(path)
