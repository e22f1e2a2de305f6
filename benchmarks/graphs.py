"""Custom mixing graphs on real digits, side by side: python -m benchmarks.graphs --help

Every program mixes the same validation digits; its tables are counted first where the bundle lacks
them. Sources that a program mixes alike are scored under their best permutation, others as named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mlass_ppl as mlass
from mlass_ppl.cli._common import program_from
from mlass_ppl.data import mnist_images
from mlass_ppl.evaluate.metrics import psnr
from mlass_ppl.evaluate.protocol import pairing

PROGRAMS = Path(__file__).parent.parent / "models" / "programs"


@dataclass(frozen=True)
class Case:
    """A program, an engine, and whether candidates are resampled."""

    program: Any
    infer: mlass.Engine
    resample: bool = False

    def search(self, candidates: int) -> mlass.Search:
        return mlass.SMC(candidates) if self.resample else mlass.Sample(candidates)

    @property
    def graph(self) -> mlass.MixingGraph:
        return mlass.compile_program(self.program)


def cases() -> list[Case]:
    stereo, fading, ring = (
        program_from(str(PROGRAMS / f"{name}.py"), 0) for name in ("stereo", "fading", "ring")
    )
    return [
        Case(mlass.chain(2), mlass.BP()),
        Case(mlass.chain(2, evidence=mlass.Soft()), mlass.BP()),
        Case(mlass.chain(2, evidence=mlass.Feature()), mlass.BP()),
        Case(stereo, mlass.Exact()),
        Case(stereo, mlass.LoopyBP()),
        Case(mlass.chain(3), mlass.BP()),
        Case(fading, mlass.BP()),
        Case(ring, mlass.Exact()),
        Case(ring, mlass.LoopyBP()),
        Case(mlass.chain(4), mlass.BP()),
        Case(mlass.balanced(4), mlass.BP()),
        Case(mlass.chain(2), mlass.BP(), resample=True),
        Case(mlass.chain(2, evidence=mlass.Feature()), mlass.BP(), resample=True),
        Case(mlass.chain(3), mlass.BP(), resample=True),
        Case(mlass.chain(3, evidence=mlass.Feature()), mlass.BP(), resample=True),
        Case(mlass.chain(4), mlass.BP(), resample=True),
        Case(mlass.balanced(4), mlass.BP(), resample=True),
    ]


def mixed(graph: mlass.MixingGraph, truths: Tensor) -> dict[str, Tensor]:
    """Observed signals {site: [M, 1, 28, 28]} of true sources [M, n, 1, 28, 28]."""
    place = {name: number for number, name in enumerate(graph.sources)}
    return {
        name: torch.stack(
            [w * truths[:, place[s]] for s, w in graph.leaf_weights(name).items()]
        ).sum(0)
        for name in graph.observed
    }


def score(graph: mlass.MixingGraph, estimates: Tensor, truths: Tensor) -> np.ndarray:
    """PSNR of each mixture, dB [M]: mean over the sources, best over those that are mixed alike."""
    weights = [graph.leaf_weights(name) for name in graph.observed]
    kinds = [tuple(round(w.get(source, 0.0), 6) for w in weights) for source in graph.sources]
    return np.stack(
        [
            psnr(estimates[:, list(order)], truths).mean(1)
            for order in permutations(range(len(kinds)))
            if [kinds[place] for place in order] == kinds
        ]
    ).max(0)


def floor(graph: mlass.MixingGraph, observed: dict[str, Tensor]) -> Tensor:
    """For each source the observed signal that it is loudest in, [M, n, 1, 28, 28]."""
    loudest = [
        max(graph.observed, key=lambda name: graph.leaf_weights(name).get(source, 0.0))
        for source in graph.sources
    ]
    return torch.stack([observed[name] for name in loudest], 1)


def run(case: Case, bundle: mlass.Bundle, digits: Tensor, options: Any) -> dict[str, Any]:
    graph = case.graph
    indices = pairing(len(digits), len(graph.sources), options.pairing_seed)[: options.num]
    truths = digits[torch.from_numpy(indices)]
    observed = mixed(graph, truths)
    out = mlass.separate(
        observed,
        graph,
        bundle,
        infer=case.infer,
        search=case.search(options.candidates),
        refine=mlass.Refine(),
        on_unseen="prior",
        batch_size=options.batch_size,
    )
    picture(
        options.out / f"{graph.name}-{type(case.infer).__name__.lower()}.png",
        {
            "observed": torch.stack(list(observed.values()), 1)[:4],
            "separated": torch.stack([out[name] for name in graph.sources], 1)[:4],
            "true": truths[:4],
        },
    )
    copied = score(graph, floor(graph, observed), truths)

    def scored(signals: Any) -> np.ndarray:
        return score(graph, torch.stack([signals[name] for name in graph.sources], 1), truths)

    raw, refined = scored(out.signals), scored(out.refined)
    return {
        "program": graph.name,
        "evidence": type(graph.evidence(graph.observed[0])).__name__,
        "engine": repr(case.infer),
        "search": repr(case.search(options.candidates)),
        "sources": len(graph.sources),
        "observed": len(graph.observed),
        "mixtures": len(truths),
        "floor_db": float(copied.mean()),
        "raw_db": float(raw.mean()),
        "refined_db": float(refined.mean()),
        "refined_std_db": float(refined.std()),
        "above_floor_db": float((refined - copied).mean()),
        "seconds_per_mixture": out.seconds / len(truths),
        "notices": list(out.notices),
    }


def picture(path: Path, groups: dict[str, Tensor]) -> None:
    """One row for each mixture, its images [M, n, 1, 28, 28] side by side in named groups."""
    from matplotlib.figure import Figure

    widths = [group.shape[1] * 28 + (group.shape[1] - 1) * 2 for group in groups.values()]
    count = len(next(iter(groups.values())))
    figure = Figure(figsize=(sum(widths) / 40, count * 0.75 + 0.3), layout="constrained")
    axes = figure.subplots(1, len(groups), width_ratios=widths, squeeze=False)[0]
    for axis, (name, group) in zip(axes, groups.items(), strict=True):
        padded = torch.nn.functional.pad(group[:, :, 0], (0, 2, 0, 2), value=1.0)
        image = padded.transpose(1, 2).flatten(0, 1).flatten(1)[:-2, :-2]
        axis.imshow(image.clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    figure.savefig(path, dpi=100)


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| program | sources | observed signals | evidence | engine | search | floor | raw "
        "| refined | above floor | s a mixture |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        engine = row["engine"].split("(")[0]
        lines.append(
            f"| `{row['program']}` | {row['sources']} | {row['observed']} | {row['evidence']} "
            f"| {engine} | {row['search'].split('(')[0]} "
            f"| {row['floor_db']:.2f} | {row['raw_db']:.2f} "
            f"| {row['refined_db']:.2f} ± {row['refined_std_db']:.2f} "
            f"| {row['above_floor_db']:+.2f} | {row['seconds_per_mixture']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs", description=__doc__)
    parser.add_argument("--num", type=int, default=64, help="mixtures of each program")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--mixtures", type=int, default=300_000, help="to count tables from")
    parser.add_argument("--pairing-seed", type=int, default=7)
    parser.add_argument("--only", default="", help="programs whose name holds this")
    parser.add_argument("--search", choices=("sample", "smc"), help="one kind of search only")
    parser.add_argument("--out", type=Path, default=Path("runs/graphs"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bundle = mlass.load("mnist")
    training, digits = mnist_images("train"), mnist_images("validation")
    rows = []
    for case in cases():
        graph = case.graph
        wanted = options.search in (None, "smc" if case.resample else "sample")
        if options.only not in graph.name or not wanted:
            continue
        began = time.perf_counter()
        bundle = bundle.count(graph, training, infer=case.infer, mixtures=options.mixtures)
        counting = time.perf_counter() - began
        rows.append({**run(case, bundle, digits, options), "counting_seconds": counting})
        print(table(rows[-1:]).splitlines()[-1], f"counted in {counting:.0f} s", flush=True)
        (options.out / "graphs.json").write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
