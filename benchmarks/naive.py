"""The chain's recursions written down as they stand in docs/concepts.md: dense, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import Problem


class NaiveChain:
    """Sums over whole tables in linear space, with no care for zeros, underflow or sparsity, and
    for nothing but this graph. tables: [K_a, K_z, K_m]; the last one is cut at the observation."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        tables = [problem.tables[f.name].dense(torch.float32) for f in problem.graph.factors]
        self.tables, self.last = tables[:-1], tables[-1][..., problem.token].contiguous()
        self.random = torch.Generator().manual_seed(0)

    def _priors(self) -> list[Tensor]:
        return [self.problem.log_priors[name][0].exp() for name in self.problem.sources]

    def _beta(self, priors: list[Tensor]) -> list[Tensor]:
        """p(observation | m^i, later priors) of every partial mixture, [C, K] each."""
        beta = [priors[-1] @ self.last.T]
        for table, prior in zip(reversed(self.tables), reversed(priors[1:-1]), strict=True):
            inner = table @ beta[0].T  # [K_a, K_z, C]
            beta.insert(0, torch.einsum("azc,cz->ca", inner, prior))
        return beta

    def sample(self) -> dict[str, Tensor]:
        priors = self._priors()
        beta = self._beta(priors)
        mixed = self._pick(priors[0] * beta[0])
        drawn = [mixed]
        for table, prior, after in zip(self.tables, priors[1:-1], beta[1:], strict=True):
            cells = table[mixed]  # [C, K_z, K_m]
            z = self._pick(prior * torch.einsum("czm,cm->cz", cells, after))
            mixed = self._pick(cells[torch.arange(len(z)), z] * after)
            drawn.append(z)
        drawn.append(self._pick(priors[-1] * self.last[mixed]))
        return dict(zip(self.problem.sources, drawn, strict=True))

    def marginals(self) -> tuple[Tensor, dict[str, Tensor]]:
        priors = self._priors()
        beta = self._beta(priors)
        evidence = (priors[0] * beta[0]).sum(-1)
        alpha, found = priors[0], [priors[0] * beta[0]]
        for table, prior, after in zip(self.tables, priors[1:-1], beta[1:], strict=True):
            inner = (alpha @ table.flatten(1)).unflatten(1, table.shape[1:])  # [C, K_z, K_m]
            found.append(prior * torch.einsum("czm,cm->cz", inner, after))
            alpha = torch.einsum("czm,cz->cm", inner, prior)
        found.append(priors[-1] * (alpha @ self.last))
        found = [mass / evidence[:, None] for mass in found]
        return evidence.log().sum(), dict(zip(self.problem.sources, found, strict=True))

    def _pick(self, weights: Tensor) -> Tensor:
        return torch.multinomial(weights, 1, generator=self.random)[:, 0]
