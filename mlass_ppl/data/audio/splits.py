"""Splits by source and composer, never at random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from ...errors import DataError


class Authored(Protocol):
    """A song of a collection (`source`) by an author (`composer`, "" where unknown)."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def composer(self) -> str: ...


def hold_out(
    songs: Sequence[Authored], *, validation: Collection[str] = (), test: Collection[str] = ()
) -> list[str]:
    """The split of each song: whole sources and composers, by name, are held out of `train`.

    Songs of one collection or author resemble each other, so that a random split would measure
    memory. Raises DataError when a name is no source or composer of the songs, or when a composer,
    or a source whose composers are unknown, would stand in two splits.
    """
    known = ({song.source for song in songs} | {song.composer for song in songs}) - {""}
    for name in (*validation, *test):
        if name not in known:
            raise DataError(
                f"'{name}' is no source or composer of the songs; expected some of "
                f"{', '.join(sorted(known)) or 'none, for none is known'}."
            )
    splits = [_split(song, {*validation}, {*test}) for song in songs]
    shared = shared_groups(zip(songs, splits, strict=True))
    if shared:
        name, where = next(iter(shared.items()))
        raise DataError(
            f"{len(shared)} composers or sources would stand in several splits: '{name}' in "
            f"{' and '.join(where)}. Hold out all that is by one composer, or from one source."
        )
    return splits


def shared_groups(songs: Iterable[tuple[Authored, str]]) -> dict[str, list[str]]:
    """The composers (or sources, where those are unknown) in several splits, and which."""
    found: dict[str, set[str]] = defaultdict(set)
    for song, split in songs:
        found[song.composer or song.source or song.name].add(split)
    return {group: sorted(splits) for group, splits in found.items() if len(splits) > 1}


def _split(song: Authored, validation: set[str], test: set[str]) -> str:
    names = {song.source, song.composer}
    return "test" if names & test else "validation" if names & validation else "train"
