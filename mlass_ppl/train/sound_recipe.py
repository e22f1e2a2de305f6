"""The recipe of a bundle of sound, step after step; what is done is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..bundle import Bundle, load
from ..declare import Program, compile_program
from ..evidence import Feature
from ..shapes import additive, chain
from .make_refiner import Piece
from .recipe import _check, _Step
from .sound_counting import count_blocks
from .sound_parts import Made, make_mixture_codec, make_stem_codec, make_stem_prior, update
from .variants import make_varied_prior


def make_sound(
    made: Made,
    *,
    piece: Piece | None = None,
    told: Callable[[str, bool], None] | None = None,
) -> Bundle:
    """Make a bundle of sound: the codec of mixtures, a codec and a prior for each stem, a pass of
    the priors over variants where there are any, the cells of linear features, and the tables of
    chains of three and more stems.

    Each step writes the bundle; steps that its card tells of are left out, and trainings and counts
    go on from what is in `made.run`. With `resume=False` all begins anew and the bundle is
    replaced. piece: called with what begins, returns its progress callback. told: called with each
    step's name and whether it was done before.

    Raises OptionError where the bundle was made with other sizes or another seed, and the errors of
    the steps.
    """
    if not made.resume:
        (made.run / "tables" / "counted.json").unlink(missing_ok=True)
    for place, step in enumerate(_steps(made, piece)):
        there = (made.out / "bundle.json").is_file() and (made.resume or place > 0)
        facts = step.made(load(made.out)) if there else None
        if facts is not None:
            _check(made.out, step, facts)
        else:
            step.make()
        if told is not None:
            told(step.name, facts is not None)
    return load(made.out)


def _steps(made: Made, piece: Piece | None) -> list[_Step]:
    sizes, stems = made.sizes, made.stems

    def part(name: str, asked: Mapping[str, Any], look: Any, make: Any) -> _Step:
        def run() -> None:
            if piece is not None:
                piece(name)
            make()

        return _Step(name, look, {"seed": made.seed, **asked}, run)

    def counted(program: Program, mixtures: int) -> _Step:
        return _counted(made, program, mixtures, piece)

    linear = Feature(linear=True)
    stem = {"alphabet": sizes.stem.alphabet, "segments": sizes.segments}
    prior = {"windows": sizes.windows, "more": sizes.more, "width": sizes.width}
    variants = 0 if made.variants is None else len(made.variants.tracks)
    return [
        part(
            "codec of mixtures",
            {"alphabet": sizes.mixture.alphabet},
            _mixture_codec,
            partial(make_mixture_codec, made),
        ),
        *(
            part(
                f"codec of {name}",
                stem,
                partial(_facts_of, "codecs", name, "sdr_db"),
                partial(make_stem_codec, made, name),
            )
            for name in stems
        ),
        *(
            part(
                f"prior of {name}",
                prior,
                partial(_facts_of, "priors", name, "validation_nats"),
                partial(make_stem_prior, made, name),
            )
            for name in stems
        ),
        *(
            part(
                f"prior of {name}, on variants",
                {"varied": sizes.varied, "variants": variants},
                partial(_facts_of, "priors", name, "varied"),
                partial(make_varied_prior, made, name),
            )
            for name in stems
            if variants
        ),
        counted(additive(stems), sizes.signals),
        *(
            counted(chain(stems[:n], evidence=linear), sizes.mixtures)
            for n in sizes.sources
            if 2 < n <= len(stems)
        ),
    ]


def _counted(made: Made, program: Program, mixtures: int, piece: Piece | None) -> _Step:
    graph = compile_program(program)

    def look(bundle: Bundle) -> Mapping[str, Any] | None:
        return None if bundle.lacking(graph, graph.factors) else {}

    def make() -> None:
        bundle = count_blocks(
            load(made.out), graph, graph.factors, made.train, made.run / "tables",
            mixtures=mixtures, seed=made.seed, changed=made.sizes.changed,
            progress=None if piece is None else piece(f"counting {graph.name}"),
        )  # fmt: skip
        update(bundle, made.out, {})

    return _Step(f"tables of {graph.name}", look, {}, make)


def _mixture_codec(bundle: Bundle) -> Mapping[str, Any] | None:
    facts: Mapping[str, Any] = bundle.card["codec"]
    return facts if "sdr_db" in facts else None


def _facts_of(part: str, key: str, last: str, bundle: Bundle) -> Mapping[str, Any] | None:
    """What the card tells of a codec or prior that is finished."""
    facts: Mapping[str, Any] = bundle.card.get(part, {}).get(key, {})
    return facts if last in facts else None
