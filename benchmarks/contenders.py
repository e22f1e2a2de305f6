"""Who is timed. Each is prepared once with the tables, as it would be before a separation, and
then answers for one token position: a joint sample, or the marginals of every source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

import mlass_ppl as mlass

from .naive import NaiveChain
from .problem import Problem

Answer = tuple[Tensor, dict[str, Tensor]]


class Contender(Protocol):
    """Both calls start from the priors of the position, which change from token to token."""

    def sample(self) -> dict[str, Tensor]:
        """A joint sample of the sources for each row: {source: int64 [C]}."""
        ...

    def marginals(self) -> Answer:
        """The log evidence of all rows together (nats, a scalar) and {source: float [C, K]}."""
        ...


class Ours:
    """An engine of this library, planned once."""

    def __init__(self, engine: mlass.Engine, problem: Problem) -> None:
        self.plan = engine.plan(problem.graph, problem.tables)
        self.problem = problem
        self.evidence = {"mixture": torch.tensor([problem.token])}
        self.random = torch.Generator().manual_seed(0)

    def _posterior(self) -> mlass.Posterior:
        return self.plan.posterior(self.problem.log_priors, self.evidence)

    def sample(self) -> dict[str, Tensor]:
        drawn = self._posterior().sample(self.random)
        return {name: drawn[name][0] for name in self.problem.sources}

    def marginals(self) -> Answer:
        posterior = self._posterior()
        found = posterior.marginals()
        marginals = {name: found[name][0] for name in self.problem.sources}
        return posterior.log_evidence.sum(), marginals


class Pgmpy:
    """pgmpy's VariableElimination. It knows no batch: candidates are asked one by one, with the
    priors written into the network in place."""

    def __init__(self, problem: Problem) -> None:
        from pgmpy.factors.discrete import TabularCPD
        from pgmpy.models import DiscreteBayesianNetwork

        graph, k = problem.graph, problem.case.k
        edges = [(parent, f.child) for f in graph.factors for parent in f.parents]
        self.network, self.problem = DiscreteBayesianNetwork(edges), problem
        for name in graph.sources:
            self.network.add_cpds(TabularCPD(name, k, np.full((k, 1), 1 / k)))
        for factor in graph.factors:
            values = problem.tables[factor.name].dense().movedim(-1, 0).reshape(k, -1).numpy()
            parents = list(factor.parents)
            self.network.add_cpds(TabularCPD(factor.child, k, values, parents, [k] * len(parents)))
        self.network.check_model()
        self.priors = {name: self.network.get_cpds(name) for name in graph.sources}
        self.random = np.random.default_rng(0)

    def _engine(self, row: int) -> Any:
        from pgmpy.inference import VariableElimination

        for name, cpd in self.priors.items():
            cpd.values = self.problem.log_priors[name][0, row].double().exp().numpy()
        return VariableElimination(self.network)

    def _rows(self) -> range:
        return range(self.problem.case.candidates)

    def sample(self) -> dict[str, Tensor]:
        names = list(self.problem.sources)
        drawn = []
        for row in self._rows():
            evidence = {"mixture": self.problem.token}
            joint = self._engine(row).query(names, evidence, show_progress=False)
            weights = joint.values.reshape(-1)
            cell = self.random.choice(len(weights), p=weights / weights.sum())
            found = np.unravel_index(cell, joint.values.shape)
            drawn.append([found[joint.variables.index(name)] for name in names])
        return dict(zip(names, torch.tensor(np.array(drawn)).T, strict=True))

    def marginals(self) -> Answer:
        names, total, rows = list(self.problem.sources), 0.0, []
        for row in self._rows():
            engine = self._engine(row)
            found = engine.query(
                names, {"mixture": self.problem.token}, joint=False, show_progress=False
            )
            rows.append([found[name].values for name in names])
            observed = engine.query(["mixture"], show_progress=False)
            total += float(np.log(observed.values[self.problem.token]))
        values = torch.tensor(np.array(rows)).transpose(0, 1)
        return torch.tensor(total), dict(zip(names, values, strict=True))


class Pyro:
    """Pyro's enumeration over the same program through `mlass_ppl.bind`, candidates in a plate:
    `infer_discrete` for joint samples, `TraceEnum_ELBO` for evidence and marginals."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.plates = int(problem.case.candidates > 1)  # a plate of one fails in compute_marginals

    def _model(self) -> Callable[[], Any]:
        import pyro

        rows = 0 if not self.plates else slice(None)
        log_priors = {name: log[0, rows] for name, log in self.problem.log_priors.items()}
        evidence = {"mixture": self.problem.token}
        bound = mlass.bind(self.problem.graph, self.problem.tables, log_priors, evidence)

        @pyro.infer.config_enumerate
        def model() -> None:
            if self.plates:
                with pyro.plate("candidates", self.problem.case.candidates, dim=-1):
                    bound()
            else:
                bound()

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


Make = Callable[[Problem], Contender]

BASE = "bp"
"""The contender that all others are compared to."""

CONTENDERS: dict[str, Make] = {
    "bp": lambda problem: Ours(mlass.BP(), problem),
    "exact": lambda problem: Ours(mlass.Exact(), problem),
    "naive": NaiveChain,
    "pyro": Pyro,
    "pgmpy": Pgmpy,
}
