"""Counts that are not finished yet, in a folder: what was counted, and of how many blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._bundle_files import table_file
from ..tables import (
    AnyCounts,
    CellMoments,
    Counts,
    Recipe,
    load_cells,
    load_counts,
    load_moments,
    save_cells,
    save_counts,
    save_moments,
)


@dataclass(frozen=True)
class State:
    """folder: of the files; a card, which is written last, names those that count. asked: one word
    for all that the counts depend on; those of another one are not gone on from."""

    folder: Path
    asked: str

    @property
    def card(self) -> Path:
        return self.folder / "counted.json"

    def read(self, recipes: Sequence[Recipe]) -> tuple[int, dict[Recipe, AnyCounts]]:
        """Number of blocks that are done, and their counts; none of a count that asked for other
        things."""
        try:
            facts = json.loads(self.card.read_text("utf-8"))
        except (OSError, ValueError):
            return 0, {}
        if facts.get("asked") != self.asked:
            return 0, {}
        done = int(facts["done"])
        return done, {recipe: _load(recipe, self._file(recipe, done)) for recipe in recipes}

    def write(self, done: int, counted: dict[Recipe, AnyCounts]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {self._file(recipe, done): counts for recipe, counts in counted.items()}
        for file, counts in files.items():
            _save(counts, file)
        draft = self.card.with_suffix(".part")
        draft.write_text(json.dumps({"asked": self.asked, "done": done}), "utf-8")
        draft.replace(self.card)
        for file in set(self.folder.glob("*-table-*")) - set(files):
            file.unlink()

    def clear(self) -> None:
        self.card.unlink(missing_ok=True)
        for file in self.folder.glob("*-table-*"):
            file.unlink()

    def _file(self, recipe: Recipe, done: int) -> Path:
        return self.folder / f"{done}-{table_file(recipe)}"


def _load(recipe: Recipe, file: Path) -> AnyCounts:
    load: Callable[[Path], AnyCounts] = load_moments if recipe.feature else load_counts
    return load_cells(file) if recipe.cells else load(file)


def _save(counts: AnyCounts, file: Path) -> None:
    if isinstance(counts, Counts):
        save_counts(counts, file)
    elif isinstance(counts, CellMoments):
        save_cells(counts, file)
    else:
        save_moments(counts, file)
