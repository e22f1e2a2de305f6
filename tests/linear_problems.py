"""Problems of sources under one feature whose moments add up."""

from __future__ import annotations

from typing import Any

import torch

from mlass_ppl import Feature, LinearGaussianTable, compile_program, joint
from mlass_ppl.testing import Problem

WIDTH = 3


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(sizes: tuple[int, ...], diagonal: bool = True, power: float = 1.0) -> Any:
    """A table of sources of these alphabets, whose cells are narrow and far apart."""
    g = random(sum(sizes))
    means = [2 * torch.randn(k, WIDTH, generator=g, dtype=torch.float64) for k in sizes]
    roots = [0.3 * torch.randn(k, WIDTH, WIDTH, generator=g, dtype=torch.float64) for k in sizes]
    axes = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g, dtype=torch.float64))[0]
    covariances = tuple(root @ root.mT for root in roots)
    return LinearGaussianTable(tuple(means), covariances, 0.01, axes, diagonal, power)


def problem(
    sizes: tuple[int, ...], *, m: int = 2, c: int = 5, depth: float = 6.0, diagonal: bool = True
) -> Problem:
    """Sources under one feature, which the priors explain. depth: of the priors, nats."""
    g = random(len(sizes))
    graph = compile_program(joint(len(sizes), evidence=Feature()))
    table = linear(sizes, diagonal)
    priors, feature = {}, torch.zeros(m, WIDTH, dtype=torch.float64)
    for name, mean in zip(graph.sources, table.means, strict=True):
        scores = depth * torch.randn(m, 1, len(mean), generator=g, dtype=torch.float64)
        scores = scores + torch.randn(m, c, len(mean), generator=g, dtype=torch.float64)
        priors[name] = scores.log_softmax(-1)
        feature += mean[priors[name][:, 0].argmax(-1)]
    feature += 0.1 * torch.randn(m, WIDTH, generator=g, dtype=torch.float64)
    return Problem(graph, {"mixture": table}, priors, {"mixture": feature})
