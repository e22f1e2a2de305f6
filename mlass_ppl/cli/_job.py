"""What `mlass separate` does with every mixture: its options, put together once."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ._common import SHAPES, engine_from_name, program_from, shape_for

if TYPE_CHECKING:
    from ..data.images import GreyImage

Images = dict[str, "GreyImage"]
"""The images of one mixture by observed site; one image under "" where one signal serves all."""


@dataclass(frozen=True)
class Job:
    graph: Any
    bundle: Any
    options: dict[str, Any]
    facts: dict[str, Any]

    def __call__(self, mixtures: list[Images], progress: Any) -> Any:
        import torch

        from ..separate import separate as run

        sites = list(mixtures[0])
        stacked = {
            site: torch.stack([images[site].pixels for images in mixtures]) for site in sites
        }
        return run(
            stacked[""] if sites == [""] else stacked,
            self.graph,
            self.bundle,
            streams=[_stream(images) for images in mixtures],
            progress=progress,
            **self.options,
        )


def _stream(images: Images) -> int:
    """A stream of its own for each picture: its result does not depend on its company."""
    number = 0
    for image in images.values():
        number = zlib.crc32(image.pixels.numpy().tobytes(), number)
    return number


def make_job(
    bundle: str,
    sources: int | None,
    program: str | None,
    infer: str,
    candidates: int,
    refine: bool,
    on_unseen: str,
    seed: int,
) -> Job:
    """The job that the options name. Raises OptionError on impossible ones."""
    engine = engine_from_name(infer)
    if program is not None and program not in SHAPES and sources is not None:
        raise OptionError(
            "--sources and --program were both given; a program file says itself how many sources "
            "it has. Leave --sources out."
        )
    if on_unseen not in ("error", "prior"):
        raise OptionError(f"--on-unseen must be error or prior, not '{on_unseen}'.")
    declared = program_from(program or shape_for(infer), 2 if sources is None else sources)

    from ..bundle import load
    from ..declare import compile_program
    from ..refine import Refine
    from ..search import Sample
    from ._tracks import check_names, several

    graph = compile_program(declared)
    check_names(graph.sources, graph.observed if several(graph) else ())
    search = Sample(candidates)
    loaded = load(bundle)
    options = {
        "infer": engine,
        "search": search,
        "refine": Refine() if refine else None,
        "seed": seed,
        "on_unseen": on_unseen,
    }
    facts: dict[str, Any] = {"bundle": loaded.name, "program": graph.name, "engine": repr(engine)}
    facts |= {"candidates": candidates, "refined": refine, "seed": seed, "on_unseen": on_unseen}
    return Job(graph, loaded, options, facts)
