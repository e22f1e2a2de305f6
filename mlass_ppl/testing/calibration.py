"""Simulation-based calibration: a sampler whose ranks are not flat draws from another posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..bind import bind
from ..declare import Program, compile_program
from ..errors import OptionError
from ..graph import MixingGraph
from ..infer.base import Engine
from ._chi_square import chi_square

if TYPE_CHECKING:
    from ..infer.base import AnyTable

Statistic = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class RankHistogram:
    """How often the true value of a statistic took each rank among its posterior draws.

    counts: int64 [draws + 1]. p_value: of the chi-square test for a flat histogram. A hump in the
    middle means draws that are too wide, a trough too narrow, a slope biased.
    """

    counts: Tensor
    p_value: float

    def __str__(self) -> str:
        top = max(1, int(self.counts.max()))
        bars = "".join("▁▂▃▄▅▆▇█"[7 * int(n) // top] for n in self.counts)
        return f"{bars} (p = {self.p_value:.2g})"


def rank_histogram(
    engine: Engine,
    program: Program | MixingGraph,
    tables: Mapping[str, AnyTable],
    log_priors: Mapping[str, Tensor],
    statistic: Statistic,
    *,
    simulations: int = 2000,
    draws: int = 15,
    seed: int = 0,
) -> RankHistogram:
    """Ranks of what was simulated among an engine's samples (Talts et al., 2018, algorithm 1).

    Each simulation runs the program forward, as the Pyro model that `bind` makes of it, which gives
    latent tokens and evidence; then the engine draws `draws` samples given that evidence. Were they
    from the posterior, every rank of the true statistic among theirs would be equally likely. Ties,
    which tokens make many of, are broken by chance.

    log_priors: normalised nats [K] by source. statistic: a number [...] of tokens {latent site:
    int64 [...]}; one of several sites at once tests that they are drawn together. Raises
    OptionError on soft evidence, which a program does not simulate, and on powers other than 1.
    """
    graph = compile_program(program)
    for name in graph.observed:
        if name in graph.soft or getattr(graph.evidence(name), "power", 1.0) != 1:
            raise OptionError(
                f"'{name}' is observed by {graph.evidence(name)!r}, which no program simulates: "
                "calibrate with Token() or Feature()."
            )
    random = torch.Generator().manual_seed(seed)
    true = _simulate(graph, tables, log_priors, simulations, seed)
    priors = {
        name: log[None, None].expand(simulations, draws, -1) for name, log in log_priors.items()
    }
    plan = engine.plan(graph, tables)
    drawn = plan.posterior(priors, {name: true[name] for name in graph.observed}).sample(random)
    truth = statistic({name: true[name] for name in drawn})[:, None].double()
    values = statistic(drawn).double()
    below, ties = (values < truth).sum(1), (values == truth).sum(1)
    chance = torch.rand(simulations, generator=random, dtype=torch.float64)
    ranks = below + (chance * (ties + 1)).long()
    counts = torch.bincount(ranks, minlength=draws + 1)
    return RankHistogram(counts, chi_square(counts, torch.full((draws + 1,), 1 / (draws + 1))))


def _simulate(
    graph: MixingGraph,
    tables: Mapping[str, AnyTable],
    log_priors: Mapping[str, Tensor],
    simulations: int,
    seed: int,
) -> dict[str, Tensor]:
    """Values of all sites, [simulations] or [simulations, D], from the Pyro program."""
    import pyro
    from pyro import poutine

    model = bind(graph, tables, log_priors)

    def many() -> Any:
        with pyro.plate("simulations", simulations):
            model()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trace = poutine.trace(many).get_trace()
    values: dict[str, Any] = {site.name: trace.nodes[site.name]["value"] for site in graph.sites}
    return values
