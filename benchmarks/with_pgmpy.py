"""pgmpy as a contender: variable elimination, and message passing on the factor graph."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .problem import Answer, Limits, Problem

_DOUBLE = 8


def _factors() -> Any:
    """pgmpy's factors, told apart by identity. Its own compare and hash all their values whenever a
    graph looks one up, which would take most of the time of message passing on real tables."""
    from pgmpy.factors.discrete import DiscreteFactor

    class Factor(DiscreteFactor):  # type: ignore[misc]
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            return self is other

    return Factor


class _OneByOne(abc.ABC):
    """pgmpy knows no batch: candidates are asked one by one, with their priors written into the
    model in place. A joint sample draws source after source, each given those before. Raises
    LeftOut where the tables do not fit."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        factor_of = _factors()
        k = problem.case.k
        needed = 2.0 * _DOUBLE * prod(problem.chained[0].shape) * len(problem.chained)
        limits.hold(needed, "dense tables in float64")
        rows = limits.rows_of(problem.case.candidates, 1.0, 100.0 * k**3)
        self.problem = problem.first(min(limits.rows, rows))
        self._priors = {name: factor_of([name], [k], np.ones(k)) for name in problem.sources}
        factors = [
            factor_of([*f.parents, f.child], [k] * 3, problem.tables[f.name].dense().numpy())
            for f in problem.graph.factors
        ]
        self._engine = self._made([*self._priors.values(), *factors])
        self._random = np.random.default_rng(0)

    @abc.abstractmethod
    def _made(self, factors: list[Any]) -> Any:
        """The engine over a model of these factors."""

    @abc.abstractmethod
    def _mass(self, name: str, evidence: Mapping[str, int]) -> np.ndarray:
        """p(name, evidence), or what is proportional to it, [K]."""

    def _rows(self) -> Any:
        """Number of each candidate, its priors being those of the model."""
        for row in range(self.problem.case.candidates):
            for name, factor in self._priors.items():
                factor.values[:] = self.problem.log_priors[name][0, row].double().exp().cpu()
            yield row

    def sample(self) -> dict[str, Tensor]:
        names = self.problem.sources
        drawn = []
        for _ in self._rows():
            given = {"mixture": self.problem.token}
            for name in names:
                mass = self._mass(name, given)
                given[name] = int(self._random.choice(len(mass), p=mass / mass.sum()))
            drawn.append([given[name] for name in names])
        return dict(zip(names, torch.tensor(drawn).T, strict=True))

    def marginals(self) -> Answer:
        names, given = self.problem.sources, {"mixture": self.problem.token}
        rows = [[self._mass(name, given) for name in names] for _ in self._rows()]
        mass = torch.from_numpy(np.array(rows)).transpose(0, 1)  # [sources, C, K]
        found = dict(zip(names, mass / mass.sum(-1, keepdim=True), strict=True))
        return self._log_evidence(mass), found

    def _log_evidence(self, mass: Tensor) -> Tensor | None:
        return mass[0].sum(-1).log()


class Elimination(_OneByOne):
    """`VariableElimination` on a Markov network of priors and tables (a Bayesian network would
    refuse parents that were never seen together); its "greedy" order contracts with opt_einsum."""

    def _made(self, factors: list[Any]) -> Any:
        from pgmpy.inference import VariableElimination
        from pgmpy.models import DiscreteMarkovNetwork

        network = DiscreteMarkovNetwork()
        for factor in factors:
            names = factor.variables
            network.add_nodes_from(names)
            network.add_edges_from(
                (a, b) for place, a in enumerate(names) for b in names[place + 1 :]
            )
        network.add_factors(*factors)
        return VariableElimination(network)

    def _mass(self, name: str, evidence: Mapping[str, int]) -> np.ndarray:
        found = self._engine.query([name], dict(evidence), show_progress=False)
        return np.asarray(found.values)


class Messages(_OneByOne):
    """`BeliefPropagationWithMessagePassing` on a factor graph. Its messages are normalised, so the
    evidence cannot be told."""

    def _made(self, factors: list[Any]) -> Any:
        from pgmpy.inference.ExactInference import BeliefPropagationWithMessagePassing
        from pgmpy.models import FactorGraph

        graph = FactorGraph()
        for factor in factors:
            graph.add_nodes_from(factor.variables)
        graph.add_factors(*factors)
        graph.add_nodes_from(factors)
        graph.add_edges_from((factor, name) for factor in factors for name in factor.variables)
        # its check of the model prints every factor as text, which takes minutes for real tables
        return BeliefPropagationWithMessagePassing(graph, check_model=False)

    def _mass(self, name: str, evidence: Mapping[str, int]) -> np.ndarray:
        found = self._engine.query([name], evidence=dict(evidence))
        return np.asarray(found[name].values)

    def _log_evidence(self, mass: Tensor) -> Tensor | None:
        return None
