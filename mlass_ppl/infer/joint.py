"""Posteriors that answer by runs over a position: what `Exact` and `BP` share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from .base import Plan, Posterior
from .best import k_best
from .position import Position
from .random import Random, draw, uniforms

Kind = Literal["linear", "sum", "max"]
"""Sum-product in linear space, sum-product in logarithms, max-product in logarithms."""

_RANGE = 600.0
"""Nats, less than the range of float64 (708), with room for sums and for what rescaling leaves."""

Pick = Callable[[Tensor], Tensor]
"""Chooses an index of each row of weights [R, L], or -1 where a row has no mass."""


class Pass(Protocol):
    """One run of an algorithm over the rows of a position."""

    log_evidence: Tensor
    """[R], nats; of a max-product run the log probability of the best assignment."""

    weak: Tensor
    """Rows whose numbers came near underflow in linear space, bool [R]."""

    def descend(self, pick: Pick) -> dict[str, Tensor]:
        """Assign all latent sites together, each by `pick`: {site: int64 [R]}."""
        ...

    def marginals(self) -> dict[str, Tensor]:
        """p(site | evidence) of every latent site: {site: [R, K]}."""
        ...

    def rows(self, index: Tensor) -> Pass:
        """The run of some rows, int64 [R'], as if it had been made of them."""
        ...


class JointPlan(Plan):
    """A plan that runs."""

    @property
    def spread(self) -> float:
        """How far the positive cells of all tables lie apart at most, nats; infinite where that is
        not known beforehand."""
        return float("inf")

    @abc.abstractmethod
    def run(self, position: Position, kind: Kind) -> Pass: ...

    def kind(self, position: Position) -> Kind:
        """The number system of the first run; weak rows of "linear" are run again as "sum"."""
        return "sum"

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> JointPosterior:
        return JointPosterior(self, self.position(log_priors, evidence))


class JointPosterior(Posterior):
    """Answers of one position; each question is one run, shared where possible."""

    def __init__(self, plan: JointPlan, position: Position) -> None:
        super().__init__(plan, position)
        self._plan = plan
        self._pass = plan.run(position, plan.kind(position))
        log_evidence = self._pass.log_evidence.clone()
        if len(rows := self._weak()):
            log_evidence[rows] = self._again(rows).log_evidence.to(log_evidence)
        self.log_evidence = log_evidence.reshape(position.shape)

    def _weak(self) -> Tensor:
        return self._pass.weak.nonzero()[:, 0]

    def _again(self, rows: Tensor) -> Pass:
        """Where nothing can underflow in 64 bits, these will do, at a fraction of the time; a row
        without mass is then impossible."""
        position = self.position.rows(rows)
        if self._plan.spread + position.spread() < _RANGE:
            return self._plan.run(position.double(), "linear")
        return self._plan.run(position, "sum")

    @cached_property
    def _possible(self) -> Tensor:
        return self.log_evidence.reshape(-1) > float("-inf")

    def _ask(self, question: Callable[[Pass, Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Answer of the first run, mended where it is weak. question(run, rows)."""
        out = question(self._pass, torch.arange(len(self.position), device=self._pass.weak.device))
        if len(rows := self._weak()):
            for name, value in question(self._again(rows), rows).items():
                out[name][rows] = value.to(out[name])
        return out

    def _shaped(self, tokens: Mapping[str, Tensor], possible: Tensor) -> dict[str, Tensor]:
        return {
            name: torch.where(possible, tokens[name], -1).reshape(self.position.shape)
            for name in self.graph.latent
        }

    def sample(self, random: Random) -> dict[str, Tensor]:
        latent = self.graph.latent
        uniform = uniforms(random, *self.position.shape, len(latent)).flatten(0, 1)
        uniform = uniform.to(self.log_evidence.device)

        def question(run: Pass, rows: Tensor) -> dict[str, Tensor]:
            columns = iter(uniform[rows].unbind(1))
            return run.descend(lambda weights: draw(weights, next(columns)))

        return self._shaped(self._ask(question), self._possible)

    def marginals(self) -> dict[str, Tensor]:
        out = self._ask(lambda run, _: run.marginals())
        return {
            # A tree of a forest does not know that another one is impossible.
            name: torch.where(self._possible[:, None], out[name], 0.0).unflatten(
                0, self.position.shape
            )
            for name in self.graph.latent
        }

    def mode(self) -> dict[str, Tensor]:
        best = self._plan.run(self.position, "max")
        return self._shaped(best.descend(largest), self._possible)

    def of(self, parents: Tensor) -> JointPosterior:
        out = copy(self)
        out.__dict__.pop("_possible", None)
        out.position = self.position.of(parents)
        first = torch.arange(len(parents), device=parents.device)[:, None] * self.position.shape[1]
        out._pass = self._pass.rows((first + parents).flatten())
        out.log_evidence = self.log_evidence.gather(1, parents)
        return out

    def topk(self, k: int) -> tuple[dict[str, Tensor], Tensor]:
        def best(position: Position) -> tuple[dict[str, Tensor], Tensor]:
            run = self._plan.run(position, "max")
            return run.descend(largest), run.log_evidence

        sizes = {name: self._plan.sizes[name] for name in self.graph.latent}
        tokens, log = k_best(best, self.position, sizes, k)
        log = log - torch.where(self._possible, self.log_evidence.reshape(-1), 0.0)[:, None]
        shape = self.position.shape
        return {name: t.unflatten(0, shape) for name, t in tokens.items()}, log.unflatten(0, shape)

    def pairwise(self, first: str, second: str) -> Tensor:
        self._check_latent(first, second)
        if first == second:
            return self.marginals()[first].diag_embed()
        size, like = self._plan.sizes[first], self.position.like
        parts = []
        for token in range(size):  # p(first = token, second | evidence), one run for each token
            clamp = like.new_full((len(self.position), size), float("-inf"))
            clamp[:, token] = 0.0
            answer = self._of(self.position.weighted({first: clamp}))
            share = answer.log_evidence - self.log_evidence
            share = torch.where(self.log_evidence > float("-inf"), share.exp(), 0.0)
            parts.append(share[..., None] * answer.marginals()[second])
        return torch.stack(parts, 2)

    def _of(self, position: Position) -> JointPosterior:
        """The posterior of another position."""
        return type(self)(self._plan, position)


def largest(weights: Tensor) -> Tensor:
    """The index of the largest weight of each row, -1 where all are zero."""
    top = weights.max(-1)
    return torch.where(top.values > 0, top.indices, -1)
