"""`mlass evaluate`: a bundle on the references' protocol, beside floors and ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import OptionError
from ._bytes import MemoryLimit, bytes_from
from ._common import engine_from_name, sentences, settle_threads, shape_for
from ._estimate import Name as Estimate
from ._estimate import estimate_from
from ._evaluate_run import check_files, run_evaluation
from ._evaluate_sound import ENGINES, SOUND, postfilter_from, stem_methods, stimuli_from
from ._refine import Name as Refine
from ._refine import check_name, refinement_from
from ._search import Name, Temperature, TopK, TopP, candidates_for, search_from

if TYPE_CHECKING:
    from ..data import Split
    from ..evaluate import Method, Stimuli

_ENGINES = ("auto", "tokens", "extractor")


def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            help="Name or folder of a bundle of images, for MNIST; or a data set of sound: slakh, "
            "stems (a folder a song, a file a stem) or fsdd, for --bundle."
        ),
    ],
    sources: Annotated[
        list[int] | None,
        typer.Option(help="Numbers of sources in a mixture (default: 2 3, or that of --stems)."),
    ] = None,
    infer: Annotated[
        list[str] | None,
        typer.Option(
            help="Engines of images: auto (linear features), tokens (fine alphabets), and with the "
            "published model exact, bp, bp-marginals, extractor (default: auto tokens extractor). "
            "Of sound: auto, bp, exact, truncated, loopy on linear features, tokens, tokens-exact, "
            "extractor on tokens (default: auto bp)."
        ),
    ] = None,
    num: Annotated[int, typer.Option(help="Mixtures, from the first on.")] = 1000,
    search: Name = "smc",
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Candidates of each mixture, the width of a beam; greedy has one. Default: 64, "
            "for sound 16."
        ),
    ] = None,
    temperature: Temperature = "1",
    top_k: TopK = None,
    top_p: TopP = None,
    pairing_seed: Annotated[
        int | None,
        typer.Option(help="Seed of the pairing (default: 100, as the references), of sound 0."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of sampling and of the bootstrap.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(help="Mixtures separated at once (default: 64, of sound 8).")
    ] = None,
    estimate: Estimate = "auto",
    refine: Refine = "auto",
    refine_steps: Annotated[int, typer.Option(help="Steps of a refinement by descent.")] = 500,
    prior_floor: Annotated[
        bool, typer.Option(help="Also run the priors without any likelihood, as floor:prior.")
    ] = True,
    split: Annotated[str, typer.Option(help="What to mix: test or validation.")] = "test",
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data (default: $MLASS_DATA for MNIST and fsdd)."),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle of sound (default: band; for fsdd spoken).")
    ] = None,
    stems: Annotated[
        list[str] | None,
        typer.Option(
            help="Stems (or speakers) in their order; n sources are the first n. Default: those of "
            "the bundle, first bass, drums, piano, guitar."
        ),
    ] = None,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(help="JSON files with another separator's scores of the same chunks."),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the records (default: runs/HASH); the same one resumes."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the table as JSON to this file.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables as Markdown to this file.")
    ] = None,
    memory_limit: MemoryLimit = None,
    exact_memory: Annotated[
        str | None,
        typer.Option(
            "--exact-memory",
            "--limit-memory",
            help="Lists of joint states of the exact engine alone: 4GB, 512MB, none.",
        ),
    ] = None,
) -> None:
    """Separate mixtures and print their scores beside floors, ceilings and published rows.

    Of images, mixture i is the mean of MNIST's image i and of its partners under a fixed
    permutation, scored by PSNR. Of sound it is the mean of stems that sound together, or of one
    recording of each speaker, scored by SDR and its kin, before and after a Wiener filter. Records
    of every mixture are kept in the run directory; an interrupted run goes on there.
    """
    with sentences():
        settle_threads()
        check_name(refine)
        sound = data in SOUND
        memory = bytes_from(exact_memory, "--exact-memory")
        if sound:
            methods = stem_methods(infer or ENGINES, memory, prior_floor)
        else:
            methods = _methods(infer or _ENGINES, memory, prior_floor)
        limit = bytes_from(memory_limit, "--memory-limit")
        check_files(json_file, markdown_file)
        if split not in ("test", "validation"):
            raise OptionError(f"--split must be test or validation, not '{split}'.")
        if not sound and (bundle or stems or baseline):
            raise OptionError(
                f"--bundle, --stems and --baseline are of sound: of {', '.join(SOUND)}, not of "
                f"'{data}'."
            )
        from ..estimate import Expectation, Mean
        from ..evaluate import Evaluation

        default = [len(stems)] if stems else [2, 3]
        evaluation = Evaluation(
            methods=methods,
            search=search_from(
                search, candidates_for(candidates, sound), temperature, top_k, top_p
            ),
            refine=postfilter_from(refine) if sound else None,
            estimate=estimate_from(estimate, Expectation() if sound else Mean()),
            sources=tuple(sources or default),
            num=num,
            pairing_seed=(0 if sound else 100) if pairing_seed is None else pairing_seed,
            seed=seed,
            batch_size=(8 if sound else 64) if batch_size is None else batch_size,
            split=cast("Split", split),
        )
        from dataclasses import replace

        from ..bundle import load

        loaded = load((bundle or SOUND[data]) if sound else data)
        stimuli: Stimuli
        if sound:
            stimuli = stimuli_from(data, loaded, data_root, split, stems or (), baseline or ())
        else:
            evaluation = replace(evaluation, refine=refinement_from(refine, loaded, refine_steps))
            stimuli = _images(split, data_root)
        run_evaluation(evaluation, loaded, stimuli, limit, run_dir, json_file, markdown_file)


def _methods(
    names: Sequence[str], exact_memory: float | None, prior_floor: bool
) -> tuple[Method, ...]:
    from dataclasses import replace

    from .. import shapes
    from ..evaluate import Method, PriorOnly
    from ..infer import BP

    methods = []
    for name in names:
        if name == "tokens":
            methods.append(Method(name, shapes.fine, BP()))
            continue
        engine: Any = engine_from_name(name)
        if name == "exact" and exact_memory is not None:
            engine = replace(engine, memory_limit=exact_memory)
        methods.append(Method(name, getattr(shapes, shape_for(name)), engine))
    floor = (Method("floor:prior", shapes.star, PriorOnly()),) if prior_floor else ()
    return (*floor, *methods)


def _images(split: str, data_root: Path | None) -> Stimuli:
    from ..data import mnist_images
    from ..evaluate import ImageStimuli

    return ImageStimuli(mnist_images(cast("Split", split), data_root))
