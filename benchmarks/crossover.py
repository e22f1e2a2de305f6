"""From which density on a table is contracted faster as a dense array than cell by cell:
`python -m benchmarks.crossover [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from mlass_ppl.infer.kernels import DenseKernel
from mlass_ppl.infer.kernels.cells import SeenCells, pays
from mlass_ppl.tables import Table

from .measure import Plan, times

QUESTIONS = ("upward", "observed")
"""A message to a parent over the child and the other parent, and one where the child is given."""


@dataclass(frozen=True)
class Point:
    """The fastest of several calls for `rows` candidates, milliseconds, on a table [k, k, k]: what
    else the machine does only adds to it. picked: the kernel that a plan takes."""

    k: int
    density: float
    question: str
    rows: int
    dense_ms: float
    cells_ms: float
    picked: str

    @property
    def ratio(self) -> float:
        """Above 1 the dense product is faster."""
        return self.cells_ms / self.dense_ms


def random_table(k: int, density: float, seed: int = 0) -> Table:
    """p(child | two parents) [k, k, k] whose cells are filled at random, some for each pair."""
    random = torch.Generator().manual_seed(seed)
    filled = torch.rand(k * k, k, generator=random) < density
    filled[torch.arange(k * k), torch.randint(k, (k * k,), generator=random)] = True
    keys = filled.flatten().nonzero()[:, 0]
    weight = torch.rand(len(keys), generator=random, dtype=torch.float64) + 0.1
    total = torch.zeros(k * k, dtype=torch.float64).index_add_(0, keys // k, weight)
    return Table((k, k, k), keys, weight / total[keys // k])


def measure(
    k: int, density: float, rows: int, plan: Plan, device: torch.device, dtype: torch.dtype
) -> list[Point]:
    """Both kernels on one table, once they agree. Raises ValueError where they do not."""
    table = random_table(k, density)
    kernels = {kind.__name__: kind(table, dtype, device) for kind in (DenseKernel, SeenCells)}
    random = torch.Generator().manual_seed(1)
    weights = torch.randn(2, rows, k, generator=random).mul_(2).softmax(-1).to(device, dtype)
    tokens = torch.randint(k, (rows,), generator=random).to(device)
    asked = {
        "upward": ({0: weights[0], 2: weights[1]}, {}),
        "observed": ({2: weights[1]}, {0: tokens}),
    }
    out = []
    for question, (incoming, given) in asked.items():

        def answer(name: str, incoming: dict = incoming, given: dict = given) -> Tensor:
            found = kernels[name].message(1, incoming, given)
            if device.type == "cuda":
                torch.cuda.synchronize()
            return found

        dense, cells = (answer(name) for name in kernels)
        if not torch.allclose(dense, cells, rtol=1e-4, atol=1e-7):
            raise ValueError(f"the kernels disagree on '{question}' at K = {k}, density {density}.")
        found = times({name: lambda name=name: answer(name) for name in kernels}, plan)
        best = (1e3 * min(found[name]) for name in kernels)
        picked = "cells" if pays(table) else "dense"
        out.append(Point(k, table.density, question, rows, *best, picked))
    return out


def crossover(points: Iterable[Point]) -> float:
    """The density at which both take as long, between those that were measured; infinite where the
    cells are faster at all of them, 0 where the array is."""
    low, found = 0.0, sorted(points, key=lambda point: point.density)
    before: Point | None = None
    for point in found:
        if point.ratio >= 1:
            if before is None:
                return low
            logs = [(math.log(p.density), math.log(p.ratio)) for p in (before, point)]
            (x, u), (y, v) = logs
            return math.exp(x + (y - x) * -u / (v - u))
        before = point
    return math.inf


def markdown(points: Sequence[Point]) -> str:
    """A line for each table and question, then the crossovers."""
    lines = ["| K | question | density | dense ms | cells ms | cells / dense | picked |"]
    lines.append("|---|---|---|---|---|---|---|")
    lines += [
        f"| {p.k} | {p.question} | {p.density:.3f} | {p.dense_ms:.2f} | {p.cells_ms:.2f} | "
        f"{p.ratio:.2f} | {p.picked} |"
        for p in points
    ]
    lines.append("")
    lines += [
        f"K = {k}, {question}: dense from a density of {value:.2f} on"
        for (k, question), value in crossovers(points).items()
    ]
    return "\n".join(lines)


def crossovers(points: Sequence[Point]) -> dict[tuple[int, str], float]:
    kinds = dict.fromkeys((point.k, point.question) for point in points)
    return {
        kind: crossover(point for point in points if (point.k, point.question) == kind)
        for kind in kinds
    }


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    plan = Plan(seconds=0.1, least=3, most=5) if options.quick else Plan(1.0, 5, 30)
    sizes = options.k or ((16, 64) if options.quick else (16, 32, 64, 128, 256))
    densities = (0.02, 0.2, 0.8) if options.quick else (0.01, 0.03, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0)
    points: list[Point] = []
    for k in sizes:
        for density in densities:
            print(f"K = {k}, density {density} ...", file=sys.stderr, flush=True)
            points += measure(k, density, options.rows, plan, device, dtype)
    print(markdown(points))
    if options.json is not None:
        from mlass_ppl.evaluate.provenance import provenance

        rows = [{**asdict(point), "ratio": point.ratio} for point in points]
        found = [
            {"k": k, "question": question, "density": value if math.isfinite(value) else None}
            for (k, question), value in crossovers(points).items()
        ]
        run = {**provenance(device), "quick": options.quick, "dtype": options.dtype}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"crossovers": found, "rows": rows, "run": run}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crossover",
        description="Time the dense kernel against the one over seen cells, by size and density.",
    )
    parser.add_argument("--quick", action="store_true", help="few sizes and repeats: a trial")
    parser.add_argument("--k", type=int, nargs="+", metavar="K", help="sizes of the alphabets")
    parser.add_argument("--rows", type=int, default=256, help="candidates in a call (256)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write crossovers and rows")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
