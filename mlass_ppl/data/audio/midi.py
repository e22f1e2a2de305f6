"""A General MIDI song as one MIDI file for each class of instruments."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...audio import _libraries
from ...errors import DataError
from .instruments import CLASSES, DRUM_CHANNEL, DRUM_PROGRAM, instrument_class

LONGEST = 1800.0
"""Seconds of the longest song that is taken: damaged files can last for years."""

_TIMING = ("set_tempo", "end_of_track")


@dataclass(frozen=True)
class Part:
    """What one class plays. midi: a mido.MidiFile of one track. notes: how many. program: the one
    that plays most of them, counted from 0, 128 for drums."""

    midi: Any
    notes: int
    program: int


@dataclass(frozen=True)
class Song:
    """A song as `read_midi` splits it. parts: by class, without those that play nothing."""

    seconds: float
    parts: dict[str, Part]


def read_midi(path: str | Path) -> Song:
    """Split a MIDI file by what plays: bass, drums, guitar, piano, other.

    A part holds every message of the song but the others' notes and texts, so that tempo, programs,
    volume and pitch bends are as they were, and all parts last as long. A channel that changes its
    program gives each note to the class that it has when the note begins. Channel 10 is drums.

    Raises DataError when the file is missing or damaged, of independent sequences (type 2), longer
    than half an hour or without a note, or mido is not installed.
    """
    path = Path(path)
    mido = _libraries.mido()
    try:
        midi = mido.MidiFile(str(path), clip=True)
        if midi.ticks_per_beat < 1:
            raise ValueError("its times are in SMPTE frames, not in beats")
        seconds = float(midi.length) if midi.type != 2 else 0.0
        merged = list(mido.merge_tracks(midi.tracks))
    except Exception as error:  # mido lets struct, index, key and value errors through
        raise DataError(
            f"'{path}' is missing, damaged or no MIDI file that can be read "
            f"({type(error).__name__}: {error}). Leave it out, or export it again as type 1."
        ) from error
    if midi.type == 2:
        raise DataError(
            f"'{path}' is a MIDI file of type 2, whose tracks are sequences of their own; expected "
            "type 0 or 1. Export it again as type 1."
        )
    if seconds > LONGEST:
        raise DataError(
            f"'{path}' lasts {seconds:,.0f} s; expected at most {LONGEST:,.0f}. Its times may be "
            "damaged; leave it out, or cut it."
        )
    owners, programs = _owners(merged)
    if not programs:
        raise DataError(f"'{path}' plays no note. Leave it out.")
    parts = {}
    for name in (name for name in CLASSES if name in programs):
        track = mido.MidiTrack(_only(merged, owners, name))
        part = mido.MidiFile(type=0, ticks_per_beat=midi.ticks_per_beat)
        part.tracks.append(track)
        (program, _), *_ = programs[name].most_common(1)
        parts[name] = Part(part, programs[name].total(), program)
    return Song(seconds, parts)


def _owners(messages: list[Any]) -> tuple[list[str | None], dict[str, Counter[int]]]:
    """The class of each message that begins a note, None for all others; notes by class and
    program."""
    current = [0] * 16
    owners: list[str | None] = []
    programs: dict[str, Counter[int]] = defaultdict(Counter)
    for message in messages:
        owner = None
        if message.type == "program_change":
            current[message.channel] = message.program
        elif message.type == "note_on" and message.velocity > 0:
            drums = message.channel == DRUM_CHANNEL
            program = DRUM_PROGRAM if drums else current[message.channel]
            owner = instrument_class(program)
            programs[owner][program] += 1
        owners.append(owner)
    return owners, programs


def _only(messages: list[Any], owners: list[str | None], name: str) -> list[Any]:
    """The messages without the notes of other classes, whose waits go to what follows them."""
    kept, waited = [], 0
    for message, owner in zip(messages, owners, strict=True):
        sounds = not message.is_meta or message.type in _TIMING
        if sounds and owner in (None, name):
            kept.append(message.copy(skip_checks=True, time=message.time + waited))
            waited = 0
        else:
            waited += message.time
    return kept
