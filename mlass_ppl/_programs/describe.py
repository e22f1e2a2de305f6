"""A mixing graph as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..evidence import Feature, Soft
from ..graph import Mix, Source

if TYPE_CHECKING:
    from ..graph import MixingGraph


def describe(graph: MixingGraph, sizes: Mapping[str, int]) -> str:
    """Sites, alphabets, factors and the cost of each engine. sizes: {site: K} where known."""
    from ..infer.cost import cost_lines

    lines = [f"{graph.name}: {len(graph.sources)} sources, {len(graph.mixtures)} mixtures"]
    width = max(len(site.name) for site in graph.sites)
    for site in graph.sites:
        size = "-" if site.name in graph.features else sizes.get(site.name, "?")
        facts = _source(site) if isinstance(site, Source) else _mix(graph, site)
        lines.append(f"  {site.name:<{width}}  K={size:<5} {facts}")
    return "\n".join(lines + cost_lines(graph, sizes))


def _source(site: Source) -> str:
    prior = f", prior '{site.prior}'" if site.prior else ""
    return "source" + prior + (f", label {site.label}" if site.label is not None else "")


def _mix(graph: MixingGraph, site: Mix) -> str:
    hidden = f", over {', '.join(site.hidden)}" if site.hidden else ""
    shares = " + ".join(
        f"{weight:.3g} {part}"
        for part, weight in zip(site.parents + site.hidden, site.weights, strict=True)
    )
    facts = [f"p(. | {', '.join(site.parents)}{hidden})", f"signal = {shares}"]
    if site.name in graph.observed:
        facts.insert(0, _evidence(site))
    if site.codec is not None:
        facts.append(f"codec '{site.codec}'")
    if site.symmetric:
        facts.append("symmetric")
    return ", ".join(facts)


def _evidence(site: Mix) -> str:
    kind = site.evidence
    if isinstance(kind, Soft):
        warm = "" if kind.temperature == 1 else f" at temperature {kind.temperature:g}"
        return f"observed as weights over its tokens{warm}"
    what = "observed"
    if isinstance(kind, Feature):
        what += " as a linear feature" if kind.linear else " as a feature"
    return what if kind.power == 1 else f"{what} (power {kind.power:g})"
