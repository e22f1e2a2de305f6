"""What every contender is given, one token position of a chain of mixtures, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

import mlass_ppl as mlass


class LeftOut(Exception):
    """A contender that does not take part in a case, and why."""


@dataclass(frozen=True)
class Limits:
    """What one contender may take. bytes: memory for its tables and for one call. cells: table
    cells or joint states times candidates that one call may visit; who needs more is asked for
    fewer candidates. rows: candidates that one without a batch is asked for."""

    bytes: float = 3e9
    cells: float = 4e9
    rows: int = 4

    def hold(self, needed: float, what: str) -> None:
        """Raises LeftOut where `needed` bytes are too many."""
        if needed > self.bytes:
            raise LeftOut(f"{what}: {needed / 1e9:.3g} GB, more than {self.bytes / 1e9:.3g} GB")

    def rows_of(self, candidates: int, bytes_each: float, cells_each: float = 1.0) -> int:
        """How many of the candidates one call can serve, at least one."""
        most = min(self.bytes / bytes_each, self.cells / cells_each)
        return max(1, min(candidates, int(most)))


@dataclass(frozen=True)
class Case:
    """n: sources. k: size of every alphabet. candidates: rows C of one mixture. tables: "mnist",
    those of the shipped bundle, or "like mnist", made to their measure."""

    n: int
    k: int
    candidates: int
    tables: str = "like mnist"

    def __str__(self) -> str:
        return f"n={self.n} K={self.k} C={self.candidates}, {self.tables}"


@dataclass(frozen=True)
class Problem:
    """tables: p(child | parents) by mixture site. log_priors: {source: nats, float32 [1, C, K]}.
    token: what is observed at the site `mixture`; every row can explain it."""

    case: Case
    graph: mlass.MixingGraph
    tables: dict[str, mlass.Table]
    log_priors: dict[str, Tensor]
    token: int

    @property
    def sources(self) -> tuple[str, ...]:
        return self.graph.sources

    @property
    def chained(self) -> list[mlass.Table]:
        """The tables along the chain; the last one's child is observed."""
        return [self.tables[factor.name] for factor in self.graph.factors]

    @property
    def device(self) -> torch.device:
        return next(iter(self.log_priors.values())).device

    def priors(self) -> list[Tensor]:
        """Probabilities [C, K] of each source's token."""
        return [self.log_priors[name][0].exp() for name in self.sources]

    def first(self, candidates: int) -> Problem:
        """The same problem for the first of its candidates."""
        case = replace(self.case, candidates=min(candidates, self.case.candidates))
        cut = {name: log[:, : case.candidates] for name, log in self.log_priors.items()}
        return replace(self, case=case, log_priors=cut)

    def to(self, device: Any) -> Problem:
        """With its priors, which decide where the others work, on a device."""
        moved = {name: log.to(device) for name, log in self.log_priors.items()}
        return replace(self, log_priors=moved)


Answer = tuple[Tensor | None, dict[str, Tensor]]


class Contender(Protocol):
    """Prepared once with the tables, as it would be before a separation. Both calls start from the
    priors of the position, which change from token to token."""

    problem: Problem
    """What it is asked: of the case, or of as many of its candidates as it can be asked for."""

    def sample(self) -> dict[str, Tensor]:
        """A joint sample of the sources for each row: {source: int64 [C]}."""
        ...

    def marginals(self) -> Answer:
        """The log evidence of each row, nats [C], or of all of them together [], or None where it
        cannot be told; and {source: float [C, K]}."""
        ...
