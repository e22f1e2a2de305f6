"""One case: every contender on the same problem, agreement first and then the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .contenders import BASE, CONTENDERS
from .measure import Call, Plan, extra_mb, median_ms, times
from .problem import Contender, LeftOut, Limits, Problem

TASKS = ("sample", "marginals")
TOLERANCE = 1e-4
"""Of log evidence (nats, relative above 1) and of marginals, computed in float32."""


class Disagreement(AssertionError):
    """Two contenders give different answers to one question."""


@dataclass(frozen=True)
class Row:
    """One contender on one task of one case.

    median_ms: of one call for all candidates, scaled up where it was `asked` for fewer. ratio: to
    the time of `BASE`. peak_mb: extra memory at the peak of the call that was made. left_out: why
    there are no numbers.
    """

    case: Any
    task: str
    contender: str
    device: str = "cpu"
    median_ms: float | None = None
    asked: int = 0
    repeats: int = 0
    ratio: float | None = None
    peak_mb: float | None = None
    left_out: str | None = None

    def to_json(self) -> dict[str, Any]:
        own = asdict(self)
        return {"part": "token", **own.pop("case"), **own}


def compare(
    problem: Problem,
    names: Sequence[str],
    plan: Plan,
    limits: Limits | None = None,
    tasks: Sequence[str] = TASKS,
) -> Iterator[Row]:
    """Rows of one case, `BASE` first. Raises Disagreement before anything is timed, and LeftOut
    where `BASE` itself cannot take part."""
    limits = limits or Limits()
    made: dict[str, Contender] = {BASE: CONTENDERS[BASE](problem, limits)}
    absent: dict[str, str] = {}
    for name in names:
        try:
            made.setdefault(name, CONTENDERS[name](problem, limits))
        except LeftOut as reason:
            absent[name] = str(reason)
    check(problem, made)  # which also makes what is made at a first call
    where, total = str(problem.device), problem.case.candidates
    for task in tasks:
        calls: dict[str, Call] = {name: getattr(c, task) for name, c in made.items()}
        seconds = times(calls, plan, problem.device)
        base = 0.0
        for name, call in calls.items():
            asked = made[name].problem.case.candidates
            own = median_ms(seconds[name]) * total / asked
            base = own if name == BASE else base
            peak = extra_mb(call, problem.device)
            yield Row(
                problem.case, task, name, where, own, asked, len(seconds[name]), own / base, peak
            )
        for name, reason in absent.items():
            yield Row(problem.case, task, name, where, left_out=reason)


def check(problem: Problem, contenders: Mapping[str, Contender]) -> None:
    """Log evidence and marginals of all contenders agree with those of `BASE` to `TOLERANCE`, as
    far as they were asked and can tell, and every sample is possible."""
    expected, marginals = contenders[BASE].marginals()
    assert expected is not None  # the engines tell
    for name, contender in contenders.items():
        evidence, found = contender.marginals()
        rows = contender.problem.case.candidates
        where = f"{name} and {BASE} on {problem.case}"
        if evidence is not None:
            theirs = evidence.cpu().double().sum() if evidence.ndim == 0 else evidence.cpu()
            ours = expected[:rows].cpu().double()
            ours, share = (ours.sum(), rows) if evidence.ndim == 0 else (ours, 1)
            gap = (theirs - ours).abs() / share / (ours.abs() / share).clamp_min(1)
            if not bool((gap < TOLERANCE).all()):
                raise Disagreement(f"{where}: log evidence differs by {float(gap.max()):.2g} nats")
        for source, values in marginals.items():
            difference = (found[source].cpu() - values[:rows].cpu()).abs().max()
            if not float(difference) < TOLERANCE:
                raise Disagreement(f"{where}: marginals of {source} differ by {difference:.2g}")
        if not bool((likelihood(contender.problem, contender.sample()) > 0).all()):
            raise Disagreement(f"{name} on {problem.case}: a sample that the tables rule out")


def likelihood(problem: Problem, drawn: Mapping[str, Tensor]) -> Tensor:
    """p(observed token | sources) of each row, float64 [C]: along the cells of the chain's tables,
    none of which is made dense."""
    first, *rest = (drawn[name].cpu() for name in problem.sources)
    k = problem.case.k
    out = []
    for row, start in enumerate(first.tolist()):
        mixed = {start: 1.0}
        for table, tokens in zip(problem.chained, rest, strict=True):
            after: dict[int, float] = {}
            for parent, mass in mixed.items():
                low = (parent * k + int(tokens[row])) * k
                begin, end = torch.searchsorted(table.keys, torch.tensor([low, low + k])).tolist()
                cells = zip(table.keys[begin:end] - low, table.probability[begin:end], strict=True)
                for child, share in cells:
                    after[int(child)] = after.get(int(child), 0.0) + mass * float(share)
            mixed = after
        out.append(mixed.get(problem.token, 0.0))
    return torch.tensor(out, dtype=torch.float64)
