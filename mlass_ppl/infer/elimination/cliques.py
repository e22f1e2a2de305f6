"""The joint states that each bucket works on, listed for an observation when it first comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...graph import MixingGraph
from ...tables.feature import FeatureTable
from ..base import AnyTable
from .cells import cells_of
from .order import Bucket
from .support import Allow, Input, Support, group, join_all

Tokens = tuple[int, ...]
"""The given tokens, one for each of the graph's `known` sites."""


@dataclass(frozen=True)
class States:
    """The E possible states of a bucket's clique, those of one of the S states of its separator
    in a row, and among these by the token of its site.

    places: int64 [1 + inputs, E]: that token, and where each of the bucket's inputs has the state's
    value. log: constant log weight, nats, float64 [E]. lengths: int64 [S]. longest: the largest of
    them. separator: the S states; None for a root, which has one of no sites (S = 1).
    """

    places: Tensor
    log: Tensor
    lengths: Tensor
    longest: int
    separator: Support | None

    def __len__(self) -> int:
        return len(self.log)

    @property
    def bytes(self) -> int:
        own = self.places.nbytes + self.log.nbytes + self.lengths.nbytes
        return own + (self.separator.index.nbytes if self.separator is not None else 0)

    def to(self, device: torch.device) -> States:
        places, log, lengths = (x.to(device) for x in (self.places, self.log, self.lengths))
        return States(places, log, lengths, self.longest, None)


class Cliques:
    """All buckets of a graph. A list depends on those given tokens alone that its bucket and the
    ones below it meet; it is kept as long as all of them together take less than `room` bytes.

    sizes: {site: K}, read when a list is made. allow: see `Allow`.
    """

    def __init__(
        self,
        graph: MixingGraph,
        tables: Mapping[str, AnyTable],
        buckets: tuple[Bucket, ...],
        sizes: Mapping[str, int],
        allow: Allow,
        room: float,
    ) -> None:
        self.graph, self.buckets, self.sizes = graph, buckets, sizes
        self._allow, self._room = allow, room
        self.features = tuple(
            name for name, table in tables.items() if isinstance(table, FeatureTable)
        )
        self.cells = {
            factor.name: cells_of(factor, tables[factor.name], graph.known, allow)
            for factor in graph.factors
        }
        self.constant_factors = tuple(
            factor for factor in graph.factors if not set(factor.tokens) & set(graph.latent)
        )
        self._relevant: list[tuple[int, ...]] = []
        for bucket in buckets:
            here = {place for child in bucket.children for place in self._relevant[child]}
            for name in bucket.factors:
                here.update(graph.known.index(given) for given in self.cells[name].given)
            self._relevant.append(tuple(sorted(here)))
        self._kept: dict[tuple[int, Tokens, torch.device], States] = {}

    def inputs(self, number: int) -> tuple[Input, ...]:
        """Likelihoods and messages that a bucket multiplies, in the order of `States.places`."""
        bucket = self.buckets[number]
        return (*(name for name in bucket.factors if name in self.features), *bucket.children)

    def states(self, number: int, tokens: Tokens, device: torch.device) -> States:
        """The possible states of a bucket for an observation. Raises what `allow` raises."""
        key = (number, tuple(tokens[place] for place in self._relevant[number]), device)
        found = self._kept.get(key)
        if found is None:
            if device.type == "cpu":
                found = self._list(number, tokens)
            else:
                found = self.states(number, tokens, torch.device("cpu")).to(device)
            if found.bytes <= self._room:
                self._kept[key] = found
                self._room -= found.bytes
        return found

    @cached_property
    def frequent(self) -> Tokens:
        """An observation that should take long: of each site in turn the token with the most
        cells, among those that may occur beside what was chosen before."""
        known: dict[str, int] = {}
        lists: list[Support] = []
        for factor in self.graph.factors:
            if factor.child in self.graph.known:
                cells = self.cells[factor.name]
                known[factor.child] = cells.frequent(known, lists)
                lists.append(cells.where(known))
        return tuple(known[name] for name in self.graph.known)

    def constant(self, tokens: Tokens) -> float:
        """Log probability of the tables whose tokens are all given, nats."""
        evidence = dict(zip(self.graph.known, tokens, strict=True))
        total = 0.0
        for factor in self.constant_factors:
            found = self.cells[factor.name].where(evidence)
            total += float(found.log.sum()) if found.states else float("-inf")
        return total

    def _list(self, number: int, tokens: Tokens) -> States:
        bucket, cpu = self.buckets[number], torch.device("cpu")
        evidence = dict(zip(self.graph.known, tokens, strict=True))
        parts = [self.cells[name].where(evidence) for name in bucket.factors]
        for child in bucket.children:
            below = self.states(child, tokens, cpu).separator
            assert below is not None
            parts.append(below)
        if not parts:  # no table mentions the site, so it takes any token
            parts.append(Support.every(bucket.site, self.sizes[bucket.site]))
        clique = join_all(parts, self.sizes, self._allow)
        order, lengths = group(clique, bucket.separator, self.sizes)
        clique = clique.take(order)
        token = clique.index[clique.sites.index(bucket.site)]
        places = torch.stack([token, *(clique.places[name] for name in self.inputs(number))])
        if not bucket.separator:
            lengths = torch.tensor([len(order)])
            return States(places, clique.log, lengths, len(order), None)
        first = clique.take(lengths.cumsum(0) - lengths)
        rows = [clique.sites.index(name) for name in bucket.separator]
        state: dict[Input, Tensor] = {number: torch.arange(len(lengths))}
        log = torch.zeros(len(lengths), dtype=torch.float64)
        separator = Support(bucket.separator, first.index[rows], log, state)
        longest = int(lengths.max()) if len(lengths) else 0
        return States(places, clique.log, lengths, longest, separator)
