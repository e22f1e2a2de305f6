"""What `mlass demo` writes: grids, graphs, candidates, results.json and report.html."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .demo import DemoConfig, SizeResult

COLUMNS = ("digits", "method", "raw", "refined", "gain", "seconds")

_ABOUT = {
    "auto": "Auto on additive(n), the default: the mixture's pixels, patch by patch, as a linear "
    "feature of all digits at once",
    "exact": "Exact: the whole posterior of all digits at once (one table for the mixture)",
    "bp": "BP: the same by messages along a chain of partial mixtures",
    "extractor": "Extractor: each digit on its own, averaged over the others",
}


def table_rows(size: SizeResult) -> list[tuple[str, ...]]:
    """The result as cells under `COLUMNS`: floor, engines, and what the codec lets tokens reach."""
    n = str(size.sources)
    rows: list[tuple[str, ...]] = [(n, "floor:mixture", _spread(size.floor), "", "", "")]
    for method in size.methods:
        gain = f"{(method.refined - size.floor).mean():+.2f}"
        refined, seconds = _spread(method.refined), f"{method.seconds:.1f}"
        rows.append((n, method.engine, _spread(method.raw), refined, gain, seconds))
    rows.append((n, "ceiling:tokens", _spread(size.ceiling), "", "", ""))
    return rows


def write_all(
    out: Path,
    results: list[SizeResult],
    config: DemoConfig,
    facts: dict[str, Any],
    seconds: float,
) -> Path:
    """Write everything below `out` and return the path of the report."""
    from ..draw import ReportSection, ReportTable, write_report

    out.mkdir(parents=True, exist_ok=True)
    cells = tuple(row for size in results for row in table_rows(size))
    table = ReportTable(COLUMNS, cells, "PSNR in dB, mean ± standard deviation over mixtures")
    sections = [
        ReportSection(
            "Scores",
            "floor:mixture copies the mixture to every output; gain is what refined estimates "
            "add to it. ceiling:tokens codes the true digits as tokens and back. Estimates carry "
            "no labels, so each mixture is scored under the best permutation.",
            (table,),
        )
    ]
    for size in results:
        sections.append(_section(out, size))
    run = _facts(config, facts, seconds)
    _write_json(out / "results.json", results, run)
    return write_report(
        out / "report.html",
        "Handwritten digits taken apart",
        "Each mixture is the mean of two or three digits. An autoregressive prior over the tokens "
        "of a digit and counted tables of how tokens mix are combined by four inference engines.",
        sections,
        run,
    )


def _section(out: Path, size: SizeResult) -> Any:
    from ..draw import (
        ReportPicture,
        ReportRow,
        ReportSection,
        draw_candidates,
        draw_estimates,
        draw_graph,
    )
    from .demo import stacked

    n = size.sources

    def picture(figure: Any, name: str, text: str) -> ReportPicture:
        return ReportPicture(figure.write(out / f"{n}_digits{name}.png").read_bytes(), text)

    grids = []
    for name, stage, text in (
        ("", "refined", "refined"),
        ("_raw", "signals", "as decoded from tokens"),
    ):
        rows = {m.engine: stacked(getattr(m.separation, stage)) for m in size.methods}
        text = f"Truth, mixture, and the estimates of each engine, {text}, with their PSNR."
        grids.append(picture(draw_estimates(size.mixtures, rows, size.truths), name, text))
    graphs = [
        picture(
            draw_graph(method.separation.graph),
            f"_{method.engine}_graph",
            f"{_ABOUT[method.engine]}. Program {method.separation.graph.name}.",
        )
        for method in size.methods
    ]
    hardest = int(size.floor.argmin())  # the digits differ most there
    candidates = [
        picture(
            draw_candidates(method.separation, hardest),
            f"_{method.engine}_candidates",
            f"Candidates of {method.engine} for mixture {hardest + 1}; below each its squared "
            "error against the mixture, times 1,000. The first is chosen, and then refined.",
        )
        for method in size.methods
    ]
    left_out = " ".join(f"{engine} is left out: {why}" for engine, why in size.missing.items())
    row = ReportRow(tuple(graphs))
    return ReportSection(
        f"Mixtures of {n} digits", left_out, (grids[0], row, grids[1], *candidates)
    )


def _facts(config: DemoConfig, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    import torch

    from .._version import __version__
    from ._common import cores

    return {
        **facts,
        "mixtures of each size": config.num,
        "candidates": config.candidates,
        "seed": config.seed,
        "seconds": round(seconds, 1),
        "versions": f"mlass_ppl {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "cores, threads": f"{cores()}, {torch.get_num_threads()}",
    }


def _write_json(path: Path, results: list[SizeResult], run: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = []
    for size in results:
        n = size.sources
        rows.append({"sources": n, "row": "floor:mixture", "raw": size.floor.tolist()})
        rows.append({"sources": n, "row": "ceiling:tokens", "raw": size.ceiling.tolist()})
        for method in size.methods:
            rows.append(
                {
                    "sources": n,
                    "row": method.engine,
                    "raw": method.raw.tolist(),
                    "refined": method.refined.tolist(),
                    "seconds": method.seconds,
                }
            )
    text = json.dumps({"psnr_db": rows, "run": run}, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ± {values.std():.2f}"
