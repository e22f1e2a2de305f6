"""Which observed sites share a signal, and how far sources are from all that was observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..graph import MixingGraph

Weights = Mapping[str, Mapping[str, float]]
"""{observed site: {source: its weight in the site's signal}}."""


def alike(weights: Weights) -> list[list[str]]:
    """The sites, those together that mix the sources alike: one signal serves them all."""
    groups: list[list[str]] = []
    for name, own in weights.items():
        for group in groups:
            other = weights[group[0]]
            if all(abs(other.get(key, 0) - own.get(key, 0)) <= 1e-6 for key in {*other, *own}):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def importance(weights: Weights, observed: Mapping[str, Tensor]) -> dict[str, float]:
    """How much each observed signal counts in an error: {site: float}, summing to 1.

    Each way of mixing counts the same, and sites that mix alike share what theirs counts; where
    those observe one and the same signal, the first of them stands for all.
    """
    out: dict[str, float] = {}
    groups = alike(weights)
    for group in groups:
        first = observed[group[0]]
        if all(observed[name] is first or torch.equal(observed[name], first) for name in group):
            group = group[:1]
        out |= dict.fromkeys(group, 1 / (len(groups) * len(group)))
    return {name: out[name] for name in observed if name in out}


def interchangeable(graph: MixingGraph, key: Callable[[MixingGraph, str], str]) -> list[list[str]]:
    """The sources, those together that a separation cannot tell apart: of one prior and class, and
    of the same weight in each observed signal. key: of a source's prior."""
    shares = [graph.leaf_weights(name) for name in graph.observed]
    groups: dict[tuple[object, ...], list[str]] = {}
    for source in graph.sources:
        label = getattr(graph.site(source), "label", None)
        weights = tuple(round(own.get(source, 0.0), 6) for own in shares)
        groups.setdefault((key(graph, source), label, weights), []).append(source)
    return list(groups.values())


def mixed(signals: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of the sources' signals."""
    return torch.stack([weight * signals[name] for name, weight in weights.items()]).sum(0)
