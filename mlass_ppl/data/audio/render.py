"""Songs in General MIDI to a stem data set in Slakh2100's layout."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...audio import write_audio
from ...audio._libraries import mido, soundfile, yaml
from ...errors import DataError, MlassError, OptionError
from .fluidsynth import FluidSynth
from .instruments import CLASSES
from .manifest import Origin
from .midi import Song, read_midi
from .slakh import METADATA, SPLITS, read_metadata

PEAK_DB = -1.0
"""Peak of the loudest of a song's mix and stems, as Slakh2100's `target_peak`."""

ACTIVE_DB = -40.0
"""Least level of a second of sound that the manifest counts as active."""

MANIFEST = "manifest.csv"
_SILENT = 1e-4  # FluidSynth plays the volume 0 below -100 dB
_COLUMNS = ("track", "split", "source", "composer", "licence", "midi_file", "seconds")
_PARTS = ".parts"  # of songs that are being rendered


@dataclass(frozen=True)
class Rendered:
    """Names of the songs that were rendered now, that were there already, and that failed (with
    the reason)."""

    new: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def render_songs(
    songs: Sequence[Origin],
    splits: Sequence[str],
    out: str | Path,
    synth: FluidSynth,
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Rendered:
    """Render songs into out/{split}/{name}, `jobs` at a time, and list all in out/manifest.csv.

    A track appears when it is finished, so that an interrupted call can be made again: what is
    there is kept, and moved where its split has changed. Each has one stem a class (S00.flac, ...),
    16-bit mono, and mix.flac, which is their sum exactly; one gain a song brings the loudest of
    them to -1 dB. A song that fails is told and does not stop the others.

    Raises DataError when fluidsynth, a SoundFont or a library is missing; OptionError on
    impossible options.
    """
    if jobs < 1:
        raise OptionError(f"expected one or more jobs, got {jobs}.")
    if len(songs) != len(splits) or not {*splits} <= {*SPLITS}:
        raise OptionError(f"expected a split for each song, of {', '.join(SPLITS)}.")
    for library in (soundfile, yaml, mido):
        library()
    synth.ready()
    out, report = Path(out), Rendered()
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        tasks = {
            pool.submit(_render, song, split, out, synth): song.name
            for song, split in zip(songs, splits, strict=True)
        }
        try:
            for done, task in enumerate(as_completed(tasks), 1):
                try:
                    (report.new if task.result() else report.kept).append(tasks[task])
                except (MlassError, OSError) as error:
                    report.failed[tasks[task]] = str(error)
                if progress is not None:
                    progress(done, len(tasks))
        finally:
            pool.shutdown(cancel_futures=True)
            write_manifest(out)
    shutil.rmtree(out / _PARTS, ignore_errors=True)
    return report


def write_manifest(out: str | Path) -> list[dict[str, Any]]:
    """List all finished tracks of a rendered set in its manifest.csv; returns the rows.

    Columns: track, split, source, composer, licence, midi_file, seconds, and for each class the
    seconds in which it is above -40 dB of full scale.
    """
    out = Path(out)
    rows = []
    for path in sorted(out.glob(f"*/*/{METADATA}")):
        track, split = path.parent.name, path.parent.parent.name
        if split not in SPLITS:
            continue
        facts = read_metadata(path.parent) | {"track": track, "split": split}
        active = {stem["inst_class"].lower(): stem for stem in facts["stems"].values()}
        row = {key: facts.get(key, "") for key in _COLUMNS}
        rows.append(row | {n: active.get(n, {}).get("active_seconds", 0) for n in CLASSES})
    temporary = out / f".{MANIFEST}.part"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*_COLUMNS, *CLASSES), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, out / MANIFEST)
    return rows


def _render(song: Origin, split: str, out: Path, synth: FluidSynth) -> bool:
    """Whether the song was rendered; False where it was there."""
    final = out / split / song.name
    settings = _settings(song, synth)
    for other in SPLITS:
        there = out / other / song.name
        if there.is_dir():
            _check_same(there, settings)
            if there != final:
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(there, final)
            return False
    parts = read_midi(song.path)
    folder = out / _PARTS / song.name
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("MIDI", "stems"):
        (folder / name).mkdir(parents=True)
    shutil.copyfile(song.path, folder / "all_src.mid")
    facts = settings | _write_stems(parts, folder, synth)
    facts |= {"source": song.source, "composer": song.composer, "licence": song.licence}
    facts |= {"midi_file": song.path.name, "audio_dir": "stems", "midi_dir": "MIDI"}
    text = yaml().safe_dump(facts, allow_unicode=True)
    (folder / METADATA).write_text(text, encoding="utf-8")
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(folder, final)
    return True


def _settings(song: Origin, synth: FluidSynth) -> dict[str, Any]:
    """What a track's sound depends on."""
    _, soundfont = synth.ready()
    return {
        "UUID": hashlib.md5(song.path.read_bytes(), usedforsecurity=False).hexdigest(),
        "sample_rate": synth.rate,
        "soundfont": soundfont.resolve().name,
        "soundfont_bytes": soundfont.stat().st_size,
    }


def _check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    facts = read_metadata(folder)
    for key, value in settings.items():
        if facts.get(key) != value:
            raise DataError(
                f"'{folder}' was rendered with {key} {facts.get(key)}, now it is {value}. Give "
                "another --out, or remove that folder to render it again."
            )


def _write_stems(song: Song, folder: Path, synth: FluidSynth) -> dict[str, Any]:
    """Write MIDI, stems and mix; returns their metadata."""
    signals = []
    for place, part in enumerate(song.parts.values()):
        midi = folder / "MIDI" / f"S{place:02d}.mid"
        part.midi.save(str(midi))
        signals.append(synth.play(midi))
    length = max(map(len, signals))
    stems = torch.stack([torch.nn.functional.pad(s, (0, length - len(s))) for s in signals])
    peak = float(torch.maximum(stems.abs().max(), stems.sum(0).abs().max()))
    if peak < _SILENT:
        raise DataError(
            f"the song renders to silence (a peak of {peak:.1e}): the SoundFont lacks its "
            "instruments, or its volume is 0. Leave it out, or take another SoundFont."
        )
    gain = 10 ** (PEAK_DB / 20) / peak
    # On the grid of 16 bits before they are added up, so that files sum to the file of the mix.
    stems = (stems * (gain * 32768)).round() / 32768
    described = {}
    for place, (name, part) in enumerate(song.parts.items()):
        write_audio(folder / "stems" / f"S{place:02d}.flac", stems[place], synth.rate)
        described[f"S{place:02d}"] = {
            "audio_rendered": True,
            "inst_class": name.capitalize(),
            "is_drum": name == "drums",
            "midi_saved": True,
            "program_num": part.program,
            "notes": part.notes,
            "active_seconds": _active_seconds(stems[place], synth.rate),
        }
    write_audio(folder / "mix.flac", stems.sum(0), synth.rate)
    return {
        "stems": described,
        "seconds": round(length / synth.rate, 3),
        "normalized": False,
        "overall_gain": gain,
        "target_peak": PEAK_DB,
    }


def _active_seconds(signal: Tensor, rate: int) -> int:
    seconds = signal[: len(signal) // rate * rate].view(-1, rate)
    return int((seconds.square().mean(1) >= 10 ** (ACTIVE_DB / 10)).sum())
