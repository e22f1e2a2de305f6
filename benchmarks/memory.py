"""Peak memory of one joint sample in a process of its own: `python -m benchmarks.memory`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def peak(k: int, n: int, candidates: int) -> dict[str, Any]:
    """The row of a fresh process. peak_mb: all of it, interpreter, torch and tables included."""
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, (k, n, candidates))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    row: dict[str, Any] = {"part": "memory", "k": k, "n": n, "candidates": candidates}
    if done.returncode:
        return {**row, "left_out": done.stderr.strip().rpartition("\n")[2] or "it was ended"}
    return {**row, **json.loads(done.stdout)}


def main() -> None:
    from .measure import process_peak_mb, seconds_of
    from .ours import messages
    from .problem import Case, Limits
    from .synthetic import made

    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    for name in ("k", "n", "candidates"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    problem = made(Case(options.n, options.k, options.candidates))
    before = process_peak_mb()
    contender = messages(problem, Limits(bytes=float("inf")))
    first = seconds_of(contender.sample, problem.device)
    ms = 1e3 * seconds_of(contender.sample, problem.device)
    cells = sum(len(table.keys) for table in {id(t): t for t in problem.chained}.values())
    found = {"ms": ms, "first_ms": 1e3 * first, "cells": cells, "tables_mb": before}
    print(json.dumps({**found, "peak_mb": process_peak_mb()}))


if __name__ == "__main__":
    main()
