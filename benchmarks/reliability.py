"""What is lost when a process is killed or a file is damaged: python -m benchmarks.reliability -h

Each piece of work runs in processes of its own, which are ended by SIGKILL at random times and
begun again until one comes to its end. What came out then is compared, to the bit, with what an
undisturbed process made.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mlass_ppl.bundle import load
from mlass_ppl.errors import BundleError

from .reliability_jobs import Job, image_bundle, jobs

_ROUNDS = 8
"""Processes that are begun for each kill that is asked for, at most: one may end before its kill
comes."""


@dataclass
class Row:
    """One line of the table. injected: faults. compared: what came out at the end, once or more
    often. lost: of those, what differs from what comes out without a fault."""

    fault: str
    injected: int = 0
    compared: int = 0
    lost: int = 0
    reason: str = ""


def kill(job: Job, times: int, folder: Path, seed: int = 0) -> Row:
    """End the job's process `times` times, each time begin another, and compare what came out."""
    random, row = np.random.default_rng(seed), Row(f"kill -9: {job.name}")
    whole = folder / "whole"
    whole.mkdir(parents=True)
    job.make(whole)
    began = time.monotonic()
    if _ended(job.work, whole, None):
        raise RuntimeError(f"{job.name} was ended by a signal of its own")
    lasts = time.monotonic() - began
    expected = job.found(whole)
    for number in range(_ROUNDS * times):
        if row.injected >= times:
            break
        here = folder / str(number)
        here.mkdir()
        job.make(here)
        try:
            while _ended(
                job.work, here, random.uniform(0, lasts) if row.injected < times else None
            ):
                row.injected += 1
                job.sound(here)
            same = job.found(here) == expected
            reason = "" if same else "another result"
        except (AssertionError, BundleError, OSError, RuntimeError) as error:
            same, reason = False, f"{type(error).__name__}: {error}"
        row.compared += 1
        row.lost += not same
        row.reason = row.reason or reason
        print(row, file=sys.stderr, flush=True)  # a long run tells how far it is
    return row


def _ended(work: Callable[[Path], None], folder: Path, after: float | None) -> bool:
    """Run in a process of its own; whether it was ended by SIGKILL, `after` seconds. Raises
    RuntimeError, with what it said, where it failed."""
    log = folder / "log.txt"
    child = os.fork()
    if not child:
        _run(work, folder, log)
    end = None if after is None else time.monotonic() + after
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"it failed: {log.read_text(errors='replace')[-600:]}")
    return False


def _run(work: Callable[[Path], None], folder: Path, log: Path) -> None:
    """The life of a child: never returns."""
    code = 1
    try:
        handle = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        work(folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def damage(times: int, folder: Path, seed: int = 0) -> Iterator[Row]:
    """Change one file of a bundle and load it: is the change noticed, and is the file named?"""
    random, path = np.random.default_rng(seed), image_bundle().save(folder / "b")
    image_bundle(1).save(folder / "other")
    names = sorted(file.name for file in path.iterdir())
    contents = {name: (path / name).read_bytes() for name in names}
    card = load(path).card

    def cut(name: str) -> dict[str, bytes]:
        return {name: contents[name][: random.integers(len(contents[name]))]}

    def flipped(name: str) -> dict[str, bytes]:
        changed = bytearray(contents[name])
        changed[random.integers(len(changed))] ^= 1 << int(random.integers(8))
        return {name: bytes(changed)}

    def swapped(name: str) -> dict[str, bytes]:
        other = str(random.choice([one for one in names if one != name]))
        return {name: contents[other], other: contents[name]}

    def foreign(name: str) -> dict[str, bytes]:
        return {name: (folder / "other" / name).read_bytes()}

    changes = {"cut": cut, "one bit flipped": flipped, "two swapped": swapped}
    for what, change in {**changes, "of another bundle": foreign}.items():
        row = Row(f"files of a bundle: {what}")
        choices = [n for n in names if n != "bundle.json" and (folder / "other" / n).is_file()]
        for _ in range(times):
            name = str(random.choice(choices if change is foreign else names))
            for file, content in change(name).items():
                (path / file).write_bytes(content)
            row.injected += 1
            row.compared += 1
            try:
                if load(path).card != card:  # else nothing that it tells was changed
                    row.lost, row.reason = row.lost + 1, f"{name} was read"
            except BundleError as error:
                if str(path) not in str(error):
                    row.lost, row.reason = row.lost + 1, f"not named: {error}"
            for file, content in contents.items():
                (path / file).write_bytes(content)
        yield row


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| fault | injected | compared | lost |", "|---|---:|---:|---:|"]
    lines += [f"| {row.fault} | {row.injected} | {row.compared} | {row.lost} |" for row in rows]
    lines += [f"\n{row.fault}: {row.reason}" for row in rows if row.lost]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.part == "kill":
            for name, job in jobs().items():
                if options.only in (None, name):
                    print(name, file=sys.stderr, flush=True)
                    rows.append(kill(job, options.times, Path(scratch) / name, options.seed))
        else:
            rows += damage(options.times, Path(scratch), options.seed)
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return int(any(row.lost for row in rows))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description="Injects faults and counts what was lost.",
    )
    parser.add_argument("part", choices=("kill", "damage"), help="processes, or files of a bundle")
    parser.add_argument("--times", type=int, default=20, metavar="N", help="faults of each kind")
    parser.add_argument("--only", choices=jobs(), metavar="JOB", help=f"one of {', '.join(jobs())}")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the times and places")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
