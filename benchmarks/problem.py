"""What every contender is given: one token position of a chain of mixtures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import mlass_ppl as mlass

_FILLED = 8
"""Child tokens that each pair of parents was seen with: counted tables are sparse."""


@dataclass(frozen=True)
class Case:
    """n: sources. k: size of every alphabet. candidates: rows C of one mixture."""

    n: int
    k: int
    candidates: int

    def __str__(self) -> str:
        return f"n={self.n} K={self.k} C={self.candidates}"


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

    @classmethod
    def make(cls, case: Case, seed: int = 0) -> Problem:
        random = torch.Generator().manual_seed(seed)
        graph = mlass.compile_program(mlass.chain(case.n))
        tables = {factor.name: _table(case.k, random) for factor in graph.factors}
        log_priors = {
            name: (2 * torch.randn(1, case.candidates, case.k, generator=random)).log_softmax(-1)
            for name in graph.sources
        }
        seen = tables["mixture"].seen().nonzero()[:, 0]
        token = int(seen[len(seen) // 2])
        return cls(case, graph, tables, log_priors, token)


def _table(k: int, random: torch.Generator) -> mlass.Table:
    """Counts of `_FILLED` drawn children (some equal) for each pair of parents."""
    size = (k * k, min(_FILLED, k))
    children = torch.randint(k, size, generator=random)
    pairs = torch.arange(k * k)[:, None].expand(size)
    counts = mlass.Counts.from_tokens([pairs // k, pairs % k], children, (k, k, k))
    return mlass.Table.from_counts(counts)
