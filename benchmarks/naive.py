"""The papers' recursions written down as they stand in docs/concepts.md: dense, in linear space."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .problem import Answer, LeftOut, Limits, Problem

_FLOAT = 4
_TINY = 1e-38
"""What the draws add to a row of weights that may be all zero, as the references add 1e-12."""


class Recursion:
    """MLASS's chain: sums over whole tables as matrix products, for nothing but this graph, with no
    care for zeros, underflow or sparsity. tables: [K_a, K_z, K_m]."""

    def __init__(self, tables: list[Tensor], seed: int = 0) -> None:
        self.tables = tables
        self.random = torch.Generator(tables[0].device).manual_seed(seed)

    def sample(self, priors: list[Tensor], token: int) -> list[Tensor]:
        """Tokens int64 [C] of each source, given their priors [C, K] and the observed token."""
        last, beta = self._beta(priors, token)
        mixed = self._pick(priors[0] * beta[0])
        drawn = [mixed]
        for table, prior, after in zip(self.tables, priors[1:-1], beta[1:], strict=False):
            cells = table[mixed]  # [C, K_z, K_m]
            z = self._pick(prior * torch.einsum("czm,cm->cz", cells, after))
            mixed = self._pick(cells[torch.arange(len(z), device=z.device), z] * after)
            drawn.append(z)
        return [*drawn, self._pick(priors[-1] * last[mixed])]

    def marginals(self, priors: list[Tensor], token: int) -> tuple[Tensor, list[Tensor]]:
        """Evidence [C] and p(token | observed) [C, K] of each source."""
        last, beta = self._beta(priors, token)
        evidence = (priors[0] * beta[0]).sum(-1)
        alpha, found = priors[0], [priors[0] * beta[0]]
        for table, prior, after in zip(self.tables, priors[1:-1], beta[1:], strict=False):
            inner = (alpha @ table.flatten(1)).unflatten(1, table.shape[1:])  # [C, K_z, K_m]
            found.append(prior * torch.einsum("czm,cm->cz", inner, after))
            alpha = torch.einsum("czm,cz->cm", inner, prior)
        found.append(priors[-1] * (alpha @ last))
        return evidence, [mass / evidence[:, None] for mass in found]

    def _beta(self, priors: list[Tensor], token: int) -> tuple[Tensor, list[Tensor]]:
        """The last table cut at the observation [K, K], and p(observation | m^i, later priors) of
        every partial mixture, [C, K] each."""
        last = self.tables[-1][..., token].contiguous()
        beta = [priors[-1] @ last.T]
        for table, prior in zip(reversed(self.tables[:-1]), reversed(priors[1:-1]), strict=True):
            inner = table @ beta[0].T  # [K_a, K_z, C]
            beta.insert(0, torch.einsum("azc,cz->ca", inner, prior))
        return last, beta

    def _pick(self, weights: Tensor) -> Tensor:
        return torch.multinomial(weights + _TINY, 1, generator=self.random)[:, 0]


class NaiveChain:
    """`Recursion`, all candidates at once. Raises LeftOut where its tables do not fit."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        cells = prod(problem.chained[0].shape)
        limits.hold(_FLOAT * cells * len(problem.chained), "dense tables")
        inner = 2 * _FLOAT * problem.case.k**2
        rows = limits.rows_of(problem.case.candidates, inner)
        self.problem = problem.first(rows)
        made = {id(t): t.dense(torch.float32).to(problem.device) for t in problem.chained}
        self._chain = Recursion([made[id(table)] for table in problem.chained])

    def sample(self) -> dict[str, Tensor]:
        drawn = self._chain.sample(self.problem.priors(), self.problem.token)
        return dict(zip(self.problem.sources, drawn, strict=True))

    def marginals(self) -> Answer:
        evidence, found = self._chain.marginals(self.problem.priors(), self.problem.token)
        return evidence.log(), dict(zip(self.problem.sources, found, strict=True))


class NaiveJoint:
    """LASS: the posterior of all sources together, [C, K, ..., K], for two and three sources.

    The likelihood p(observed | sources) is given to it as if its table of K^(n+1) cells had been
    counted. Raises LeftOut where its tables or one candidate's posterior do not fit, or there are
    more sources.
    """

    def __init__(self, problem: Problem, limits: Limits) -> None:
        k, n = problem.case.k, problem.case.n
        if n > 3:
            raise LeftOut(f"joint of {n} sources: {float(k) ** n:.1g} states a candidate")
        limits.hold(_FLOAT * float(k) ** 3 * (n - 1), "dense tables")
        limits.hold(3.0 * _FLOAT * float(k) ** n, "joint posterior of one candidate")
        rows = limits.rows_of(problem.case.candidates, 3.0 * _FLOAT * k**n, 60.0 * k**n)
        self.problem = problem.first(rows)
        *inner, last = (table.dense(torch.float32) for table in problem.chained)
        likelihood = last[..., problem.token]
        if inner:
            (table,) = inner
            likelihood = (table.flatten(0, 1) @ likelihood).unflatten(0, table.shape[:2])
        self.likelihood = likelihood.to(problem.device)
        self.random = torch.Generator(problem.device).manual_seed(0)

    def _posterior(self) -> Tensor:
        joint = self.likelihood[None]
        n = self.problem.case.n
        for axis, prior in enumerate(self.problem.priors()):
            joint = joint * prior.reshape(len(prior), *[1] * axis, -1, *[1] * (n - axis - 1))
        return joint

    def sample(self) -> dict[str, Tensor]:
        weights, drawn = self._posterior(), []
        while weights.ndim > 1:  # source after source, each given those before
            mass = weights.flatten(2).sum(2) if weights.ndim > 2 else weights
            z = torch.multinomial(mass + _TINY, 1, generator=self.random)[:, 0]
            weights = weights[torch.arange(len(z), device=z.device), z]
            drawn.append(z)
        return dict(zip(self.problem.sources, drawn, strict=True))

    def marginals(self) -> Answer:
        joint = self._posterior()
        evidence = joint.flatten(1).sum(1)
        found = {}
        for axis, name in enumerate(self.problem.sources, 1):
            others = [other for other in range(1, joint.ndim) if other != axis]
            found[name] = joint.sum(others) / evidence[:, None]
        return evidence.log(), found
