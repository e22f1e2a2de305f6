"""What may be chosen, as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from ..errors import MlassError
from . import html
from .choices import Choices, Sources


@dataclass(frozen=True)
class Offered:
    """graphs, engines: to choose from; graph, engine: those chosen. why: HTML on the graph and on
    what is left out."""

    graphs: tuple[str, ...]
    engines: tuple[str, ...]
    graph: str
    engine: str
    why: str


def offered(choices: Choices, sources: Sources, graph: str, engine: str) -> Offered:
    """What goes together with these sources; a choice that does not is moved to one that does."""
    graphs = choices.graphs(sources)
    if not graphs:
        return Offered((), (), graph, engine, html.message("No graph has tables for these."))
    graph = graph if graph in graphs else graphs[0]
    offer = choices.offer(graph, sources)
    engine = engine if engine in offer.engines else next(iter(offer.engines))
    about = f"<p>{escape(choices.shape(graph).about)}</p>"
    missing = {}
    for shape in choices.shapes:
        if shape.name not in graphs:
            missing[shape.name] = _why_not(choices, shape.name, sources)
    left_out = _list("Graphs left out", missing) + _list("Engines left out", offer.refused)
    return Offered(
        graphs,
        tuple(offer.engines),
        graph,
        engine,
        f'<div class="mlass-why">{about}{left_out}</div>',
    )


def _why_not(choices: Choices, name: str, sources: Sources) -> str:
    try:
        return next(iter(choices.offer(name, sources).refused.values()))
    except MlassError as error:
        return str(error)


def _list(title: str, reasons: Mapping[str, str]) -> str:
    if not reasons:
        return ""
    items = "".join(f"<li><b>{escape(k)}</b>: {escape(v)}</li>" for k, v in reasons.items())
    names = escape(", ".join(reasons))
    return f"<details><summary>{title}: {names}</summary><ul>{items}</ul></details>"
