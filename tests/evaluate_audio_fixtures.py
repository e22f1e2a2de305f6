"""Small data sets of sound on disk, and evaluations of the tiny bundle on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from audio_bundle import RATE, SAMPLES, STEMS, make_bundle, stem

from mlass_ppl.audio import resample
from mlass_ppl.data.audio import slakh
from mlass_ppl.evaluate import Evaluation, Method, Record, Report, evaluate
from mlass_ppl.evaluate.audio import PostFilter, StemStimuli
from mlass_ppl.infer import Auto
from mlass_ppl.search import Sample
from mlass_ppl.shapes import additive

CHUNKS = 4
"""Of each song."""

CLASSES = {"bass": "Bass", "drums": "Drums", "piano": "Piano", "guitar": "Guitar"}
METHODS = (Method("auto", additive, Auto()),)
EVALUATION = Evaluation(
    METHODS, Sample(2), PostFilter(), sources=(2,), num=5, pairing_seed=0, batch_size=3
)


def write(path: Path, signal: Any, rate: int = RATE) -> Path:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(signal), rate, subtype="FLOAT")
    return path


def song(seed: int, names: Sequence[str] = STEMS) -> dict[str, Any]:
    """Stems [T] of a song of `CHUNKS` chunks, each chunk of another tone."""
    return {name: stem(name, CHUNKS, seed=seed).flatten() for name in names}


def write_song(folder: Path, stems: dict[str, Any], rate: int = RATE) -> Path:
    """One track in the layout of Slakh2100."""
    facts = {}
    for number, (name, signal) in enumerate(stems.items()):
        write(folder / "stems" / f"S{number:02}.wav", signal, rate)
        facts[f"S{number:02}"] = {"inst_class": CLASSES[name], "is_drum": name == "drums"}
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": folder.name, "stems": facts}))
    return folder


def write_slakh(root: Path, songs: int = 3, rate: int = RATE) -> Path:
    """Songs of bass, drums and piano, in the split `test`."""
    for number in range(songs):
        made = song(seed=10 + number)
        if rate != RATE:
            made = {name: resample(signal, RATE, rate) for name, signal in made.items()}
        write_song(root / "test" / f"Track{number:02}", made, rate)
    return root


def stimuli(root: Path, stems: Sequence[str] = STEMS, **options: Any) -> StemStimuli:
    options.setdefault("notice", lambda line: None)
    return StemStimuli("slakh", slakh(root).split("test"), tuple(stems), **options)


def run(
    folder: Path, given: StemStimuli, evaluation: Evaluation | None = None, **options: Any
) -> Report:
    """Evaluate the tiny bundle. Options of `Evaluation` change it, others go to `evaluate`."""
    own = {key: options.pop(key) for key in list(options) if hasattr(EVALUATION, key)}
    options.setdefault("notice", lambda line: None)
    bundle = options.pop("bundle", None) or make_bundle()
    return evaluate(replace(evaluation or EVALUATION, **own), bundle, given, folder, **options)


def records(folder: Path) -> list[Record]:
    """The records of a run, the last one of each key, in the order of the file."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    return list({record.key: record for record in map(Record.from_json, lines)}.values())


def scores(folder: Path) -> dict[Any, Any]:
    """Everything that a run found, without its times and its memory."""
    return {
        (record.key, stage): (one.metrics, one.permutation, one.error, one.candidate, record.chunk)
        for record in records(folder)
        for stage, one in record.stages.items()
    }


def same(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Two results of `scores` are equal, up to what another batch does to the last digits."""
    assert found.keys() == expected.keys()
    for key, (metrics, permutation, error, candidate, chunk) in found.items():
        assert (permutation, candidate, chunk) == (expected[key][1], *expected[key][3:])
        assert error == pytest.approx(expected[key][2], rel=1e-3, abs=1e-9)
        for name, values in metrics.items():
            assert values == pytest.approx(expected[key][0][name], rel=1e-3, abs=1e-3)


def truths_of(root: Path, record: Record, names: Sequence[str]) -> np.ndarray:
    """The true stems of a record, float64 [n, SAMPLES], straight from the files."""
    import soundfile

    name, start = record.chunk
    files = [root / "test" / str(name) / "stems" / f"S{STEMS.index(each):02}.wav" for each in names]
    parts = [soundfile.read(file, start=start, frames=SAMPLES)[0] for file in files]
    return np.stack(parts)
