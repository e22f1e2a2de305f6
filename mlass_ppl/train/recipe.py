"""The whole recipe of the digit bundle, step after step; what is done is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..bundle import Bundle, load
from ..codecs import ImageVQVAEConfig
from ..declare import Program, compile_program
from ..errors import OptionError
from ..infer import BP, Auto, Engine, Exact, Extractor
from ..refine import RefinerConfig
from ..search import SMC
from ..shapes import additive, chain, fine, joint, star
from .alphabets import FINE, MIDDLE, make_alphabets
from .continue_digits import continue_digits
from .digits import count_into, make_codec, make_prior
from .make_refiner import Piece, make_refiner

_EXTRACTOR = 100_000
"""The most mixtures counted for p(m | z), which has few cells."""

_JOINT = 200_000
"""The most mixtures counted for p(m | z^1, z^2, z^3), whose cells grow with every mixture."""

_RUNS = ("codec", "prior", "continued", "refiner")
"""Folders of checkpoints inside `run`."""


@dataclass(frozen=True)
class Sizes:
    """How much `make_digits` takes of everything; by default as the commands of each step do.

    image: of the codec. codec, prior, continued, refiner: epochs of each. tables, fine_tables:
    mixtures to count, in the codec's own alphabet and in the mixtures'. middle, fine, alphabets:
    alphabets of the mixtures' codecs, and the mixtures that they are fitted to. sources: numbers of
    sources of the fine tables and of the refiner. separated, held, candidates, width: of the
    refiner, as `make_refiner` takes them.
    """

    image: ImageVQVAEConfig = ImageVQVAEConfig()
    codec: int = 8
    prior: int = 10
    continued: int = 16
    tables: int = 1_000_000
    middle: int = MIDDLE
    fine: int = FINE
    alphabets: int = 8_000
    fine_tables: int = 300_000
    sources: tuple[int, ...] = (2, 3)
    separated: int = 3_000
    held: int = 128
    candidates: int = 32
    refiner: int = 20
    width: int = 48

    @property
    def pieces(self) -> int:
        """How many pieces of work tell their progress, if none was done before."""
        return 6 + 3 * len(self.sources)


QUICK = Sizes(
    codec=1, prior=1, continued=1, tables=2_000, alphabets=1_000, fine_tables=2_000, sources=(2,),
    separated=96, held=32, candidates=4, refiner=1, width=16,
)  # fmt: skip
"""A trial of everything: one epoch each and few counts."""


class _Step(NamedTuple):
    """made: what the bundle tells of how it was made, None where that is still to be done. asked:
    what the recipe asks for, by the same names."""

    name: str
    made: Callable[[Bundle], Mapping[str, Any] | None]
    asked: Mapping[str, Any]
    make: Callable[[], object]


def make_digits(
    out: Path,
    data_root: Path | None = None,
    *,
    sizes: Sizes = Sizes(),
    seed: int = 0,
    device: str = "auto",
    run: Path = Path("runs/train-mnist"),
    resume: bool = True,
    piece: Piece | None = None,
    told: Callable[[str, bool], None] | None = None,
) -> Bundle:
    """Make the digit bundle in `out`: codec, prior, the published models' tables, classes and more
    epochs for the prior, codecs and tables of mixtures, refiner.

    Each step writes the bundle. With `resume` the steps that its card tells of are left out, and a
    training goes on from its checkpoints in `run`; without, all begins anew and the bundle in `out`
    is replaced. piece: called with what begins, returns its progress callback. told: called with
    each step's name and whether it was done before.

    Raises OptionError where the bundle in `out` was made with other sizes or another seed, and the
    errors of the steps.
    """
    options: dict[str, Any] = {"seed": seed, "device": device, "resume": resume}
    if not resume:
        for folder in _RUNS:
            (run / folder / "last.ckpt").unlink(missing_ok=True)
    for place, step in enumerate(_steps(out, data_root, sizes, run, options, piece)):
        there = (out / "bundle.json").is_file() and (resume or place > 0)
        made = step.made(load(out)) if there else None
        if made is not None:
            _check(out, step, made)
        else:
            step.make()
        if told is not None:
            told(step.name, made is not None)
    return load(out)


def _steps(
    out: Path,
    data_root: Path | None,
    sizes: Sizes,
    run: Path,
    options: Mapping[str, Any],
    piece: Piece | None,
) -> list[_Step]:
    seed = options["seed"]

    def counted(program: Program, engine: Engine, mixtures: int) -> _Step:
        graph = compile_program(program)

        def made(bundle: Bundle) -> Mapping[str, Any] | None:
            return None if bundle.lacking(graph, engine.factors(graph)) else {}

        def make() -> None:
            report = None if piece is None else piece(f"counting {graph.name}")
            count_into(out, graph, engine, data_root, mixtures=mixtures, seed=seed, progress=report)

        return _Step(f"tables of {graph.name}", made, {}, make)

    def trained(name: str, epochs: int, make: Callable[..., object], **more: Any) -> Any:
        given = {"epochs": epochs, "run": run / name, **options, **more}
        return {"epochs": epochs, "seed": seed}, partial(make, out, data_root=data_root, **given)

    config = RefinerConfig(width=sizes.width)
    programs = [additive(n) for n in sizes.sources]
    refiner = partial(
        make_refiner, programs=programs, mixtures=sizes.separated, held=sizes.held,
        search=SMC(sizes.candidates), config=config, piece=piece,
    )  # fmt: skip
    alphabets = {"middle": sizes.middle, "fine": sizes.fine}
    asked = {**alphabets, "mixtures": sizes.alphabets, "seed": seed}
    return [
        _Step("codec", _codec, *trained("codec", sizes.codec, make_codec, config=sizes.image)),
        _Step("prior", _prior, *trained("prior", sizes.prior, make_prior)),
        *(counted(chain(n), BP(), sizes.tables) for n in (2, 3)),
        *(counted(star(n), Extractor(), min(sizes.tables, _EXTRACTOR)) for n in (2, 3)),
        counted(joint(3), Exact(), min(sizes.tables, _JOINT)),
        _Step(
            "continued prior", _continued, *trained("continued", sizes.continued, continue_digits)
        ),
        _Step(
            "alphabets", _alphabets, asked,
            partial(
                make_alphabets, out, data_root, mixtures=sizes.alphabets, seed=seed, **alphabets
            ),
        ),
        counted(additive(2), Auto(), sizes.fine_tables),
        *(counted(fine(n), BP(), sizes.fine_tables) for n in sizes.sources),
        _Step("refiner", _refiner, *trained("refiner", sizes.refiner, refiner)),
    ]  # fmt: skip


def _codec(bundle: Bundle) -> Mapping[str, Any] | None:
    facts: Mapping[str, Any] = bundle.card["codec"]
    return facts if "psnr_db" in facts else None


def _prior(bundle: Bundle) -> Mapping[str, Any] | None:
    facts: Mapping[str, Any] = bundle.card.get("priors", {}).get("digit", {})
    return facts if "validation_nats" in facts else None


def _continued(bundle: Bundle) -> Mapping[str, Any] | None:
    found = bundle.card["priors"]["digit"].get("continued", [])
    return dict(found[0]) if found else None


def _alphabets(bundle: Bundle) -> Mapping[str, Any] | None:
    facts = bundle.card.get("codecs", {})
    if not all("psnr_db" in facts.get(key, {}) for key in ("middle", "fine")):
        return None
    return {**facts["fine"], **{key: facts[key]["alphabet"] for key in ("middle", "fine")}}


def _refiner(bundle: Bundle) -> Mapping[str, Any] | None:
    facts: Mapping[str, Any] = bundle.card.get("refiner", {})
    return facts if "validation_db" in facts else None


def _check(out: Path, step: _Step, made: Mapping[str, Any]) -> None:
    other = [
        f"{name} {made[name]!r} instead of {value!r}"
        for name, value in step.asked.items()
        if made.get(name, value) != value
    ]
    if other:
        raise OptionError(
            f"the bundle in {out} has {step.name} made with {', '.join(other)}. Give another "
            "folder (--out), or begin anew and replace it (--no-resume)."
        )
