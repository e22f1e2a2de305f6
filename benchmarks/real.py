"""The problem of a real separation: tables, priors and digits of the shipped bundle."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

import mlass_ppl as mlass
from mlass_ppl.data import find_data, mnist_images
from mlass_ppl.data.digits import bundled_digits
from mlass_ppl.evaluate.protocol import pairing

from .problem import Case, Problem

_POSITION = 24
"""Where the clock starts, in the middle of the image: there are pasts by then, and strokes."""

_DIGITS = 256
"""scikit-learn's digits that are brought to 28 x 28 where MNIST is not at hand."""


@cache
def shipped() -> mlass.Bundle:
    return mlass.load("mnist")


@cache
def digits() -> tuple[Tensor, str]:
    """Images [N, 1, 28, 28] that nothing was trained on, and where they come from."""
    if find_data("mnist") is not None:
        return mnist_images("validation"), "MNIST validation images"
    images, _ = bundled_digits(range(_DIGITS))
    return images, "scikit-learn's digits, redrawn at 28 x 28"


def truths(n: int, number: int, seed: int = 7) -> Tensor:
    """Sources of mixtures, [number, n, 1, 28, 28]."""
    images, _ = digits()
    return images[torch.from_numpy(pairing(len(images), n, seed)[:number])]


def chain_tables(bundle: mlass.Bundle, graph: mlass.MixingGraph) -> dict[str, mlass.Table]:
    """Those of the chain, and where the bundle lacks them (more than three sources) the shipped
    one of two sources and a third, again and again."""
    have = mlass.compile_program(mlass.chain(min(3, len(graph.sources))))
    tables = bundle.tables(have, have.factors)
    *_, last = (tables[factor.name] for factor in have.factors)
    names = [factor.name for factor in graph.factors]
    out = dict.fromkeys(names, last)
    out[names[0]] = tables[have.factors[0].name]
    return out  # type: ignore[return-value]


@cache
def real(n: int, candidates: int) -> Problem:
    """A position of a separation of digits: candidates that were drawn up to there, their priors
    and what is observed next. All of them can explain it."""
    bundle, graph = shipped(), mlass.compile_program(mlass.chain(n))
    tables = chain_tables(bundle, graph)
    plan = mlass.BP().plan(graph, tables)
    for mixture in bundle.codec.encode(truths(n, 64).mean(1)):
        if bool(plan.seen["mixture"][mixture[: _POSITION + 1]].all()):
            log_priors = _log_priors(bundle, plan, candidates, mixture[None])
            given = {"mixture": mixture[None, _POSITION]}
            if bool(plan.posterior(log_priors, given).log_evidence.isfinite().all()):
                case = Case(n, bundle.codec.alphabet, candidates, "mnist")
                return Problem(case, graph, tables, log_priors, int(mixture[_POSITION]))
    raise RuntimeError(
        "no mixture of the digits at hand suits: none is explained by its candidates"
    )


@torch.no_grad()
def _log_priors(
    bundle: mlass.Bundle, plan: mlass.Plan, candidates: int, mixture: Tensor
) -> dict[str, Tensor]:
    """log p {source: [1, C, K]} after ancestral draws at the positions before. mixture: [1, T]."""
    (prior,), names = bundle.priors.values(), plan.graph.sources
    random = torch.Generator().manual_seed(0)
    state, fed = prior.start(len(names) * candidates), None

    def answer(log: Tensor) -> dict[str, Tensor]:
        return dict(zip(names, log.reshape(len(names), 1, candidates, -1), strict=True))

    for position in range(_POSITION):
        log, state = prior.step(fed, state)
        posterior = plan.posterior(answer(log), {"mixture": mixture[:, position]})
        drawn = posterior.sample(random)
        fed = torch.cat([drawn[name][0] for name in names])
        fed = torch.where(fed < 0, log.argmax(-1), fed)  # of a candidate that explains nothing
    return answer(prior.step(fed, state)[0])
