"""Results as ZIP files: pictures or sounds, and a JSON file that says how they came about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from torch import Tensor

from .._version import __version__
from ..audio import write_audio
from ..draw import draw_evidence, draw_graph, draw_tree
from ..separation import Separation
from ..songs import Song
from .html import pixels


def zip_digits(found: Separation, truths: Tensor | None, folder: Path) -> Path:
    """Sources, mixtures and tokens as `Separation.save` writes them, the true digits where they are
    known, pictures of the graph, the evidence and the candidates, and `result.json`."""
    inside = folder / "files"
    found.save(inside)
    for place, digit in enumerate([] if truths is None else truths[0], 1):
        (inside / f"true_{place}.png").write_bytes(pixels(digit[0]))
    for site in found.importance:
        name = "sum.png" if len(found.importance) == 1 else f"sum_{site}.png"
        (inside / name).write_bytes(pixels(found.reconstruction(site)[0, 0]))
    draw_graph(found.graph, inside / "graph.png")
    draw_evidence(found, path=inside / "evidence.png")
    draw_tree(found, path=inside / "candidates.png")
    chosen = int(found.chosen[0])
    facts = {
        **_settings(found.settings),
        "graph": found.graph.describe(256),
        "mixture_error": float(found.reconstruction_error()),
        "candidate_errors": found.errors[0].tolist(),
        "chosen": chosen,
        "tokens": {name: own[0].tolist() for name, own in found.tokens.items()},
        "log_evidence": [_number(value) for value in found.evidence[0, chosen].tolist()],
        "seconds": found.seconds,
        "notices": list(found.notices),
    }
    return _zipped(inside, facts, folder / "mlass-digits.zip")


def zip_song(song: Song, spectrograms: bytes, folder: Path) -> Path:
    """The stems and the sound that they were taken from as WAV, their spectrograms, and
    `result.json`."""
    inside = folder / "files"
    song.save(inside)
    write_audio(inside / "mixture.wav", song.mixture, song.rate)
    (inside / "spectrograms.png").write_bytes(spectrograms)
    facts = {
        **_settings(song.settings),
        "sound": song.recording.name,
        "rate": song.rate,
        "stems": list(song),
        "length_seconds": song.recording.seconds,
        "seconds": song.seconds,
        "notices": list(song.notices),
    }
    return _zipped(inside, facts, folder / "mlass-sound.zip")


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    told = {
        name: value if isinstance(value, str | int) else repr(value)
        for name, value in settings.items()
    }
    return {"mlass_ppl": __version__, **told}


def _number(value: float) -> float | str:
    """JSON has no infinity."""
    return value if abs(value) < float("inf") else str(value)


def _zipped(inside: Path, facts: Mapping[str, Any], path: Path) -> Path:
    text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (inside / "result.json").write_text(text, encoding="utf-8")
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for file in sorted(inside.iterdir()):
            archive.write(file, file.name)
    shutil.rmtree(inside)
    return path
