"""The engines of this library as contenders, each planned once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import mlass_ppl as mlass
from mlass_ppl.errors import PlanError

from .problem import Answer, LeftOut, Limits, Problem

_LISTED = 128.0
"""Bytes for each joint state while `Exact` lists the cells of a table."""


class Ours:
    """An engine, asked as the token loop asks it."""

    def __init__(self, engine: mlass.Engine, problem: Problem) -> None:
        self.plan: Any = engine.plan(problem.graph, problem.tables)
        self.problem = problem
        self.evidence = {"mixture": torch.tensor([problem.token], device=problem.device)}
        self.random = [torch.Generator().manual_seed(0)]

    def _posterior(self) -> mlass.Posterior:
        return self.plan.posterior(self.problem.log_priors, self.evidence)

    def sample(self) -> dict[str, Tensor]:
        drawn = self._posterior().sample(self.random)
        return {name: drawn[name][0] for name in self.problem.sources}

    def marginals(self) -> Answer:
        posterior = self._posterior()
        found = posterior.marginals()
        return posterior.log_evidence[0], {name: found[name][0] for name in self.problem.sources}


def messages(problem: Problem, limits: Limits) -> Ours:
    """`BP()`. Raises LeftOut where its plan says that it would not fit."""
    ours = Ours(mlass.BP(), problem)
    limits.hold(ours.plan.cost.bytes(1, problem.case.candidates), "tables and messages")
    return ours


def eliminated(problem: Problem, limits: Limits) -> Ours:
    """`Exact()`, asked for as many candidates as `limits` leave. Raises LeftOut where its lists of
    joint states would not fit."""
    engine = mlass.Exact(memory_limit=limits.bytes)
    most = max(len(table.keys) for table in problem.chained)
    limits.hold(_LISTED * most, "lists of joint states")
    try:
        cost = engine.plan(problem.graph, problem.tables).cost
    except PlanError as error:
        raise LeftOut(str(error).split(". ")[0]) from error
    rows = limits.rows_of(problem.case.candidates, 32 * cost.states, 100 * cost.states)
    return Ours(engine, problem.first(rows))
