"""`mlass demo`: mixtures of two and three digits, four engines, pictures, a table, a report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ..errors import OptionError, PlanError
from ._common import (
    console,
    engine_from_name,
    program_from,
    progress_bar,
    say,
    sentences,
    settle_threads,
)
from ._refine import refinement_from

if TYPE_CHECKING:
    from torch import Tensor

_ENGINES = (("auto", "additive"), ("exact", "joint"), ("bp", "chain"), ("extractor", "star"))
_SOURCES = (2, 3)


@dataclass(frozen=True)
class DemoConfig:
    """What the demo runs: `num` mixtures of two and of three digits, with four engines."""

    num: int = 8
    candidates: int = 64
    refine_steps: int = 500
    seed: int = 0


@dataclass(frozen=True)
class MethodResult:
    """One engine on the mixtures of one size. raw, refined: PSNR in dB of each mixture."""

    engine: str
    separation: Any
    raw: np.ndarray
    refined: np.ndarray
    seconds: float


@dataclass(frozen=True)
class SizeResult:
    """All that was found for mixtures of `sources` digits; `missing`: engines left out, and why."""

    sources: int
    truths: Tensor
    mixtures: Tensor
    floor: np.ndarray
    ceiling: np.ndarray
    methods: tuple[MethodResult, ...]
    missing: dict[str, str]


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out/demo"),
    digits: Annotated[
        str,
        typer.Option(help="bundled, mnist, or auto: MNIST where a local copy is found."),
    ] = "auto",
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of MNIST's idx files (default: $MLASS_DATA).")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch MNIST to --data-root with torchvision.")
    ] = False,
    num: Annotated[int, typer.Option(help="Mixtures of each size.")] = 8,
    candidates: Annotated[int, typer.Option(help="Candidates drawn for each mixture.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the choice of digits and of sampling.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer mixtures, candidates and refinement steps.")
    ] = False,
) -> None:
    """Separate mixtures of two and three handwritten digits with four engines.

    Writes pictures and report.html to --out and prints PSNR beside the floor. Offline: the digits
    are scikit-learn's bundled ones, or MNIST's test images where a local copy is found.
    """
    with sentences():
        settle_threads()
        config = DemoConfig(num, candidates, seed=seed)
        if quick:
            config = DemoConfig(min(num, 3), min(candidates, 16), 100, seed)
        if num < 1 or candidates < 1:
            raise OptionError(
                f"--num and --candidates must be 1 or more, not {num} and {candidates}."
            )
        if out.exists() and not out.is_dir():
            raise OptionError(f"--out '{out}' is a file; expected a folder.")
        from ..bundle import load

        begun = time.perf_counter()
        bundle = load("mnist")
        images, origin = load_digits(digits, data_root, download)
        say(f"Digits: {origin}")
        results = run(config, bundle, images)
        _print(results)
        from ._demo_report import write_all

        facts = {"digits": origin, "bundle": f"{bundle.name} ({bundle.path})"}
        facts["refinement"] = repr(refinement_from("auto", bundle, config.refine_steps))
        report = write_all(out, results, config, facts, time.perf_counter() - begun)
        say(f"{time.perf_counter() - begun:.0f} seconds. Pictures and report: {report}")


def load_digits(digits: str, root: Path | None, download: bool) -> tuple[Tensor, str]:
    """Images float32 [N, 1, 28, 28] and one line on where they come from.

    `digits` is "bundled", "mnist" or "auto". Raises OptionError on another name, DataError when
    MNIST is asked for and not found.
    """
    if digits not in ("auto", "bundled", "mnist"):
        raise OptionError(f"--digits must be auto, bundled or mnist, not '{digits}'.")
    from ..data import download_mnist, find_data, mnist_images
    from ..data.digits import bundled_digits

    if download:
        root = download_mnist(root or Path("data"))
    wanted = digits == "mnist" or root is not None
    if wanted and digits == "bundled":
        raise OptionError("--digits bundled needs no --data-root and no --download; drop them.")
    if wanted or (digits == "auto" and find_data("mnist") is not None):
        return mnist_images("test", root), "MNIST test images"
    images, _ = bundled_digits()
    return images, "scikit-learn's bundled handwritten digits, redrawn at 28x28"


def run(config: DemoConfig, bundle: Any, images: Tensor) -> list[SizeResult]:
    """Separate the mixtures, with a progress bar. Raises OptionError on too few images."""
    if config.num * max(_SOURCES) > len(images):
        raise OptionError(
            f"--num {config.num} needs {config.num * max(_SOURCES):,} digits; there are "
            f"{len(images):,}."
        )
    random = np.random.default_rng(config.seed)
    with progress_bar(len(_SOURCES) * len(_ENGINES)) as piece:
        return [_size(config, bundle, images, random, n, piece) for n in _SOURCES]


def _size(
    config: DemoConfig, bundle: Any, images: Tensor, random: np.random.Generator, n: int, piece: Any
) -> SizeResult:
    from ..evaluate.metrics import score

    chosen = random.permutation(len(images))[: config.num * n]
    truths = images[chosen].unflatten(0, (config.num, n))
    mixtures = truths.mean(1)
    flat = truths.flatten(0, 1)
    coded = bundle.codec.decode(bundle.codec.encode(flat)).cpu().view_as(truths)
    methods, missing = [], {}
    for engine, shape in _ENGINES:
        report = piece(f"{n} digits, {engine}")
        try:
            methods.append(_method(config, bundle, engine, shape, truths, report))
        except PlanError as error:
            missing[engine] = str(error)
    return SizeResult(
        sources=n,
        truths=truths,
        mixtures=mixtures,
        floor=score(mixtures[:, None].expand_as(truths), truths).mean,
        ceiling=score(coded, truths).mean,
        methods=tuple(methods),
        missing=missing,
    )


def _method(
    config: DemoConfig, bundle: Any, engine: str, shape: str, truths: Tensor, report: Any
) -> MethodResult:
    from ..evaluate.metrics import score
    from ..search import SMC
    from ..separate import separate

    found = separate(
        truths.mean(1),
        program_from(shape, truths.shape[1]),
        bundle,
        infer=engine_from_name(engine),
        search=SMC(config.candidates),
        refine=refinement_from("auto", bundle, config.refine_steps),
        seed=config.seed,
        keep_candidates=True,
        on_unseen="prior",
        progress=report,
    )
    return MethodResult(
        engine=engine,
        separation=found,
        raw=score(stacked(found.signals), truths).mean,
        refined=score(stacked(found.refined or {}), truths).mean,
        seconds=found.seconds,
    )


def stacked(signals: Mapping[str, Tensor]) -> Tensor:
    """{source: [M, 1, H, W]} as [M, n, 1, H, W] on the CPU."""
    import torch

    return torch.stack([signal.detach().cpu() for signal in signals.values()], 1)


def _print(results: list[SizeResult]) -> None:
    from rich.table import Table

    from ._demo_report import COLUMNS, table_rows

    table = Table(title="PSNR in dB, best permutation, mean ± std over mixtures")
    for place, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if place < 2 else "right")
    for size in results:
        for row in table_rows(size):
            table.add_row(*row)
        table.add_section()
    console().print(table)
    for size in results:
        for engine, reason in size.missing.items():
            say(f"{engine} on {size.sources} digits is left out: {reason}", style="yellow")
