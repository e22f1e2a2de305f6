"""Pyro as a contender: the same program, enumerated."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

import mlass_ppl as mlass

from .problem import Answer, Limits, Problem

_COPIES = 12
"""Numbers that enumeration holds for each cell of a table: logits, their normalisation, the terms
of the contraction."""


class Pyro:
    """Pyro's enumeration over the program as `mlass_ppl.bind` makes it, candidates in a plate:
    `infer_discrete` for joint samples, `TraceEnum_ELBO` for evidence and marginals. A plate gives
    every candidate its own copy of each table, so large tables leave room for few candidates.
    Raises LeftOut where there is none for one."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        cells = float(sum(prod(table.shape) for table in problem.chained))
        each = 4.0 * _COPIES * cells
        limits.hold(each, "enumerated tables of one candidate")
        self.problem = problem.first(limits.rows_of(problem.case.candidates, each, 200 * cells))
        self.plates = int(self.problem.case.candidates > 1)  # one of one fails in compute_marginals
        given = self.problem.log_priors
        rows = slice(None) if self.plates else 0
        self.priors = {name: log[0, rows].clone() for name, log in given.items()}
        self.bound = mlass.bind(
            problem.graph, problem.tables, self.priors, {"mixture": problem.token}
        )

    def _model(self) -> Callable[[], Any]:
        import pyro

        for name, log in self.problem.log_priors.items():  # the bound program reads them anew
            self.priors[name].copy_(log[0].reshape(self.priors[name].shape))

        @pyro.infer.config_enumerate
        def model() -> None:
            if self.plates:
                with pyro.plate("candidates", self.problem.case.candidates, dim=-1):
                    self.bound()
            else:
                self.bound()

        return model

    def sample(self) -> dict[str, Tensor]:
        import pyro

        drawn = pyro.infer.infer_discrete(self._model(), first_available_dim=-1 - self.plates)
        trace = pyro.poutine.trace(drawn).get_trace()
        return {name: trace.nodes[name]["value"].reshape(-1) for name in self.problem.sources}

    def marginals(self) -> Answer:
        import pyro

        elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=self.plates)
        model = self._model()
        found = elbo.compute_marginals(model, _no_guide)
        evidence = -elbo.loss(model, _no_guide)
        shape = (self.problem.case.candidates, self.problem.case.k)
        marginals = {name: found[name].probs.reshape(shape) for name in self.problem.sources}
        return torch.as_tensor(evidence), marginals


def _no_guide() -> None:
    pass
