"""What a failed check says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from ..infer.base import Engine, Plan, Posterior
from .brute import BruteForce
from .problems import Problem

_T = TypeVar("_T")
Row = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One engine on one problem in one type."""

    engine: Engine
    problem: Problem
    dtype: torch.dtype
    tolerance: float
    _truths: dict[Row, BruteForce] = field(default_factory=dict)

    @cached_property
    def plan(self) -> Plan:
        return self.engine.plan(self.problem.graph, self.problem.tables)

    def posterior(self, problem: Problem) -> Posterior:
        """The plan's answer to this problem, or to some of its rows."""
        priors = {name: log.to(self.dtype) for name, log in problem.log_priors.items()}
        return self.plan.posterior(priors, problem.evidence)

    def truth(self, mixture: int, candidate: int) -> BruteForce:
        """Brute force of one row, kept."""
        row = (mixture, candidate)
        if row not in self._truths:
            self._truths[row] = self.problem.brute_force(*row)
        return self._truths[row]

    def fail(
        self, what: str, found: Any, wanted: Any, row: Row = (0, 0), hint: str = ""
    ) -> NoReturn:
        mixture, candidate = row
        raise AssertionError(
            f"{what} is {_text(found)}, expected {_text(wanted)}, in row {row} (mixture, "
            f"candidate) of {self.engine!r}, {str(self.dtype).removeprefix('torch.')}."
            + (f" {hint}" if hint else "")
            + f"\n{self.problem.describe(mixture, candidate)}"
        )

    def blame(self, error: Exception, what: str) -> NoReturn:
        """An exception that no engine may raise here."""
        try:
            self.fail(
                f"{type(error).__name__} ({error})",
                f"raised by {what}",
                "an answer, EngineError or PlanError",
            )
        except AssertionError as failure:
            raise failure from error

    def ask(self, what: str, question: Callable[[], _T]) -> _T:
        """The answer to a question that every engine has to answer."""
        try:
            return question()
        except Exception as error:
            self.blame(error, what)

    def near(self, what: str, found: float, wanted: float, row: Row, slack: float = 0.0) -> None:
        """Compare logarithms."""
        allowed = self.tolerance * max(1.0, abs(wanted)) + slack
        if not (found == wanted or abs(found - wanted) <= allowed):
            self.fail(what, found, wanted, row)

    def close(self, what: str, found: Tensor, wanted: Tensor, row: Row, slack: float) -> None:
        """Compare probabilities."""
        if found.shape != wanted.shape:
            self.fail(f"the shape of {what}", list(found.shape), list(wanted.shape), row)
        error = (found.double().cpu() - wanted).abs()
        if not bool((error <= self.tolerance + slack).all()):
            self.fail(what, found, wanted, row)

    def rounding(self, log: float) -> float:
        """How far a type rounds logarithms of this size, and so probabilities made from them."""
        return 16 * torch.finfo(self.dtype).eps * abs(log) if log > float("-inf") else 0.0


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return str([float(f"{x:.6g}") for x in value.flatten().tolist()])
    return f"{value:.10g}" if isinstance(value, float) else str(value)
