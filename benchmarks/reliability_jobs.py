"""Small pieces of long work, each of which a process that is killed has to go on with."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlass_ppl.bundle import Bundle, load
from mlass_ppl.codecs import AudioVQ, AudioVQConfig, PatchCodec
from mlass_ppl.evidence import Feature
from mlass_ppl.priors import CausalLM, gpt2_config
from mlass_ppl.shapes import chain
from mlass_ppl.tables import Additive

RATE, SAMPLES = 8_000, 1_280
STEMS = ("high", "low")
Found = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """make: what is there before, in an empty folder. work: all of it, or what an earlier process
    left to do. found: what came out, without times. sound: raises where the folder is unusable as
    it is, half done."""

    name: str
    make: Callable[[Path], None]
    work: Callable[[Path], None]
    found: Callable[[Path], Found]
    sound: Callable[[Path], object] = lambda folder: None


def jobs() -> dict[str, Job]:
    made = (
        Job("save", _make_save, _save, _files_of("b"), _whole),
        Job("count", _make_count, _count, _files_of("b"), _loads),
        Job("evaluate", _make_digits, _evaluate, _records),
        Job("images", _make_digits, _separate, _files_of("out", ".png")),
        Job("songs", _make_songs, _separate, _files_of("out", ".wav")),
        Job("train", _make_recordings, _train, _files_of("b", ".safetensors"), _loads),
    )
    return {job.name: job for job in made}


# --- signals and bundles -------------------------------------------------------------------------


def digits(number: int, seed: int = 0) -> Tensor:
    """Smooth grey images [N, 1, 28, 28] in [0, 1]."""
    noise = torch.rand(number, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, 28, mode="bilinear").clamp(0, 1)


def tones(name: str, number: int, samples: int = SAMPLES, seed: int = 0) -> Tensor:
    """Tones [N, 1, samples] of one of the stems, RMS 0.2."""
    place = STEMS.index(name)
    random = torch.Generator().manual_seed(10 * seed + place)
    pitch = (900, 120)[place] * (1 + 0.3 * torch.rand(number, 1, generator=random))
    phase = 2 * math.pi * torch.rand(number, 1, generator=random)
    return 0.28 * torch.sin(2 * math.pi * pitch * torch.arange(samples) / RATE + phase)[:, None]


def prior(alphabet: int, length: int, seed: int = 0) -> CausalLM:
    from transformers import GPT2LMHeadModel

    torch.manual_seed(seed)
    config = gpt2_config(alphabet, length, width=16, layers=1, heads=2)
    return CausalLM(GPT2LMHeadModel(config), alphabet).eval().requires_grad_(False)


@cache
def image_bundle(seed: int = 0) -> Bundle:
    codec = PatchCodec.fit(digits(100, seed), 16, seed=seed)
    bundle = Bundle("tiny", codec, {"digit": prior(16, 49, seed)}, smoothing=Additive(0.1))
    return bundle.count(chain(2), digits(100, seed), mixtures=200, seed=seed)


@cache
def sound_bundle() -> Bundle:
    signals = {name: tones(name, 40) for name in STEMS}
    config = AudioVQConfig(
        samples=SAMPLES, sample_rate=RATE, hop=64, alphabet=16, latent=32, features=16, width=8,
        blocks=1,
    )  # fmt: skip
    mixed = torch.stack(list(signals.values())).mean(0)
    bundle = Bundle(
        "tiny-sound",
        AudioVQ.fit(mixed, config).requires_grad_(False),
        {name: prior(16, SAMPLES // 64, place) for place, name in enumerate(STEMS)},
        smoothing=Additive(0.1),
        card={"levels": dict.fromkeys(STEMS, 0.2)},
        codecs={name: AudioVQ.fit(signals[name], config).requires_grad_(False) for name in STEMS},
    )
    return bundle.count(chain(STEMS, evidence=Feature(linear=True)), signals, mixtures=100)


# --- what is there before ------------------------------------------------------------------------


def _make_save(folder: Path) -> None:
    image_bundle(0).save(folder / "b")


def _make_count(folder: Path) -> None:
    _idx(folder / "mnist" / "train-images-idx3-ubyte", digits(5_100))
    image_bundle().save(folder / "b")


def _make_digits(folder: Path) -> None:
    """A bundle, a test split, and files of mixtures."""
    from PIL import Image

    image_bundle().save(folder / "b")
    images = digits(40, 7)
    _idx(folder / "mnist" / "t10k-images-idx3-ubyte", images)
    (folder / "in").mkdir()
    for place, mixture in enumerate(images[:36].unflatten(0, (18, 2)).mean(1)):
        pixels = (mixture[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / "in" / f"{place:02d}.png")


def _make_songs(folder: Path) -> None:
    import soundfile

    sound_bundle().save(folder / "b")
    (folder / "in").mkdir()
    for place in range(4):
        song = sum(tones(name, 1, 4 * SAMPLES, 50 + place)[0, 0] for name in STEMS)
        soundfile.write(folder / "in" / f"{place}.wav", 0.5 * song.numpy(), RATE)  # type: ignore[union-attr]


def _make_recordings(folder: Path) -> None:
    import soundfile

    (folder / "recordings").mkdir()
    for name in STEMS:
        for index, wave in enumerate(tones(name, 14, 2_000)[:, 0].numpy()):
            soundfile.write(folder / "recordings" / f"3_{name}_{index}.wav", wave, RATE)


def _idx(file: Path, images: Tensor) -> None:
    pixels = (images * 255).round().byte().numpy()
    file.parent.mkdir(parents=True, exist_ok=True)
    header = b"\x00\x00\x08\x03" + struct.pack(">3I", len(pixels), 28, 28)
    file.write_bytes(header + pixels.tobytes())


# --- the work ------------------------------------------------------------------------------------


def _save(folder: Path) -> None:
    image_bundle(1).save(folder / "b")


def _count(folder: Path) -> None:
    for program in ("joint", "chain"):
        _mlass(
            "count", "--bundle", folder / "b", "--data-root", folder / "mnist", "--sources", 3,
            "--program", program, "--mixtures", 400,
        )  # fmt: skip


def _evaluate(folder: Path) -> None:
    _mlass(
        "evaluate", folder / "b", "--data-root", folder / "mnist", "--run-dir", folder / "run",
        "--sources", 2, "--infer", "bp", "--num", 16, "--batch-size", 2, "--candidates", 2,
        "--refine", "none",
    )  # fmt: skip


def _separate(folder: Path) -> None:
    _mlass(
        "separate", folder / "in", "--bundle", folder / "b", "--out", folder / "out",
        "--infer", "bp", "--candidates", 2, "--refine", "none",
    )  # fmt: skip


def _train(folder: Path) -> None:
    from mlass_ppl.train.sound_sizes import SoundSizes
    from mlass_ppl.train.spoken import make_spoken

    codec = AudioVQConfig(
        samples=SAMPLES, sample_rate=RATE, hop=64, alphabet=8, latent=16, features=6, width=4,
        blocks=1,
    )  # fmt: skip
    sizes = SoundSizes(
        stem=codec, mixture=replace(codec, alphabet=12), segment=SAMPLES, segments=8, mixed=8,
        fitted=8, codec_batch=4, width=8, layers=1, heads=2, windows=8, more=4, prior_batch=4,
        signals=100, sources=(), min_std=0.005,
    )  # fmt: skip
    make_spoken(folder / "b", folder, sizes=sizes, speakers=STEMS, device="cpu", run=folder / "run")


def _mlass(*line: object) -> None:
    from mlass_ppl.cli import app

    try:
        app(list(map(str, line)))
    except SystemExit as end:
        if end.code:
            raise


# --- what came out -------------------------------------------------------------------------------


def _files_of(name: str, *suffixes: str) -> Callable[[Path], Found]:
    return partial(_files, name=name, suffixes=suffixes)


def _files(folder: Path, name: str, suffixes: tuple[str, ...]) -> Found:
    every = [file for file in (folder / name).rglob("*") if file.is_file()]
    every = [file for file in every if not suffixes or file.suffix in suffixes]
    return {str(file.relative_to(folder)): _content(file) for file in every}


def _content(file: Path) -> bytes:
    """Of sound its samples: libsndfile writes the time of day into a WAV of floats."""
    if file.suffix != ".wav":
        return file.read_bytes()
    import soundfile

    samples, rate = soundfile.read(file, dtype="float32")
    return bytes(samples.tobytes() + str((rate, samples.shape)).encode())


def _records(folder: Path) -> Found:
    """The scores of every mixture, without seconds and memory."""
    from mlass_ppl.evaluate import Record

    lines = (folder / "run" / "records.jsonl").read_text().splitlines()
    records = [Record.from_json(line) for line in lines]
    scores = {
        str((record.key, stage)): (np.asarray(one.psnr).tolist(), one.candidate, one.error)
        for record in records
        for stage, one in record.stages.items()
    }
    rows = json.loads((folder / "run" / "report.json").read_text())["rows"]
    means = {f"mean {row['sources']} {row['row']} {row['stage']}": row["mean"] for row in rows}
    return scores | means | {"number of records": len(records)}


def _loads(folder: Path) -> None:
    if (folder / "b" / "bundle.json").is_file():
        load(folder / "b")


def _whole(folder: Path) -> None:
    """The bundle is the one or the other, never of both."""
    found = load(folder / "b")
    if not any(found.counts == image_bundle(seed).counts for seed in (0, 1)):
        raise AssertionError("the folder holds a mixture of two bundles")
