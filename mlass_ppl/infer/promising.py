"""Which tokens of the sources are worth a look: by their priors, and by what is heard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..graph import MixingGraph
from ..tables.linear import LinearGaussianTable
from ..tables.table import Table
from .base import AnyTable

_FLOOR = 1e-30
"""A share below any that matters, so that even impossible tokens have a rank."""

_ROUNDS = 4
"""Of fitting the parents' parts in turn; they hardly change in later ones."""

_CELLS = 1 << 20
"""Cells of a table whose features are summed at once."""

_Gaussians = tuple[Tensor, Tensor]
"""Mean and variance of each token's part of a feature, along the table's axes: float64 [K, D]."""


class Promising:
    """What every source adds to the linear features that are heard, token by token.

    Of a source right under a feature that stands in its table. A partial mixture's part is taken to
    be the sum of its parents' (it is, but for what its own token forgets), fitted to the table of
    its tokens. This ranks tokens and decides no probability.

    heard: tables of the observed features, by factor name.
    """

    def __init__(
        self,
        graph: MixingGraph,
        tables: Mapping[str, AnyTable],
        heard: Mapping[str, LinearGaussianTable],
    ) -> None:
        self._graph, self._heard = graph, heard
        self._parts: dict[str, dict[str, _Gaussians]] = {}
        for factor in graph.factors:
            if (table := heard.get(factor.name)) is not None:
                own: dict[str, _Gaussians] = {}
                for site, *part in zip(factor.parents, table.centres, table.spreads, strict=True):
                    own.update(_sources(graph, tables, site, (part[0], part[1])))
                self._parts[factor.name] = own

    def masks(
        self, logs: Mapping[str, Tensor], features: Mapping[str, Tensor], keep: int
    ) -> dict[str, Tensor]:
        """The `keep` tokens of highest rank of each source, bool [K].

        A token's rank is its probability averaged over the candidates, times how well the features
        are met were the other sources to follow their average priors. logs: {source: nats [C, K]}.
        features: {factor: [1, D]}.
        """
        shares = {name: _average(log) for name, log in logs.items()}
        ranks = {name: share.clamp_min(_FLOOR).log() for name, share in shares.items()}
        for factor, parts in self._parts.items():
            table = self._heard[factor]
            moments = {name: _moments(shares[name], part) for name, part in parts.items()}
            mean = torch.stack([own for own, _ in moments.values()]).sum(0)
            variance = torch.stack([own for _, own in moments.values()]).sum(0)
            y = table.along(features[factor])[0]
            for name, (centre, spread) in parts.items():
                own, its = moments[name]
                rest = (variance - its).clamp_min(0) + table.noise
                total = spread.to(rest) + rest
                off = y - (mean - own) - centre.to(rest)
                fit = (off.square() / total + total.log()).sum(1)
                ranks[name] = ranks[name] - 0.5 * table.power * fit
        out = {}
        for name, rank in ranks.items():
            best = rank.topk(min(keep, len(rank))).indices
            out[name] = torch.zeros_like(rank, dtype=torch.bool).index_fill_(0, best, True)
        return out


def _average(log: Tensor) -> Tensor:
    """Prior averaged over the candidates, float64 [K], of log weights [C, K]."""
    return log.double().softmax(1).nan_to_num_(0.0).mean(0)


def _moments(share: Tensor, part: _Gaussians) -> _Gaussians:
    """Mean and variance [D] of a source's part under its average prior [K]."""
    centre, spread = (each.to(share) for each in part)
    mean = share @ centre
    return mean, (share @ (spread + centre.square()) - mean.square()).clamp_min(0)


def _sources(
    graph: MixingGraph, tables: Mapping[str, AnyTable], site: str, part: _Gaussians
) -> Iterator[tuple[str, _Gaussians]]:
    """The sources' parts in a site's part; of partial mixtures whose table lists its cells."""
    if site in graph.sources:
        yield site, part
        return
    factor = next(factor for factor in graph.factors if factor.child == site)
    table = tables[factor.name]
    if isinstance(table, Table) and table.background is None and len(table.keys):
        for parent, own in zip(factor.parents, _shared(table, *part), strict=True):
            yield from _sources(graph, tables, parent, own)


def _shared(table: Table, centre: Tensor, spread: Tensor) -> list[_Gaussians]:
    """A mixture's part as a sum over its parents, fitted by turns to the rows that were seen."""
    row, place = (table.keys // table.alphabet).unique_consecutive(return_inverse=True)
    mean = centre.new_zeros(len(row), centre.shape[1])
    square = torch.zeros_like(mean)
    cells = zip(
        place.split(_CELLS), table.keys.split(_CELLS), table.probability.split(_CELLS), strict=True
    )
    for rows, keys, probability in cells:
        token, weight = keys % table.alphabet, probability.to(centre)[:, None]
        mean.index_add_(0, rows, weight * centre[token])
        square.index_add_(0, rows, weight * (spread + centre.square())[token])
    tokens = torch.unravel_index(row, table.shape[:-1])
    sizes = table.shape[:-1]
    counts = [torch.bincount(t, minlength=k)[:, None] for t, k in zip(tokens, sizes, strict=True)]
    parts = [centre.new_zeros(size, centre.shape[1]) for size in sizes]
    rest = mean.clone()
    for _ in range(_ROUNDS):
        for number, (token, count) in enumerate(zip(tokens, counts, strict=True)):
            rest += parts[number][token]
            total = torch.zeros_like(parts[number]).index_add_(0, token, rest)
            parts[number] = total / count.clamp_min(1)
            rest -= parts[number][token]
    spare = (square - mean.square()).clamp_min(0) + rest.square()
    out = []
    for part, token, count in zip(parts, tokens, counts, strict=True):
        total = torch.zeros_like(part).index_add_(0, token, spare)
        out.append((part, total / count.clamp_min(1) / len(parts)))
    return out
