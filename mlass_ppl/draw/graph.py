"""A picture of a mixing graph: sources on top, the observed mixture at the bottom."""

from __future__ import annotations

import itertools
import math
import textwrap
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..graph import Mix, MixingGraph, Source
from ._style import BLUE, INK, MUTED, ORANGE, SHADE, legend, plain

if TYPE_CHECKING:
    from ._figure import Drawing

Point = tuple[float, float]

_COLUMN, _ROW = 1.25, 1.35  # inches between the centres of neighbouring sites
_RADIUS, _BOX = 0.43, (1.06, 0.62)
_BENDS = (0.0, 0.25, -0.25, 0.45, -0.45)


def draw_graph(graph: MixingGraph, path: str | Path | None = None) -> Drawing:
    """Draw the graph's sites and how they mix, layer by layer from the sources down.

    Circles are sources, rounded boxes mixtures, observed sites are shaded. Arrows carry the mixing
    weights; a dashed arrow is a part that sounds in the mixture but that its table is averaged
    over. `path` (.png, .svg or .pdf) is written when given. Raises OptionError on another ending.
    """
    from ._figure import Lines

    places = layout(graph)
    wide = max(x for x, _ in places.values()) + 2.0
    tall = max(-y for _, y in places.values()) + 2.0
    figure = Lines(figsize=(max(wide, 4.2), tall))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    margin = (max(wide, 4.2) - wide) / 2 + 1.0
    axes.set(xlim=(-margin, margin + wide - 2.0), ylim=(1.0 - tall, 1.0), aspect="equal")
    axes.axis("off")
    patches = {site.name: _site(axes, graph, site, places[site.name]) for site in graph.sites}
    for site in graph.sites:
        if isinstance(site, Mix):
            for part, weight in zip(site.parents + site.hidden, site.weights, strict=True):
                hidden = part in site.hidden
                _arrow(axes, places, patches, (part, site.name), None if hidden else weight)
    _legend(axes, graph)
    if path is not None:
        figure.write(path)
    return figure


def graph_svg(graph: MixingGraph) -> str:
    """The picture of `draw_graph` as an <svg> element, for notebooks and web pages."""
    text = draw_graph(graph).render("svg").decode("utf-8")
    return text[text.index("<svg") :]


def layout(graph: MixingGraph) -> dict[str, Point]:
    """Where each site stands, in inches: x to the right from 0, y downwards from 0 (negative).

    A mixture stands below all its parts and between its parents, a source directly above the first
    mixture that takes it; sources keep the order of their declaration from left to right.
    """
    mixes = [site for site in graph.sites if isinstance(site, Mix)]
    rank = dict.fromkeys(graph.sources, 0)
    for mix in mixes:
        rank[mix.name] = 1 + max(rank[part] for part in mix.parents + mix.hidden)
    for name in graph.sources:
        children = [rank[mix.name] for mix in mixes if name in mix.parents + mix.hidden]
        rank[name] = min(children, default=1) - 1
    column = {name: float(i) for i, name in enumerate(graph.sources)}
    for mix in mixes:
        column[mix.name] = sum(column[part] for part in mix.parents) / len(mix.parents)
    for level in set(rank.values()):
        _spread(column, [name for name in column if rank[name] == level])
    left, top = min(column.values()), min(rank.values())
    return {
        name: ((column[name] - left) * _COLUMN, (top - rank[name]) * _ROW)
        for name in (site.name for site in graph.sites)
    }


def _spread(column: dict[str, float], level: list[str]) -> None:
    """Push sites of one level apart until neighbours are a column from each other."""
    order = sorted(level, key=lambda name: column[name])
    before = sum(column[name] for name in order) / len(order)
    for left, right in itertools.pairwise(order):
        column[right] = max(column[right], column[left] + 1)
    shift = before - sum(column[name] for name in order) / len(order)
    for name in order:
        column[name] += shift


def _site(axes: Any, graph: MixingGraph, site: Source | Mix, place: Point) -> Any:
    from matplotlib.patches import Circle, FancyBboxPatch

    observed = site.name in graph.observed
    style: dict[str, Any] = {"linewidth": 1.8, "zorder": 3}
    style["facecolor"] = SHADE if observed else "white"
    if isinstance(site, Source):
        patch: Any = Circle(place, _RADIUS, edgecolor=BLUE, **style)
    else:
        edge = INK if observed else ORANGE
        corner = (place[0] - _BOX[0] / 2 + 0.12, place[1] - _BOX[1] / 2 + 0.12)
        inner = (_BOX[0] - 0.24, _BOX[1] - 0.24)
        patch = FancyBboxPatch(
            corner, *inner, boxstyle="round,pad=0.12,rounding_size=0.16", edgecolor=edge, **style
        )
    axes.add_patch(patch)
    lines = _wrapped(site.name, 14 if isinstance(site, Mix) else 11)
    room = (0.92 if isinstance(site, Mix) else 0.74) * 72
    size = min(9.5, room / (0.62 * max(map(len, lines))), 21.0 / len(lines))
    facts = _facts(graph, site)
    raised = place[1] + (0.08 if facts else 0.0)
    text = "\n".join(lines)
    _text(axes, place[0], raised, text, size, INK)
    if facts:
        _text(axes, place[0], place[1] - 0.17, ", ".join(facts), 6.5, INK)
    return patch


