"""What `mlass separate` does with every song: its options, put together once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ._common import SHAPES, engine_from_name, program_from, shape_for
from ._estimate import estimate_from
from ._refine import check_name, refinement_from
from ._songs_options import SongOptions


@dataclass(frozen=True)
class SongJob:
    """options: of `separate_song`, the same for every song. facts: what the job is, in words."""

    graph: Any
    bundle: Any
    names: tuple[str, ...]
    options: dict[str, Any]
    facts: dict[str, Any]

    def __call__(self, file: Path, out: Any, progress: Any) -> Any:
        from ..songs import separate_song

        return separate_song(
            file, self.graph, self.bundle, out=out, progress=progress, **self.options
        )


def takes_sound(bundle: str) -> bool:
    """Whether a bundle's codec is one of sound, as its card says; not so where there is no such
    bundle or it is damaged, which `load` tells better."""
    from ..bundle import CARD, list_bundles
    from ..codecs.kinds import KINDS

    for folder in (Path(bundle), *(home for home in list_bundles() if home.name == bundle)):
        try:
            kind = json.loads((folder / CARD).read_text(encoding="utf-8"))["codec"]["kind"]
            return hasattr(KINDS[kind][0], "sample_rate")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            return False
    return False


def make_song_job(
    bundle: str,
    sources: Sequence[str] | None,
    program: str | None,
    infer: str,
    search: Any,
    estimate: str,
    refine: str,
    on_unseen: str | None,
    seed: int,
    memory_limit: float | None,
    given: SongOptions,
) -> SongJob:
    """The job that the options name. Raises OptionError on impossible ones."""
    engine, unseen = engine_from_name(infer, sound=True), on_unseen or "prior"
    if program is not None and program not in SHAPES and sources:
        raise OptionError(
            "--sources and --program were both given; a program file says itself which sources "
            "it has. Leave --sources out."
        )
    if unseen not in ("error", "prior"):
        raise OptionError(f"--on-unseen must be error or prior, not '{unseen}'.")
    check_name(refine)
    postfilter = given.filter()

    from .._separating.estimating import posterior_mean
    from ..bundle import load
    from ..refine import Conditional
    from ..songs.parts import Parts, check_names

    loaded = load(bundle)
    graph = _graph(loaded, sources, program, infer)
    parts = Parts(graph.sources, given.two_stems, given.residual)
    check_names(parts.names)
    given.files(Path("any"), force=True)
    # What `auto` means for images, a refiner or a descent of pixels, is not made for sound.
    refinement: Any = Conditional() if Conditional.suits(loaded) else None
    if refine != "auto":
        refinement = refinement_from(refine, loaded)
    options = {
        "infer": engine,
        "search": search,
        "estimate": estimate_from(estimate, posterior_mean(graph, loaded)),
        "refine": refinement,
        "seed": seed,
        "on_unseen": unseen,
        "memory_limit": memory_limit,
        "postfilter": postfilter,
        "two_stems": given.two_stems,
        "residual": given.residual,
        **({} if given.batch_size is None else {"batch_size": given.batch_size}),
    }
    told = ("search", "estimate", "refine", "postfilter")
    facts = {"bundle": loaded.name, "program": graph.name, "engine": repr(engine)}
    facts |= {name: repr(options[name]) for name in told} | {"candidates": search.candidates}
    return SongJob(
        graph, loaded, parts.names, options, {**facts, "seed": seed, "on_unseen": unseen}
    )


def _graph(bundle: Any, sources: Sequence[str] | None, program: str | None, infer: str) -> Any:
    """The program that is named, or the shape that the engine was made for: of its chains that of
    linear features where the bundle has its tables, else that of tokens."""
    from .. import shapes
    from ..declare import compile_program
    from ..evidence import Feature

    if program is not None and program not in SHAPES:
        return compile_program(program_from(program))
    names: Any = stems_of(bundle, sources)
    if program is not None:
        return compile_program(getattr(shapes, program)(names))
    shape = shape_for(infer)
    tokens = compile_program(shapes.chain(names))
    linear = compile_program(shapes.chain(names, evidence=Feature(linear=True)))
    preferred = linear if shape == "chain" else compile_program(getattr(shapes, shape)(names))
    if shape not in ("chain", "additive"):
        return preferred
    for graph in (preferred, linear, tokens):
        if not bundle.lacking(graph, graph.factors):
            return graph
    return preferred  # whose missing tables `separate` names, and the command that counts them


def stems_of(bundle: Any, sources: Sequence[str] | None) -> Any:
    """The stems that `--sources` names, by default all of a bundle's priors; of a bundle with one
    prior their number, by default 2. Raises OptionError on unknown ones."""
    names = sorted(bundle.priors)
    listed = f"bundle '{bundle.name}' has {', '.join(names)}"
    if not sources:
        return list(bundle.priors) if len(names) > 1 else 2
    if len(sources) == 1 and sources[0].isdigit():
        if len(names) == 1:
            return int(sources[0])
        raise OptionError(f"--sources takes names of stems here, not {sources[0]}: {listed}.")
    for name in sources:
        if name not in names:
            raise OptionError(
                f"there is no stem '{name}': {listed}. Files stand before --sources, or behind --."
            )
    if len(set(sources)) < len(sources):
        raise OptionError(f"--sources names a stem twice: {' '.join(sources)}.")
    return list(sources)
