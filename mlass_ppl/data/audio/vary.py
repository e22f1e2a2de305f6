"""A variant of a song in General MIDI: other instruments, key, tempo and dynamics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...audio import _libraries
from ...errors import DataError, OptionError
from .instruments import DRUM_CHANNEL, instrument_class

SEMITONES = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6)
"""What all but the drums may be transposed by; not by 0, for there is the song itself."""

TEMPO, VELOCITY, LEVEL = (0.82, 1.22), (0.75, 1.15), (0.6, 1.3)
"""Ranges of what beats are longer by, velocities of the song higher, and those of each channel."""

KITS = (0, 8, 16, 24, 25, 32, 40)
"""Drum kits of General MIDI 2 and GS with the usual drums at the usual keys: standard, room, power,
electronic, analog, jazz, brush."""

RANGES = {"piano": (21, 108), "guitar": (33, 88), "bass": (23, 67)}
"""Lowest and highest key of a class: a piano's, a guitar's of seven strings tuned down to A, a
bass's of five. Other instruments have all keys."""

STEMS = {"piano": range(8), "guitar": range(24, 32), "bass": range(32, 40)}
"""Programs of the classes that melodies can be given to."""

_MELODIC = 104  # from here on: folk instruments, percussion and effects
_ENOUGH = 60  # notes of a channel that is worth a stem of its own
_BEAT = 500_000  # microseconds, where a song does not say
_METAS = ("set_tempo", "time_signature", "copyright", "end_of_track")  # not its key, now another
_KEYS = ("note_on", "note_off", "polytouch")


def vary_song(midi: Any, random: np.random.Generator, *, as_stem: str | None = None) -> Any | None:
    """A variant of a song in General MIDI, a mido.MidiFile of type 0 or 1, which is left as it is.

    All but the drums is transposed, by `SEMITONES`; notes that leave the range of their class come
    back by octaves. Each channel plays another program of the same family of eight, so that its
    class stays, and the drums another of the `KITS`. Tempo, velocities and levels of the channels
    change within `TEMPO`, `VELOCITY` and `LEVEL`. as_stem: piano, guitar or bass; one or two
    channels with a melody are kept, and play programs of that class.

    Returns a mido.MidiFile of type 0, or None where no channel has a melody of 60 notes. Raises
    OptionError on another stem, DataError where the song plays no note.
    """
    check_stem(as_stem)
    mido = _libraries.mido()
    messages = mido.merge_tracks(midi.tracks)
    played = _played(messages)
    if not played:
        raise DataError("the song plays no note. Leave it out.")
    changes = _Changes.draw(random, as_stem)
    channels = {*played}
    if as_stem is not None:
        melodies = _melodies(played)
        number = min(int(random.choice((1, 1, 2))), len(melodies))
        channels = {int(channel) for channel in random.permutation(melodies)[:number]}
        if not channels:
            return None
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=changes.tempo(_BEAT))])
    current: dict[int, int] = {}
    sounding: dict[tuple[int, int], list[int]] = defaultdict(list)
    waited = 0
    for message in messages:
        channel: Any = getattr(message, "channel", None)
        if (message.is_meta and message.type not in _METAS) or (
            channel is not None and channel not in channels
        ):
            waited += message.time
            continue
        change: dict[str, Any] = {"time": message.time + waited}
        waited = 0
        if message.type == "set_tempo":
            change["tempo"] = changes.tempo(message.tempo)
        elif message.type == "program_change":
            change["program"] = current[channel] = changes.program(channel, message.program)
        elif message.type in _KEYS:
            if channel not in current:
                # Not at the song's beginning, where a reset of the synthesizer often follows.
                own = current[channel] = changes.program(channel, 0)
                told = mido.Message("program_change", channel=channel, program=own, **change)
                track.append(told)
                change["time"] = 0
            if channel != DRUM_CHANNEL:
                keys = sounding[channel, message.note]
                change["note"] = _key(message, changes.semitones, current[channel], keys)
            if message.type == "note_on" and message.velocity:
                change["velocity"] = changes.velocity(channel, message.velocity)
        track.append(message.copy(skip_checks=True, **change))
    variant = mido.MidiFile(type=0, ticks_per_beat=midi.ticks_per_beat, charset=midi.charset)
    variant.tracks.append(track)
    return variant


def check_stem(as_stem: str | None) -> None:
    """Raises OptionError where melodies cannot play as this stem."""
    if as_stem is not None and as_stem not in STEMS:
        raise OptionError(
            f"melodies can play as {', '.join(STEMS)}; got '{as_stem}'. Leave it out to vary all "
            "that plays."
        )


@dataclass(frozen=True)
class _Changes:
    """What a variant changes. louder, moved: by channel. stem: programs of all channels, if any."""

    semitones: int
    slower: float
    kit: int
    louder: tuple[float, ...]
    moved: tuple[int, ...]
    stem: Sequence[int] | None

    @classmethod
    def draw(cls, random: np.random.Generator, as_stem: str | None) -> _Changes:
        semitones, slower = int(random.choice(SEMITONES)), float(random.uniform(*TEMPO))
        kit, loud = int(random.choice(KITS)), random.uniform(*VELOCITY)
        louder = tuple(float(loud * level) for level in random.uniform(*LEVEL, size=16))
        moved = tuple(int(step) for step in random.integers(8, size=16))
        stem = None if as_stem is None else STEMS[as_stem]
        return cls(semitones, slower, kit, louder, moved, stem)

    def tempo(self, beat: int) -> int:
        return max(1, min(round(beat * self.slower), 2**24 - 1))

    def velocity(self, channel: int, own: int) -> int:
        return max(1, min(round(own * self.louder[channel]), 127))

    def program(self, channel: int, own: int) -> int:
        if channel == DRUM_CHANNEL:
            return self.kit if own < 48 else own  # above: orchestra and effects, at other keys
        if self.stem is not None:
            return self.stem[self.moved[channel]]
        return own // 8 * 8 + (own + self.moved[channel]) % 8


def _key(message: Any, semitones: int, program: int, sounding: list[int]) -> int:
    """The key that a message is of now. A note ends at the key that it began at, though its channel
    may play another program by then; sounding: those keys, oldest first."""
    starts = message.type == "note_on" and message.velocity > 0
    if sounding and not starts:
        return sounding[0] if message.type == "polytouch" else sounding.pop(0)
    low, high = RANGES.get(instrument_class(program), (0, 127))
    key: int = message.note + semitones
    key += 12 * max(0, -((key - low) // 12))
    key -= 12 * max(0, -((high - key) // 12))
    if starts:
        sounding.append(key)
    return key


def _played(messages: Sequence[Any]) -> dict[int, Counter[int]]:
    """Notes of each channel by the program that plays them."""
    current = [0] * 16
    played: dict[int, Counter[int]] = defaultdict(Counter)
    for message in messages:
        if message.type == "program_change":
            current[message.channel] = message.program
        elif message.type == "note_on" and message.velocity > 0:
            played[message.channel][current[message.channel]] += 1
    return played


def _melodies(played: Mapping[int, Counter[int]]) -> list[int]:
    """Channels of enough notes that are mostly neither bass nor drums nor noises, in order."""
    found = []
    for channel, programs in sorted(played.items()):
        ((program, _),) = programs.most_common(1)
        melodic = program < _MELODIC and instrument_class(program) != "bass"
        if channel != DRUM_CHANNEL and melodic and programs.total() >= _ENOUGH:
            found.append(channel)
    return found
