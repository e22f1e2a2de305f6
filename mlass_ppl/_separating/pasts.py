"""The pasts of all sources: one batch for each prior, whatever sources and labels share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ..bundle import Bundle
from ..codecs import tokens_of
from ..errors import PriorError
from ..graph import MixingGraph, Source
from ..priors import Prior


class SourcePriors:
    """The priors of a graph's sources.

    Raises BundleError when the bundle lacks one and PriorError when one does not fit the codec or
    does not know a declared label.
    """

    def __init__(self, graph: MixingGraph, bundle: Bundle) -> None:
        self.groups: dict[str, list[str]] = {}
        for source in graph.sources:
            self.groups.setdefault(bundle.prior_key(graph, source), []).append(source)
        self.priors: Mapping[str, Prior] = {key: bundle.priors[key] for key in self.groups}
        self.labels = {key: _labels(graph, group) for key, group in self.groups.items()}
        length = tokens_of(bundle.codec)
        for key, prior in self.priors.items():
            alphabet = bundle.codecs.get(key, bundle.codec).alphabet
            if prior.alphabet != alphabet:
                raise PriorError(
                    f"prior '{key}' has {prior.alphabet} tokens, the codec {alphabet}: "
                    "train the prior on this codec's tokens."
                )
            if prior.length is not None and prior.length < length:
                raise PriorError(
                    f"prior '{key}' knows {prior.length} tokens, a signal has {length}."
                )
            if (labels := self.labels[key]) is not None:
                _check_labels(key, prior, self.groups[key], labels)

    def start(self, mixtures: int, candidates: int) -> Pasts:
        return Pasts(self, mixtures, candidates)


class Pasts:
    """What every source of M mixtures x C candidates has been so far."""

    def __init__(self, priors: SourcePriors, mixtures: int, candidates: int) -> None:
        self._groups, self._priors = priors.groups, priors.priors
        self._shape = (mixtures, candidates)
        rows = mixtures * candidates
        self._states: dict[str, Any] = {}
        self._told: dict[str, Tensor] = {}
        for key, group in self._groups.items():
            labels, start = priors.labels[key], self._priors[key].start
            self._states[key] = (
                start(len(group) * rows)
                if labels is None
                else start(len(group) * rows, labels.repeat_interleave(rows))
            )

    def step(
        self, drawn: Mapping[str, Tensor] | None, temper: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """log p of each source's next token, {source: float [M, C, K]}, after `drawn` {source:
        int64 [M, C]} (None at the first position). temper: applied to [rows, K]."""
        out: dict[str, Tensor] = {}
        for key, group in self._groups.items():
            fed = None if drawn is None else torch.stack([drawn[name] for name in group]).flatten()
            log, self._states[key] = self._priors[key].step(fed, self._states[key])
            self._told.update(zip(group, log.reshape(len(group), *self._shape, -1), strict=True))
            log = temper(log).reshape(len(group), *self._shape, -1)
            out.update(zip(group, log, strict=True))
        wide = reduce(torch.promote_types, (log.dtype for log in out.values()))
        return {name: log.to(wide) for name, log in out.items()}

    def score(self, tokens: Mapping[str, Tensor], parents: Tensor | None) -> Tensor:
        """log p(token | past), untempered, summed over the sources, nats, float64 [M, C]: of tokens
        int64 [M, C] at the last position, given to candidates that continue `parents` [M, C]."""
        m, c = self._shape
        device = next(iter(tokens.values())).device
        past = torch.arange(c, device=device).expand(m, c) if parents is None else parents
        row = torch.arange(m, device=device)[:, None]
        logs = [self._told[name][row, past, token].double() for name, token in tokens.items()]
        return torch.stack(logs).sum(0)

    def reorder(self, rows: Tensor) -> None:
        """Row r of every source, of M * C, goes on from row `rows[r]`."""
        size = self._shape[0] * self._shape[1]
        for key, state in self._states.items():
            places = range(len(self._groups[key]))
            index = torch.cat([rows + place * size for place in places])
            self._states[key] = self._priors[key].reorder(state, index)


def _labels(graph: MixingGraph, group: list[str]) -> Tensor | None:
    """The label of each source, -1 for none; None where there are none."""
    sites = [graph.site(name) for name in group]
    labels = [site.label if isinstance(site, Source) else None for site in sites]
    if all(label is None for label in labels):
        return None
    return torch.tensor([-1 if label is None else label for label in labels])


def _check_labels(key: str, prior: Prior, group: list[str], labels: Tensor) -> None:
    """Let the prior refuse the labels before the first mixture is read."""
    declared = ", ".join(
        f"source('{name}', label={label})"
        for name, label in zip(group, labels.tolist(), strict=True)
        if label >= 0
    )
    try:
        signature(prior.start).bind(1, labels)
    except TypeError as error:
        raise PriorError(
            f"prior '{key}' takes no labels, but the program declares {declared}: its class "
            f"{type(prior).__name__} needs start(rows, labels), or leave the labels out."
        ) from error
    try:
        prior.start(len(group), labels)
    except PriorError as error:
        raise PriorError(f"prior '{key}', asked for {declared}: {error}") from error
