"""One case: every contender on the same problem, agreement first and then the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .contenders import BASE, CONTENDERS, Contender
from .measure import Plan, extra_mb, median_ms, times
from .problem import Case, Problem

TASKS = ("sample", "marginals")

_LARGEST = {"pyro": 32, "pgmpy": 32}
"""K up to which general tools take part; above it their rounds take longer than they tell."""

_STATES = 2e7
"""Joint states of all candidates together up to which `exact` takes part."""


class Disagreement(AssertionError):
    """Two contenders give different answers to one question."""


@dataclass(frozen=True)
class Row:
    """One contender on one task of one case. peak_mb: extra memory at the peak of one call."""

    n: int
    k: int
    candidates: int
    task: str
    contender: str
    median_ms: float
    repeats: int
    ratio: float
    peak_mb: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def takes_part(name: str, case: Case) -> bool:
    if name == "exact":
        return (8 * case.k) ** (case.n - 1) * case.candidates <= _STATES
    return case.k <= _LARGEST.get(name, case.k)


def compare(case: Case, names: tuple[str, ...], plan: Plan) -> Iterator[Row]:
    """Rows of one case, `BASE` first. Raises Disagreement before anything is timed."""
    problem = Problem.make(case)
    chosen = [BASE, *(name for name in names if name != BASE and takes_part(name, case))]
    made = {name: CONTENDERS[name](problem) for name in chosen}
    check(problem, made)
    for task in TASKS:
        calls: dict[str, Callable[[], Any]] = {n: getattr(c, task) for n, c in made.items()}
        seconds = times(calls, plan)
        base = median_ms(seconds[BASE])
        for name, call in calls.items():
            own = median_ms(seconds[name])
            yield Row(
                n=case.n,
                k=case.k,
                candidates=case.candidates,
                task=task,
                contender=name,
                median_ms=own,
                repeats=len(seconds[name]),
                ratio=own / base,
                peak_mb=extra_mb(call),
            )


def check(problem: Problem, contenders: dict[str, Contender]) -> None:
    """Log evidence and marginals of all contenders agree with those of `BASE` to 1e-5, and every
    sample is possible."""
    expected, marginals = contenders[BASE].marginals()
    for name, contender in contenders.items():
        evidence, found = contender.marginals()
        where = f"{name} and {BASE} on {problem.case}"
        gap = float((evidence - expected).abs()) / problem.case.candidates
        if not gap < 1e-5 * max(1.0, float(expected.abs()) / problem.case.candidates):
            raise Disagreement(f"{where}: log evidence {evidence:.7g} and {expected:.7g}")
        for source, values in marginals.items():
            gap = float((found[source] - values).abs().max())
            if not gap < 1e-5:
                raise Disagreement(f"{where}: marginals of {source} differ by {gap:.2g}")
        if not bool((likelihood(problem, contender.sample()) > 0).all()):
            raise Disagreement(f"{name} on {problem.case}: a sample that the tables rule out")


def likelihood(problem: Problem, drawn: dict[str, Tensor]) -> Tensor:
    """p(observed token | sources) of each row, [C], by walking along the chain."""
    first, *rest = problem.sources
    mixed = torch.nn.functional.one_hot(drawn[first], problem.case.k).float()
    for factor, source in zip(problem.graph.factors, rest, strict=True):
        table = problem.tables[factor.name].dense(torch.float32)
        mixed = torch.stack(
            [row @ table[:, z] for row, z in zip(mixed, drawn[source].tolist(), strict=True)]
        )
    return mixed[:, problem.token]
