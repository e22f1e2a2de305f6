"""The folders that `mlass separate` writes: one for each mixture, kept unless told otherwise."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ._kept import clear, save_png, write_kept

if TYPE_CHECKING:
    from ..graph import MixingGraph
    from ..separation import Separation

FACTS, GRID, MIXTURE = "facts.json", "grid.png", "mixture.png"


@dataclass(frozen=True)
class Track:
    """One mixture to separate: its files by observed site ("" where one signal serves all), and
    the folder that its sources go to."""

    files: Mapping[str, Path]
    folder: Path

    @property
    def done(self) -> bool:
        """Whether an earlier run finished it: the facts are written last."""
        return (self.folder / FACTS).is_file()

    def __str__(self) -> str:
        return " + ".join(map(str, self.files.values()))


def sets_of(mixtures: Sequence[str], graph: MixingGraph, paths: int) -> list[dict[str, Path]]:
    """The files of each mixture by observed site, from SITE=FILE options: the first of each site
    make the first mixture, and so on. Without any option there is none.

    Raises OptionError on malformed options, on sites that occur less often than others, and where
    options, or `paths` plain files, are not what the program asks for; SignalError on unknown and
    missing sites.
    """
    from .._separating.inputs import check_sites

    asked = " ".join(f"--mixture {site}=FILE" for site in graph.observed)
    if not mixtures:
        if not paths:
            raise OptionError("expected image files to separate, or --mixture SITE=FILE; got none.")
        if several(graph):
            raise OptionError(
                f"'{graph.name}' observes several signals, so that plain files do not say which is "
                f"which. Give {asked}."
            )
        return []
    if paths:
        raise OptionError("plain files and --mixture were both given; give either.")
    files: dict[str, list[Path]] = {}
    for option in mixtures:
        site, equals, path = option.partition("=")
        if not (site and equals and path):
            raise OptionError(f"--mixture takes SITE=FILE, got '{option}'. Give {asked}.")
        files.setdefault(site, []).append(Path(path))
    check_sites(graph, list(files))
    counts = {site: len(found) for site, found in files.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{site} {number} times" for site, number in counts.items())
        raise OptionError(f"each mixture needs a file for each observed site; got {listed}.")
    number = next(iter(counts.values()))
    return [{site: files[site][i] for site in graph.observed} for i in range(number)]


def several(graph: MixingGraph) -> bool:
    """Whether the program's observed sites mix its sources in several ways."""
    from .._separating.signals import alike

    return len(alike({site: graph.leaf_weights(site) for site in graph.observed})) > 1


def tracks_for(given: Sequence[Path] | Sequence[Mapping[str, Path]], out: Path) -> list[Track]:
    """A folder below `out` for each file, or set of files, called after it, or the first of it.

    Files of one stem are told apart by their endings, then by the folders they lie in, then by a
    number; so a file's folder depends on what else is separated only where names collide.
    """
    sets = [{"": one} if isinstance(one, Path) else one for one in given]
    files = [next(iter(files.values())) for files in sets]
    names = [file.stem for file in files]
    endings = [f"{file.stem}_{file.suffix[1:]}" for file in files]
    parents = [
        f"{file.resolve().parent.name}_{ending}"
        for file, ending in zip(files, endings, strict=True)
    ]
    for others in (endings, parents):
        often = Counter(names)
        names = [
            other if often[name] > 1 else name for name, other in zip(names, others, strict=True)
        ]
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 1
        while names[place] in taken:
            number += 1
            names[place] = f"{name}_{number}"
        taken.add(names[place])
    return [Track(files, out / name) for files, name in zip(sets, names, strict=True)]


def check_names(sources: Sequence[str], sites: Sequence[str] = ()) -> None:
    """Raise OptionError when a name cannot be that of a file. sites: the observed ones, where they
    observe several signals; else the one there is goes to mixture.png."""
    taken = {GRID} if sites else {GRID, MIXTURE}
    for name in (*sources, *sites):
        if f"{name}.png" in taken or name in ("", ".", "..") or set(name) & set('/\\:*?"'):
            raise OptionError(
                f"site '{name}' cannot be written to '{name}.png': that name is taken or holds "
                "signs that file names cannot have. Rename it in the program."
            )


def write_track(
    track: Track,
    separation: Separation,
    row: int,
    facts: dict[str, Any],
    *,
    notices: Sequence[str],
    keep: int = 0,
) -> dict[str, Any]:
    """Write one row of a separation: {source}.png, mixture.png (or {site}.png where several signals
    were observed), grid.png, the `keep` best distinct candidates as {number}/{source}.png, and last
    facts.json.

    Files of an earlier run that its facts.json names are removed first. Returns the facts.
    """
    from ..draw import draw_separation

    folder = track.folder
    if folder.exists() and not folder.is_dir():
        raise OptionError(
            f"'{folder}' is a file; expected a folder to write to. Give another --out."
        )
    _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    one = select(separation, row)
    images = one.images()
    for file, signals in images.items():
        save_png(signals[0], folder / file)
    draw_separation(one, folder / GRID, labels=[track.folder.name[:24]])
    kept = write_kept(one, folder, keep) if keep else []
    observed = {site: str(file) for site, file in track.files.items()}
    facts = {
        "file": next(iter(observed.values())),
        **({"observed": observed} if len(observed) > 1 else {}),
        "notices": list(notices),
        **facts,
        "mixture_error": one.reconstruction_error().item(),
        **({"kept": kept} if keep else {}),
        "files": [*images, GRID, *(file for one in kept for file in one["files"])],
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (folder / FACTS).write_text(text, encoding="utf-8")
    return facts


def _clear(folder: Path) -> None:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        files = [str(name) for name in facts["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    (folder / FACTS).unlink(missing_ok=True)
    clear(folder, files)


def select(separation: Separation, row: int) -> Separation:
    """The separation of one mixture out of a batch."""
    from dataclasses import replace

    def cut(signals: Any) -> Any:
        return None if signals is None else {k: v[row : row + 1] for k, v in signals.items()}

    return replace(
        separation,
        observed=cut(separation.observed),
        signals=cut(separation.signals),
        refined=cut(separation.refined),
        tokens=cut(separation.tokens),
        evidence=separation.evidence[row : row + 1],
        log_prior=separation.log_prior[row : row + 1],
        log_weights=separation.log_weights[row : row + 1],
        errors=separation.errors[row : row + 1],
        chosen=separation.chosen[row : row + 1],
        candidates=cut(separation.candidates),
        candidate_tokens=cut(separation.candidate_tokens),
    )
