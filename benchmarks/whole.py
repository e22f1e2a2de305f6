"""A whole separation of real digits against a naive one: the same algorithm, and equal quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

import mlass_ppl as mlass
from mlass_ppl.evaluate.metrics import score

from .measure import Plan, times
from .naive_separation import NaiveSeparation
from .real import digits, truths
from .shares import shares

CANDIDATES = 64


@dataclass(frozen=True)
class Sizes:
    """mixtures: that are timed, and whose PSNR is compared. plan: rounds of each contender.
    most: candidates of ours at which the search for equal quality ends."""

    mixtures: int = 16
    plan: Plan = Plan(seconds=20.0, least=1, most=3, slow=1.0)
    most: int = 64


Separate = Callable[[Tensor], Tensor]


def separations(
    bundle: mlass.Bundle, n: int, sizes: Sizes, originals: Tensor | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of mixtures of n sources: mixtures a second and mean raw PSNR of the naive separation,
    of `BP` with the same search, of the defaults, and of the fewest candidates of the defaults, and
    of tokens alone, whose PSNR is not below the naive one's. originals: sources [M, n, *signal], by
    default digits.
    """
    known = truths(n, sizes.mixtures) if originals is None else originals
    mixtures = known.mean(1)
    naive = NaiveSeparation(bundle, n, CANDIDATES)
    same = _ours(bundle, mlass.chain(n), mlass.BP(), mlass.Sample(CANDIDATES), mlass.Nearest())
    calls: dict[str, Separate] = {"naive": naive, "same algorithm": same}
    quality = {name: _psnr(call(mixtures), known) for name, call in calls.items()}
    short = []
    for kind, make in (("defaults", defaults), ("tokens", tokens)):
        count, found = 0, -math.inf
        while found < quality["naive"] and count < sizes.most:
            count = max(1, 2 * count)
            trial = make(bundle, n, count)
            found = _psnr(trial(mixtures), known)
        if found < quality["naive"]:
            short.append(kind)
            continue
        name = f"equal PSNR, {kind}, {count} candidates"
        calls[name], quality[name] = trial, found
    calls["defaults"] = defaults(bundle, n, CANDIDATES)
    quality["defaults"] = _psnr(calls["defaults"](mixtures), known)
    timed = {name: (lambda call=call: call(mixtures)) for name, call in calls.items()}
    seconds = {name: median(values) for name, values in times(timed, sizes.plan).items()}
    origin = digits()[1] if originals is None else "given"
    for name, took in seconds.items():
        yield {
            "part": "separation",
            "n": n,
            "what": name,
            "mixtures": len(mixtures),
            "signals": origin,
            "mixtures_per_second": len(mixtures) / took,
            "psnr_db": quality[name],
            "speedup": seconds["naive"] / took,
        }
    for kind in short:
        reason = f"up to {sizes.most} candidates stay below the naive PSNR"
        yield {"part": "separation", "n": n, "what": f"equal PSNR, {kind}", "left_out": reason}


def where_it_goes(
    bundle: mlass.Bundle, n: int, sizes: Sizes, originals: Tensor | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of seconds a mixture in the priors, in engine and search, and elsewhere."""
    mixtures = (truths(n, sizes.mixtures) if originals is None else originals).mean(1)
    kinds = {
        "same algorithm": (mlass.chain(n), mlass.BP(), mlass.Sample(CANDIDATES)),
        "defaults": (mlass.additive(n), mlass.Auto(), mlass.SMC(CANDIDATES)),
    }
    for what, (program, infer, search) in kinds.items():
        found = shares(mixtures, program, bundle, infer, search, on_unseen="prior")
        row = {"part": "shares", "n": n, "what": what, "mixtures": len(mixtures)}
        yield row | {f"{part}_s": took / len(mixtures) for part, took in found.items()}


def defaults(bundle: mlass.Bundle, n: int, candidates: int) -> Separate:
    """What `mlass separate` does, before refinement."""
    return _ours(bundle, mlass.additive(n), mlass.Auto(), mlass.SMC(candidates), mlass.Mean())


def tokens(bundle: mlass.Bundle, n: int, candidates: int) -> Separate:
    """The published model with larger alphabets for mixtures: `fine(n)`."""
    return _ours(bundle, mlass.fine(n), mlass.BP(), mlass.SMC(candidates), mlass.Mean())


def _ours(bundle: mlass.Bundle, program: Any, infer: Any, search: Any, estimate: Any) -> Separate:
    def call(mixtures: Tensor) -> Tensor:
        found = mlass.separate(
            mixtures, program, bundle, infer=infer, search=search, estimate=estimate,
            on_unseen="prior",
        )  # fmt: skip
        return torch.stack([found.signals[name] for name in found.graph.sources], 1)

    return call


def _psnr(estimates: Tensor, known: Tensor) -> float:
    """Mean PSNR, dB, each mixture under the best order of its sources."""
    return float(score(estimates, known).mean.mean())
