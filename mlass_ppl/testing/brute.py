"""The truth about one row: the joint distribution multiplied out, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ..evidence import Feature, Soft, Token
from ..graph import MixingGraph
from ..tables.gaussian import AnyTable, GaussianTable
from ..tables.linear import LinearGaussianTable
from ..tables.table import Table

_NEVER = float("-inf")


@dataclass(frozen=True)
class BruteForce:
    """The whole joint posterior of one row.

    sites: latent sites. log_joint: log p(sites, evidence), nats, float64 [K_1, ..., K_n].
    """

    sites: tuple[str, ...]
    log_joint: Tensor

    @cached_property
    def log_evidence(self) -> float:
        """log p(evidence), nats; -inf when it is impossible."""
        return float(self.log_joint.flatten().logsumexp(0))

    @cached_property
    def joint(self) -> Tensor:
        """p(sites | evidence), [K_1, ..., K_n]; zeros when the evidence is impossible."""
        return (self.log_joint - max(self.log_evidence, torch.finfo(torch.float64).min)).exp()

    def project(self, *sites: str) -> BruteForce:
        """The same with all other sites summed out, in the order given."""
        axes = [self.sites.index(name) for name in sites]
        rest = [axis for axis in range(len(self.sites)) if axis not in axes]
        array = self.log_joint.permute(axes + rest)
        flat = array.reshape(*array.shape[: len(axes)], -1)
        return BruteForce(sites, flat.logsumexp(-1))

    def marginal(self, name: str) -> Tensor:
        """p(site | evidence), [K]; zeros when the evidence is impossible."""
        return self.project(name).joint

    def pairwise(self, first: str, second: str) -> Tensor:
        """p(first, second | evidence), [K_first, K_second]."""
        if first == second:
            return self.marginal(first).diag()
        return self.project(first, second).joint

    def entropy(self, *sites: str) -> float:
        """Joint entropy of some latent sites given the evidence, nats; 0 if it is impossible."""
        p = self.project(*dict.fromkeys(sites)).joint.flatten()
        return float(-(p * torch.where(p > 0, p, 1.0).log()).sum())

    def log_probability(self, tokens: Mapping[str, int]) -> float:
        """log p(all latent sites = tokens, evidence), nats."""
        return float(self.log_joint[tuple(tokens[name] for name in self.sites)])

    def topk(self, k: int) -> Tensor:
        """log p(assignment | evidence) of the k most probable assignments, nats [k], the largest
        first; -inf where there are fewer. (Which assignments they are is open where two tie.)"""
        values = self.log_joint.flatten()
        best = torch.full((k,), _NEVER, dtype=values.dtype)
        top = values.topk(min(k, len(values))).values
        if self.log_evidence > _NEVER:
            best[: len(top)] = top - self.log_evidence
        return best


def brute_force(
    graph: MixingGraph,
    tables: Mapping[str, AnyTable],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, int | Tensor],
) -> BruteForce:
    """Multiply everything out in float64, with no cleverness at all.

    log_priors: {source: nats [K]}. evidence: for each observed site its token, its log weights [K]
    or its feature [D], as the graph declares. tables: as counted; likelihood powers are applied
    here. Memory grows with the product of all latent alphabets: for toys.
    """
    sites = graph.latent
    known = {name: int(evidence[name]) for name in graph.known}
    parts: list[tuple[Tensor, tuple[str, ...]]]
    parts = [(log_priors[name], (name,)) for name in graph.sources]
    parts += [(torch.as_tensor(evidence[name]), (name,)) for name in graph.soft]
    for factor in graph.factors:
        table = tables[factor.name]
        if isinstance(table, Table):
            array, names = table.dense().log(), (*factor.parents, factor.child)
        else:
            feature = torch.as_tensor(evidence[factor.child]).double()
            if isinstance(table, GaussianTable):
                array = _diagonal(table, feature)
            else:
                assert isinstance(table, LinearGaussianTable)
                array = _linear(table, feature)
            names = factor.parents
        array = array * _power(graph, factor.child)
        for axis in reversed(range(len(names))):
            if names[axis] in known:
                array = array.select(axis, known[names[axis]])
        parts.append((array, tuple(name for name in names if name not in known)))
    sizes: dict[str, int] = {}
    for array, names in parts:
        sizes |= zip(names, array.shape, strict=True)
    log = torch.zeros([sizes[name] for name in sites], dtype=torch.float64)
    for array, names in parts:
        order = sorted(range(len(names)), key=lambda axis: sites.index(names[axis]))
        shape = [sizes[name] if name in names else 1 for name in sites]
        log = log + array.double().permute(order).reshape(shape)
    return BruteForce(sites, log)


def _power(graph: MixingGraph, name: str) -> float:
    evidence = graph.evidence(name) if name in graph.observed else Soft()
    return evidence.power if isinstance(evidence, Token | Feature) else 1.0


def _diagonal(table: GaussianTable, feature: Tensor) -> Tensor:
    """log p(feature [D] | parents), nats [K_parent1, ...], one normal density at a time."""
    z = (feature - table.mean.double()) / table.std.double()
    log = -(z * z + math.log(2 * math.pi)) / 2 - table.std.double().log()
    return torch.where(table.possible, table.power * log.sum(-1), _NEVER)


def _linear(table: LinearGaussianTable, feature: Tensor) -> Tensor:
    """log p(feature [D] | parents), nats [K_parent1, ...], one configuration at a time."""
    log = torch.zeros(table.parents, dtype=torch.float64)
    for tokens in product(*map(range, table.parents)):
        mean = torch.zeros(len(feature), dtype=torch.float64)
        covariance = table.noise * torch.eye(len(feature), dtype=torch.float64)
        for token, means, covariances in zip(tokens, table.means, table.covariances, strict=True):
            mean = mean + means[token]
            covariance = covariance + covariances[token]
        if table.diagonal:  # what lies between the axes is left out
            along = table.axes.T @ covariance @ table.axes
            covariance = table.axes @ along.diagonal().diag() @ table.axes.T
        log[tokens] = MultivariateNormal(mean, covariance).log_prob(feature)
    return table.power * log
