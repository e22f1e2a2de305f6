"""`python -m benchmarks [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import warnings
from pathlib import Path

from .compare import Row, compare, takes_part
from .contenders import CONTENDERS
from .measure import Plan
from .problem import Case
from .report import markdown, to_json


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("pgmpy").setLevel(logging.ERROR)
    names = tuple(CONTENDERS)
    if importlib.util.find_spec("pgmpy") is None:
        names = tuple(name for name in names if name != "pgmpy")
        print("pgmpy is not installed and left out: pip install -e '.[pgmpy]'", file=sys.stderr)
    plan = Plan(seconds=0.2, least=3, most=10) if options.quick else Plan()
    sizes = (8, 64) if options.quick else (8, 16, 32, 64, 256)
    rows: list[Row] = []
    left_out = []
    for n in (2, 3):
        for k in sizes:
            for candidates in (1, 64):
                case = Case(n, k, candidates)
                print(f"{case} ...", file=sys.stderr, flush=True)
                rows += compare(case, names, plan)
                left_out += [f"{name}: {case}" for name in names if not takes_part(name, case)]
    print(markdown(rows, names))
    if options.json is not None:
        from torch import device

        from mlass_ppl.evaluate.provenance import provenance

        run = {**provenance(device("cpu")), "quick": options.quick, "left_out": left_out}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(to_json(rows, run), encoding="utf-8")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time one token position: this library, pgmpy, Pyro and a naive recursion.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases and repeats: a trial")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ratios and rows as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
