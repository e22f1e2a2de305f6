"""The Pyro side of `bind`: the sample statements of a graph with its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from ..errors import TableError
from ..graph import Source
from ..tables.gaussian import GaussianTable
from ..tables.linear import LinearGaussianTable
from .row import Row

SiteTable = Tensor | tuple[Tensor, Tensor, Tensor] | LinearGaussianTable
"""Probabilities [K_parents..., K], or mean and std [K_parents..., D] and where they are possible,
bool [K_parents...]; or a table that has a density for every configuration, made when it is asked
for."""


def site_tables(row: Row) -> dict[str, SiteTable]:
    """Tables of the mixtures, dense, of the priors' type and on their device."""
    like = row.like
    out: dict[str, SiteTable] = {}
    for name, table in row.tables.items():
        if name in row.graph.features:
            table = row.gaussian(name)
        if isinstance(table, LinearGaussianTable):
            out[name] = table
        elif isinstance(table, GaussianTable):
            possible = table.possible.to(like.device)
            mean = torch.where(possible[..., None], table.mean.to(like), 0.0)
            std = torch.where(possible[..., None], table.std.to(like), 1.0)
            out[name] = (mean, std, possible)
        else:
            out[name] = row.dense(name).to(like)
    return out


def run(row: Row, tables: Mapping[str, SiteTable]) -> Any:
    """Make a run's sample statements; returns the values of the observed sites."""
    graph, values = row.graph, {}
    for site in graph.sites:
        name = site.name
        if isinstance(site, Source):
            values[name] = pyro.sample(name, Categorical(logits=row.log_priors[name], name=name))
            continue
        given: tuple[Any, ...] = tuple(values[parent] for parent in site.parents)
        table, power = tables[name], _power(row, name)
        fn: Any
        if isinstance(table, LinearGaussianTable):
            mean, covariance = table.gaussian(*given)
            root = torch.linalg.cholesky(covariance)  # in float64, whatever the priors are
            fn = MultivariateNormal(mean.to(row.like), root.to(row.like), power=power)
        elif isinstance(table, tuple):
            mean, std, possible = (part[given] for part in table)
            fn = Normal(mean, std, possible, name=name, power=power).to_event(1)
        else:
            fn = Categorical(probs=table[given], name=name, power=power)
        values[name] = pyro.sample(name, fn, obs=_observation(row, name))
        if name in row.weights:
            weights = Vindex(row.weights[name])[..., values[name]]
            pyro.factor(_unused(row, f"{name}_weights"), weights)
    observed = tuple(values[name] for name in graph.observed)
    return observed[0] if len(observed) == 1 else observed


def _observation(row: Row, name: str) -> Tensor | None:
    return row.tokens.get(name, row.features.get(name))


def _power(row: Row, name: str) -> float:
    """Exponent of a site's probability: its likelihood power while it is observed, since a power of
    an unobserved one would not sum to 1.

    It is part of the distribution because enumeration refuses more than one poutine.scale. What
    `pyro.condition` observes is read off Pyro's stack: that handler acts after this.
    """
    power = row.power(name) if name in row.graph.observed else 1.0
    if power == 1 or name in row.tokens or name in row.features:
        return power
    conditioned = any(isinstance(h, ConditionMessenger) and name in h.data for h in _PYRO_STACK)
    return power if conditioned else 1.0


def _unused(row: Row, name: str) -> str:
    while any(site.name == name for site in row.graph.sites):
        name += "_"
    return name


def _refuse_unseen(name: str) -> None:
    raise TableError(
        f"'{name}' cannot be simulated: its table never saw the parents that were drawn. Smooth "
        "the table, Table.from_counts(counts, Additive(alpha)), or give priors that stay on what "
        "was counted."
    )


class Categorical(dist.Categorical):
    """Rows of a table. Where the table has none, every token has probability zero; Pyro's own
    would divide zero by zero. power: of the probabilities, not normalised."""

    def __init__(
        self, probs: Any = None, logits: Any = None, name: str = "site", power: float = 1.0
    ) -> None:
        logits = probs.log() if logits is None else logits
        self.name, self.power = name, power
        self.empty = (logits == float("-inf")).all(-1)
        super().__init__(logits=logits.masked_fill(self.empty[..., None], 0.0))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Categorical:
        logits = self.logits.masked_fill(self.empty[..., None], float("-inf"))
        return Categorical(None, logits.expand(*batch_shape, -1), self.name, self.power)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.power * super().log_prob(value).masked_fill(self.empty, float("-inf"))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        if self._validate_args and self.empty.any():  # drawing a program turns validation off
            _refuse_unseen(self.name)
        return super().sample(torch.Size(sample_shape))


class Normal(dist.Normal):
    """Rows of a Gaussian table, with density zero where it has none. power: of the density."""

    def __init__(
        self, mean: Tensor, std: Tensor, possible: Tensor, name: str = "site", power: float = 1.0
    ) -> None:
        self.name, self.power, self.possible = name, power, possible
        super().__init__(mean, std)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Normal:
        shape = torch.Size(batch_shape)
        mean, std = self.loc.expand(shape), self.scale.expand(shape)
        return Normal(mean, std, self.possible.expand(shape[:-1]), self.name, self.power)

    def log_prob(self, value: Tensor) -> Tensor:
        log = super().log_prob(value).masked_fill(~self.possible[..., None], float("-inf"))
        return self.power * log

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        if self._validate_args and not self.possible.all():
            _refuse_unseen(self.name)
        return super().rsample(torch.Size(sample_shape))


class MultivariateNormal(dist.MultivariateNormal):
    """Configurations of a linear Gaussian table. root: Cholesky's, of the covariance. power: of the
    density."""

    def __init__(self, mean: Tensor, root: Tensor, power: float = 1.0) -> None:
        self.power = power
        super().__init__(mean, scale_tril=root)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MultivariateNormal:
        shape = torch.Size(batch_shape)
        mean = self.loc.expand(shape + self.event_shape)
        root = self.scale_tril.expand(shape + self.event_shape * 2)
        return MultivariateNormal(mean, root, self.power)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.power * super().log_prob(value)
