"""`python -m benchmarks [--quick] [--only PART] [--json FILE] [--markdown FILE] [--out DIR]`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from mlass_ppl.errors import BundleError
from mlass_ppl.evaluate.provenance import provenance

from .compare import compare
from .contenders import CONTENDERS
from .grid import cases, problem_of, tasks_of
from .limit import limits
from .measure import Plan
from .memory import peak
from .problem import Case, LeftOut, Limits
from .real import digits, shipped
from .report import HEADLINE, markdown, to_json
from .scaling import curves, scaling
from .whole import Sizes, separations, where_it_goes

Row = dict[str, Any]


def token(options: argparse.Namespace, device: str = "cpu") -> Iterator[Row]:
    """One token position, all contenders."""
    plan = Plan(seconds=0.3, least=3, most=15) if options.quick else Plan(seconds=1.0, least=5)
    for case in cases(options.quick):
        _say(f"{case}, {device}")
        try:
            problem = problem_of(case).to(device)
            found = compare(
                problem, tuple(CONTENDERS), plan, Limits(bytes=1e9 * options.memory), tasks_of(case)
            )
            yield from (row.to_json() for row in found)
        except LeftOut as reason:  # `BP` itself
            yield _skipped(f"token, {case}", reason)


def memory(options: argparse.Namespace) -> Iterator[Row]:
    """A large alphabet, in a process of its own."""
    for k in (1024,) if options.quick else (1024, 2048):
        _say(f"memory, K={k}")
        yield peak(k, 3, 64)


def separation(options: argparse.Namespace) -> Iterator[Row]:
    """Whole mixtures, and where their seconds go."""
    sizes = Sizes(mixtures=4, plan=Plan(8.0, 1, 1, 0.5)) if options.quick else Sizes()
    for n in (2,) if options.quick else (2, 3):
        _say(f"separation, n={n}")
        yield from separations(shipped(), n, sizes)
        yield from where_it_goes(shipped(), n, sizes)


def growth(options: argparse.Namespace) -> Iterator[Row]:
    """Scaling curves."""
    plan = Plan(seconds=0.2, least=3, most=5) if options.quick else Plan(seconds=1.0, most=20)
    _say("scaling")
    yield from scaling(curves(options.quick), plan, options.out)


def limit(options: argparse.Namespace, device: str = "cpu") -> Iterator[Row]:
    """The dominant kernel."""
    _say(f"limit, {device}")
    case = Case(HEADLINE["n"], HEADLINE["k"], HEADLINE["candidates"], HEADLINE["tables"])
    yield limits(problem_of(case).to(device), Plan(seconds=0.5, least=5, most=20))


def gpu(options: argparse.Namespace) -> Iterator[Row]:
    """The token table and the limit again, on a GPU, by the events of its stream."""
    if not torch.cuda.is_available():
        yield _skipped("gpu", "no CUDA device here")
        return
    device = f"cuda:{torch.cuda.current_device()}"
    yield from token(options, device)
    yield from limit(options, device)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "token": token,
    "limit": limit,
    "memory": memory,
    "separation": separation,
    "scaling": growth,
    "gpu": gpu,
}


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("pgmpy").setLevel(logging.ERROR)
    began = time.perf_counter()
    rows: list[Row] = []
    for name in (options.only,) if options.only else PARTS:
        try:
            for row in PARTS[name](options):
                rows.append(row)
                _write(options, rows, began)  # what was measured is kept if the next part is ended
        except BundleError as error:
            rows.append(_skipped(name, error))
    print(_write(options, rows, began))


def _write(options: argparse.Namespace, rows: list[Row], began: float) -> str:
    text = markdown(rows)
    if options.json is not None:
        run = {**provenance(torch.device("cpu")), "quick": options.quick, "digits": digits()[1]}
        run |= {"load": list(os.getloadavg()), "cores": os.cpu_count()}  # who else was at work
        if torch.cuda.is_available():
            run["gpu"] = torch.cuda.get_device_name()
        run |= {"libraries": _versions(), "seconds": time.perf_counter() - began}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(to_json(rows, run), encoding="utf-8")
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(text, encoding="utf-8")
    return text


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    out = {}
    for name in ("numpy", "opt-einsum", "pyro-ppl", "pgmpy", "transformers"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out


def _skipped(what: str, reason: object) -> Row:
    _say(f"{what}: not run: {reason}")
    return {"part": "skipped", "what": what, "reason": str(reason)}


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time this library beside pgmpy, Pyro, opt_einsum and naive recursions.",
    )
    parser.add_argument("--quick", action="store_true", help="few cases and repeats: a trial")
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ratios and rows as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="for pictures"
    )
    parser.add_argument(
        "--memory", type=float, default=3.0, metavar="GB", help="that one contender may take"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
