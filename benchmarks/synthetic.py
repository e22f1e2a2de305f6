"""Tables and priors to the measure of real ones, for alphabets that no bundle has.

Tables counted on digits with K = 256 hold some six children for each pair of parents and have seen
95 pairs in a hundred; the children of a pair lie between its parents, so that some tokens are far
more common than others. Priors of digits have about 1.1 nats.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

import mlass_ppl as mlass

from .problem import Case, Problem

CHILDREN = 6.0
"""Children for each pair of parents, on average over all pairs."""

_SEEN = 0.95
_STEEPNESS = 2.45
"""Of log p against log rank; the entropy is then 1.1 nats, whatever K is."""

_BLOCK = 1 << 17
"""Pairs that are made at once: a table of 2,048 tokens has four million."""


@lru_cache(maxsize=2)
def chain_table(k: int, children: float = CHILDREN, seed: int = 0) -> mlass.Table:
    """p(child | a, b) of K tokens each, sparse: about `children` of them for a pair.

    The tokens lie on a line; a pair's children follow each other in small steps around the middle
    of its parents, so that keys come out sorted and distinct and nothing of K^3 is ever held.
    """
    random = torch.Generator().manual_seed(seed)
    most = min(k, max(1, round(children / _SEEN / 0.85)))
    kept = min(1.0, children / _SEEN / most)
    step = max(1, k // (8 * most))
    keys, values = [], []
    for pairs in torch.arange(k * k).split(_BLOCK):
        shape = (len(pairs), most)
        steps = torch.randint(1, step + 1, shape, generator=random).cumsum(1) - 1
        middle = (pairs // k + pairs % k).double() / (2 * (k - 1))
        child = (middle[:, None] * (k - 1 - steps[:, -1:]).double()).long() + steps
        keep = torch.rand(shape, generator=random) < kept
        keep[torch.arange(len(pairs)), torch.randint(most, (len(pairs),), generator=random)] = True
        keep &= (torch.rand(len(pairs), generator=random) < _SEEN)[:, None]
        weight = (1.9 * torch.randn(shape, generator=random)).exp() * keep
        share = weight / weight.sum(1, keepdim=True).clamp_min(1e-30)
        keep &= share > 1e-7  # a cell that was counted was seen once in so many tuples
        keys.append((pairs[:, None] * k + child)[keep])
        values.append(share[keep].double())
    return mlass.Table((k, k, k), torch.cat(keys), torch.cat(values))


def made(case: Case, children: float = CHILDREN, seed: int = 0) -> Problem:
    """A chain whose mixture holds one tuple of tokens that all candidates find probable."""
    random = torch.Generator().manual_seed(seed + 1)
    graph = mlass.compile_program(mlass.chain(case.n))
    table = chain_table(case.k, children, seed)
    *truth, token = _tuple(table, case.n, random)
    log_priors = {
        name: _log_priors(case, true, random)[None]
        for name, true in zip(graph.sources, truth, strict=True)
    }
    return Problem(case, graph, {f.name: table for f in graph.factors}, log_priors, token)


def _tuple(table: mlass.Table, n: int, random: torch.Generator) -> list[int]:
    """Tokens of n sources, and of their mixture: along cells of the table."""
    k = table.alphabet
    mixed = k // 2
    out = [mixed]
    for _ in range(n - 1):
        row = torch.tensor([mixed, mixed + 1]) * k * k
        low, high = torch.searchsorted(table.keys, row).tolist()
        cell = int(table.keys[int(torch.randint(low, high, (), generator=random))])
        out.append(cell // k % k)
        mixed = cell % k
    return [*out, mixed]


def _log_priors(case: Case, true: int, random: torch.Generator) -> Tensor:
    """log p [C, K] by rank; the true token is one of the first few."""
    score = torch.rand(case.candidates, case.k, generator=random)
    score[:, true] = 1 - 3 / case.k * torch.rand(case.candidates, generator=random)
    rank = score.argsort(1, descending=True).argsort(1)
    return (-_STEEPNESS * (rank + 1.0).log()).log_softmax(-1)
