"""A row's posterior as a product of factors over its latent sites."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._programs.row import Row


@dataclass(frozen=True)
class LogFactor:
    """log: nats, float64 [K_1, ..., K_r] over the sites of `scope`."""

    scope: tuple[str, ...]
    log: Tensor


def log_factors(row: Row, *, reduce: bool) -> list[LogFactor]:
    """Priors, tables with their likelihood powers, log weights and feature likelihoods.

    A feature that is not given has no factor, since its density integrates to 1. reduce: whether
    tables are cut at given tokens; their sites are then in no scope.
    """
    graph = row.graph
    out = [LogFactor((name,), log.double().cpu()) for name, log in row.log_priors.items()]
    for name, log in row.weights.items():
        out.append(LogFactor((name,), log.double().cpu()))
    for factor in graph.factors:
        name = factor.name
        given = name in row.tokens or name in row.features
        power = row.power(name) if given else 1.0
        scope = factor.tokens
        if not factor.feature:
            scope = (*factor.parents, factor.child)
            log = row.dense(name).log() * power
        elif given:
            feature = row.features[name].double().cpu()
            log = row.gaussian(name).log_likelihood(feature[None])[0] * power
        else:
            continue
        if reduce:
            cut = [int(row.tokens[x]) if x in row.tokens else slice(None) for x in scope]
            log = log[tuple(cut)]
            scope = tuple(site for site in scope if site not in row.tokens)
        out.append(LogFactor(scope, log))
    return out


def merged(factors: list[LogFactor]) -> list[LogFactor]:
    """Factors over the same sites as one, in the order of the first."""
    out: dict[frozenset[str], LogFactor] = {}
    for factor in factors:
        key = frozenset(factor.scope)
        log = factor.log
        if first := out.get(key):
            log = first.log + log.permute([factor.scope.index(name) for name in first.scope])
        out[key] = LogFactor(first.scope if first else factor.scope, log)
    return list(out.values())


def scaled(factor: LogFactor, unit: bool = False) -> tuple[Tensor, float]:
    """The factor's values and the log of what they were divided by: their maximum, or their sum if
    `unit`. A factor of zeros stays as it is."""
    flat = factor.log.reshape(-1)
    scale = float(flat.logsumexp(0) if unit else flat.max())
    if scale == float("-inf"):
        return torch.zeros_like(factor.log), 0.0
    return (factor.log - scale).exp(), scale
