"""`mlass evaluate`: a bundle on the references' protocol, beside floors and ceilings."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import OptionError
from ._bytes import MemoryLimit, bytes_from
from ._common import console, engine_from_name, say, sentences, settle_threads, shape_for
from ._estimate import Name as Estimate
from ._estimate import estimate_from
from ._refine import Name as Refine
from ._refine import check_name, refinement_from
from ._search import Name, Temperature, TopK, TopP, search_from

if TYPE_CHECKING:
    from ..data import Split
    from ..evaluate import Evaluation, Method


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle.")],
    sources: Annotated[list[int], typer.Option(help="Numbers of sources in a mixture.")] = [2, 3],  # noqa: B006
    infer: Annotated[
        list[str],
        typer.Option(
            help="Engines: auto (linear features), tokens (fine alphabets), and with the published "
            "model exact, bp, bp-marginals, extractor."
        ),
    ] = [  # noqa: B006
        "auto",
        "tokens",
        "extractor",
    ],
    num: Annotated[int, typer.Option(help="Mixtures, from the first on.")] = 1000,
    search: Name = "smc",
    candidates: Annotated[
        int, typer.Option(help="Candidates of each mixture, the width of a beam; greedy has one.")
    ] = 64,
    temperature: Temperature = "1",
    top_k: TopK = None,
    top_p: TopP = None,
    pairing_seed: Annotated[int, typer.Option(help="Seed of the pairing (references: 100).")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of sampling and of the bootstrap.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Mixtures separated at once.")] = 64,
    estimate: Estimate = "mean",
    refine: Refine = "auto",
    refine_steps: Annotated[int, typer.Option(help="Steps of a refinement by descent.")] = 500,
    prior_floor: Annotated[
        bool, typer.Option(help="Also run the priors without any likelihood, as floor:prior.")
    ] = True,
    split: Annotated[str, typer.Option(help="Images to mix: test or validation.")] = "test",
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of MNIST's idx files (default: $MLASS_DATA).")
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
    """Separate mixtures of MNIST digits and print PSNR beside floors, ceilings and published rows.

    Mixture i is the mean of image i and of its partners under a fixed permutation. Records of every
    mixture are kept in the run directory; an interrupted run goes on there.
    """
    with sentences():
        settle_threads()
        check_name(refine)
        methods = _methods(infer, bytes_from(exact_memory, "--exact-memory"), prior_floor)
        limit = bytes_from(memory_limit, "--memory-limit")
        for path in (json_file, markdown_file):
            if path is not None and path.is_dir():
                raise OptionError(f"{path} is a folder; expected the name of a file to write.")
        if split not in ("test", "validation"):
            raise OptionError(f"--split must be test or validation, not '{split}'.")
        from ..evaluate import Evaluation

        evaluation = Evaluation(
            methods=methods,
            search=search_from(search, candidates, temperature, top_k, top_p),
            estimate=estimate_from(estimate),
            sources=tuple(sources),
            num=num,
            pairing_seed=pairing_seed,
            seed=seed,
            batch_size=batch_size,
            split=cast("Split", split),
        )
        given = (refine, refine_steps)
        _run(evaluation, bundle, given, limit, data_root, run_dir, json_file, markdown_file)


def _methods(names: list[str], exact_memory: float | None, prior_floor: bool) -> tuple[Method, ...]:
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


def _run(
    evaluation: Evaluation,
    bundle: str,
    refine: tuple[str, int],
    memory_limit: float | None,
    data_root: Path | None,
    run_dir: Path | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    from dataclasses import replace
    from functools import partial

    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ..bundle import load
    from ..data import mnist_images
    from ..evaluate import Pipeline, config_hash, save
    from ..evaluate import evaluate as run

    loaded = load(bundle)
    evaluation = replace(evaluation, refine=refinement_from(refine[0], loaded, refine[1]))
    images = mnist_images(evaluation.split, data_root)
    if run_dir is None:
        run_dir = Path("runs") / config_hash(evaluation.describe(loaded, images))
    pipeline = Pipeline.default()
    separate = partial(pipeline.separate, memory_limit=memory_limit)  # which no record depends on
    bars: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} mixtures"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console(stderr=True)) as progress:

            def update(label: str, done: float, total: int) -> None:
                if label not in bars:
                    bars[label] = progress.add_task(label, total=total)
                progress.update(bars[label], completed=done)

            report = run(
                evaluation,
                loaded,
                images,
                run_dir,
                command=shlex.join(["mlass", *sys.argv[1:]]),
                progress=update,
                notice=lambda line: progress.console.print(line, style="yellow", markup=False),
                pipeline=replace(pipeline, separate=separate),
            )
    except KeyboardInterrupt:
        say(f"Interrupted. The same command goes on with what {run_dir} holds.", stderr=True)
        raise typer.Exit(130) from None
    files = (run_dir / "report.json", run_dir / "report.md"), (json_file, markdown_file)
    for json_path, markdown_path in files:
        save(report, json_file=json_path, markdown_file=markdown_path)
    out = console()
    width = out.width if out.is_terminal else max(out.width, 160)
    for part in report.tables(width):
        out.print(part, width=width)
