"""The stems that General MIDI instruments belong to."""

from __future__ import annotations

CLASSES = ("bass", "drums", "guitar", "piano", "other")
"""Names of the stems, in the order in which they are rendered."""

DRUM_CHANNEL = 9  # the tenth, counted from 0
DRUM_PROGRAM = 128  # what Slakh2100 writes for a drum kit

_PROGRAMS = {"piano": range(8), "guitar": range(24, 32), "bass": range(32, 40)}


def instrument_class(program: int, drums: bool = False) -> str:
    """The class of a General MIDI program, counted from 0: piano 0-7, guitar 24-31, bass 32-39,
    drums whatever the program says, everything else `other`."""
    if drums or program == DRUM_PROGRAM:
        return "drums"
    return next((name for name, programs in _PROGRAMS.items() if program in programs), "other")
