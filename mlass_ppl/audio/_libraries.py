"""The libraries of the extra [sound], imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..errors import MlassError


def soundfile() -> ModuleType:
    """libsndfile: reads and writes WAV, FLAC, OGG and, from 1.1 on, MP3."""
    return _library("soundfile", "audio files need soundfile")


def soxr() -> ModuleType:
    """libsoxr: changes sample rates."""
    return _library("soxr", "changing a sample rate needs soxr")


def mido() -> ModuleType:
    """Reads and writes MIDI files."""
    return _library("mido", "MIDI files need mido")


def yaml() -> ModuleType:
    """PyYAML: reads and writes the metadata of Slakh's tracks."""
    return _library("yaml", "metadata of tracks need pyyaml")


def _library(module: str, need: str) -> ModuleType:
    try:
        return import_module(module)
    except (ImportError, OSError) as error:  # OSError: soundfile is there, libsndfile is not
        raise MlassError(
            f'{need} ({error}). Install the extra [sound]: pip install "mlass-ppl[sound]".'
        ) from error
