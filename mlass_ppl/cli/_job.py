"""What `mlass separate` does with every mixture: its options, put together once."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ._common import SHAPES, engine_from_name, program_from, shape_for
from ._estimate import estimate_from
from ._refine import check_name, refinement_from

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
    search: Any,
    estimate: str,
    refine: str,
    on_unseen: str,
    seed: int,
    keep: int | None = None,
) -> Job:
    """The job that the options name. keep: how many candidates are to be written of each mixture.
    Raises OptionError on impossible ones."""
    engine = engine_from_name(infer)
    if program is not None and program not in SHAPES and sources is not None:
        raise OptionError(
            "--sources and --program were both given; a program file says itself how many sources "
            "it has. Leave --sources out."
        )
    if on_unseen not in ("error", "prior"):
        raise OptionError(f"--on-unseen must be error or prior, not '{on_unseen}'.")
    if keep is not None and not 1 <= keep <= search.candidates:
        raise OptionError(
            f"--keep takes 1 to {search.candidates}, the candidates of {search!r}; got {keep}."
        )
    check_name(refine)
    count = 2 if sources is None else sources
    declared = program_from(program or shape_for(infer), count)

    from ..bundle import load
    from ..declare import compile_program
    from ..estimate import Mean
    from ._tracks import check_names, several

    graph, loaded = compile_program(declared), load(bundle)
    if program is None and infer == "auto" and loaded.lacking(graph, graph.factors):
        graph = compile_program(program_from("chain", count))  # as of an imported bundle
    check_names(graph.sources, graph.observed if several(graph) else ())
    options = {
        "infer": engine,
        "search": search,
        "estimate": estimate_from(estimate, Mean()),
        "refine": refinement_from(refine, loaded),
        "seed": seed,
        "on_unseen": on_unseen,
        "keep_candidates": keep is not None,
    }
    facts: dict[str, Any] = {"bundle": loaded.name, "program": graph.name, "engine": repr(engine)}
    facts |= {"search": repr(search), "candidates": search.candidates}
    facts |= {"estimate": repr(options["estimate"])}
    facts |= {"refined": options["refine"] is not None, "refine": repr(options["refine"])}
    facts |= {"seed": seed, "on_unseen": on_unseen}
    return Job(graph, loaded, options, facts)