def _facts(graph: MixingGraph, site: Source | Mix) -> list[str]:
    """What is written below a site's name."""
    facts = [f"K={site.alphabet}"] if site.alphabet is not None else []
    if isinstance(site, Source):
        prior = site.prior[:12] if site.prior else "label" * (site.label is not None)
        label = "" if site.label is None else f" {site.label}"
        return facts + [prior + label] * bool(prior)
    kind = "soft" * (site.name in graph.soft) or "feature" * (site.name in graph.features)
    return facts + [fact[:12] for fact in (kind, site.codec) if fact]


def _wrapped(name: str, width: int) -> list[str]:
    """A long name on up to three lines, broken at its underscores where it has any."""
    if len(name) <= width:
        return [name]
    lines = textwrap.wrap(name.replace("_", "_ "), width) or [name]
    lines = [line.replace("_ ", "_") for line in lines]
    return [*lines[:2], lines[2][: width - 1] + "…"] if len(lines) > 3 else lines


def _text(axes: Any, x: float, y: float, text: str, size: float, colour: str, **style: Any) -> None:
    axes.text(
        x,
        y,
        plain(text),
        fontsize=size,
        color=colour,
        ha="center",
        va="center",
        zorder=5,
        linespacing=0.95,
        **style,
    )


def _arrow(
    axes: Any,
    places: dict[str, Point],
    patches: dict[str, Any],
    ends: tuple[str, str],
    weight: float | None,
) -> None:
    from matplotlib.patches import FancyArrowPatch

    start, stop = places[ends[0]], places[ends[1]]
    others = [place for name, place in places.items() if name not in ends]
    bend = max(_BENDS, key=lambda b: (min(_clearance(start, stop, b, others), 0.55), -abs(b)))
    axes.add_patch(
        FancyArrowPatch(
            start,
            stop,
            patchA=patches[ends[0]],
            patchB=patches[ends[1]],
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=13,
            linewidth=1.0 if weight is None else 1.3,
            linestyle=(0, (4, 3)) if weight is None else "solid",
            color=MUTED if weight is None else INK,
            shrinkA=1,
            shrinkB=1,
            zorder=2,
        )
    )
    if weight is not None:
        x, y = _along(start, stop, bend, 0.5)
        ground = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
        _text(axes, x, y, _share(weight), 8.0, INK, bbox=ground)


def _along(start: Point, stop: Point, bend: float, t: float) -> Point:
    """A point of matplotlib's arc3 curve: quadratic, its middle pulled sideways by `bend`."""
    dx, dy = stop[0] - start[0], stop[1] - start[1]
    middle = ((start[0] + stop[0]) / 2 + bend * dy, (start[1] + stop[1]) / 2 - bend * dx)
    a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t**2
    return (
        a * start[0] + b * middle[0] + c * stop[0],
        a * start[1] + b * middle[1] + c * stop[1],
    )


def _clearance(start: Point, stop: Point, bend: float, others: list[Point]) -> float:
    points = [_along(start, stop, bend, i / 12) for i in range(1, 12)]
    return min((math.dist(p, o) for p in points for o in others), default=math.inf)


def _share(weight: float) -> str:
    """A weight as a plain fraction where it is one."""
    fraction = Fraction(weight).limit_denominator(16)
    return str(fraction) if abs(fraction - weight) < 1e-6 else f"{weight:.3g}"


def _legend(axes: Any, graph: MixingGraph) -> None:
    from matplotlib.lines import Line2D

    def mark(shape: str, edge: str, fill: str, label: str) -> Line2D:
        return Line2D(
            [], [], linestyle="none", marker=shape, markersize=9, markeredgewidth=1.5,
            markerfacecolor=fill, markeredgecolor=edge, label=label,
        )  # fmt: skip

    marks = [mark("o", BLUE, "white", "source")]
    if any(name not in graph.observed for name in graph.mixtures):
        marks.append(mark("s", ORANGE, "white", "partial mixture"))
    marks.append(mark("s", INK, SHADE, "observed"))
    if any(isinstance(site, Mix) and site.hidden for site in graph.sites):
        marks.append(Line2D([], [], color=MUTED, linestyle=(0, (4, 3)), label="averaged over"))
    legend(axes, marks)
