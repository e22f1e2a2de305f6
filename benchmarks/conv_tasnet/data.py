"""Chunks of songs: those that tests separate, and those that training holds in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.progress import track as progress
from torch import Tensor

from mlass_ppl.data.audio import Activity, Chunks, find_chunks, slakh
from mlass_ppl.errors import OptionError

STEMS = ("bass", "drums", "piano", "guitar")
"""Which stems a mixture has: the first two of these, the first three, or all four."""

SECONDS = 65_536 / 22_050
"""Length of a chunk: a power of two of samples at the rate of the songs."""


def stems_of(sources: int) -> tuple[str, ...]:
    """The stems of mixtures of so many sources. Raises OptionError outside of 2, 3, 4."""
    if not 2 <= sources <= len(STEMS):
        raise OptionError(
            f"mixtures have 2 to {len(STEMS)} sources ({', '.join(STEMS)}), not {sources}."
        )
    return STEMS[:sources]


def active_chunks(root: str | Path, split: str, stems: tuple[str, ...]) -> Chunks:
    """All chunks of a split, without overlap, in which each of these stems sounds.

    root: a folder in Slakh's layout. Raises DataError when there is no such chunk.
    """
    return find_chunks(slakh(root).split(split), Activity(stems, seconds=SECONDS))


def select(root: str | Path, split: str, sources: int, num: int, seed: int) -> Chunks:
    """The chunks that every method is scored on: `num` of those in which the first stems sound,
    drawn by `seed`, so that a smaller number gives the first of them. Raises OptionError when there
    are not so many."""
    return active_chunks(root, split, stems_of(sources)).sample(num, seed)


def in_memory(chunks: Chunks, note: str = "", dtype: torch.dtype = torch.float16) -> Tensor:
    """All stems of all chunks, [N, n, T]. float16 takes half the memory, and is no coarser than
    16-bit files below a level of -24 dB."""
    out = torch.empty(len(chunks), len(chunks.activity.stems), chunks.frames, dtype=dtype)
    for place, chunk in enumerate(progress(chunks, note, total=len(chunks), transient=True)):
        out[place] = torch.stack([*chunk.values()])
    return out
