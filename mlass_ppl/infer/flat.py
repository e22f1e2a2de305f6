"""Graphs whose sources are directly under observed features: what `Truncated` is for."""

from __future__ import annotations

from ..graph import MixingGraph

KEEP = 512
"""Length of its lists by default."""


def refusal(graph: MixingGraph) -> str | None:
    """Why a graph is not one of sources directly under observed features, or None where it is."""
    for factor in graph.factors:
        if factor.child not in graph.observed:
            return f"'{factor.child}' is a partial mixture, which is not observed"
        for name in factor.parents:
            if name not in graph.sources:
                return f"'{factor.child}' is given '{name}', which is no source"
        if not factor.feature:
            return f"'{factor.child}' is observed as {graph.evidence(factor.child)!r}"
    return None
