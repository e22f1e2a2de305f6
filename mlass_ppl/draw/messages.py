"""A picture of message passing: what each table tells each site, and what the site believes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import EngineError
from ..graph import Mix, MixingGraph
from ._chart import PANEL, draw_chart
from ._checks import check_row
from ._style import BLUE, GREEN, INK, MUTED, ORANGE, SHADE, hatched, legend
from .graph import _BENDS, Point, _along, _clearance, _text, _wrapped, layout

if TYPE_CHECKING:
    from ..infer import Posterior
    from ._figure import Drawing

_STRETCH, _WIDER = (1.8, 2.3), (2.6, 2.9)  # of the plain graph's columns and rows
_RADIUS, _BOX = 0.56, (1.24, 0.92)  # inches
_ABOVE = 1.4  # from a mixture's centre up to its table
_GAP = 0.56  # from a site's edge to the centre of a chart beside it


def draw_messages(
    posterior: Posterior,
    path: str | Path | None = None,
    mixture: int = 0,
    candidate: int = 0,
) -> Drawing:
    """Draw a graph with every message of `posterior.messages()` on its edge, for one row.

    Black squares are the tables p(mixture | parents). A chart is a distribution over a site's
    tokens, scaled to its largest bar; above it stand that bar's token and share. Charts inside the
    sites are their beliefs, on the edges what a table tells the site that the arrow points to,
    beside the sites their priors and soft evidence. Observed sites are shaded; a given token is
    named.

    posterior: of `BP` or `LoopyBP`. `path` (.png, .svg or .pdf) is written when given. Raises
    EngineError when the engine passes no messages, OptionError on a row that is not there or on
    another ending.
    """
    from ._figure import Lines

    ask = getattr(posterior, "messages", None)
    if ask is None:
        raise EngineError(
            f"{posterior.plan.engine!r} passes no messages; draw those of BP() or LoopyBP()."
        )
    row = (mixture, candidate)
    place = check_row(posterior, row)
    graph, position = posterior.graph, posterior.position
    across, down = _stretch(graph)
    places = {name: (x * across, y * down) for name, (x, y) in layout(graph).items()}
    width = max(x for x, _ in places.values())
    bottom = min(y for _, y in places.values()) - (2.0 if graph.soft else 1.0)
    margin = max(1.0, (6.0 - width) / 2)
    figure = Lines(figsize=(width + 2 * margin, 1.9 - bottom))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-margin, width + margin), ylim=(bottom, 1.9), aspect="equal")
    axes.axis("off")
    picture = _Picture(axes, graph, places)
    beliefs = posterior.marginals()
    for name in places:
        picture.site(name)
        if name in beliefs:
            draw_chart(axes, picture.below_name(name), beliefs[name][row], GREEN)
        elif name in position.known:
            picture.note(name, f"= {int(position.known[name][place])}")
        else:
            picture.note(name, "a feature")
    for name, log in position.unary.items():
        picture.own(name, log[place].double())
    picture.tables({key: message[row] for key, message in ask().items()})
    _text(axes, width / 2, 1.7, _title(posterior, row), 8.5, INK)
    _legend(axes, bool(graph.soft))
    if path is not None:
        figure.write(path)
    return figure


def _stretch(graph: MixingGraph) -> tuple[float, float]:
    """More room where lines cross, that is where two tables have two sites in common."""
    scopes = [set(factor.scope) for factor in graph.factors]
    crossing = any(len(a & b) > 1 for a, b in itertools.combinations(scopes, 2))
    return _WIDER if crossing else _STRETCH


class _Picture:
    """Axes in inches, and the boxes (x, y, half width, half height) that are taken on them."""

    def __init__(self, axes: Any, graph: MixingGraph, places: dict[str, Point]) -> None:
        self._axes, self._graph, self._places = axes, graph, places
        self._patches: dict[str, Any] = {}
        self._taken = [(x, y, 0.5 * _BOX[0], _RADIUS) for x, y in places.values()]

    def site(self, name: str) -> None:
        from matplotlib.patches import Circle, FancyBboxPatch

        x, y = self._places[name]
        source, observed = name in self._graph.sources, name in self._graph.observed
        style: dict[str, Any] = {"linewidth": 1.8, "zorder": 3}
        style["facecolor"] = SHADE if observed else "white"
        if source:
            patch: Any = Circle((x, y), _RADIUS, edgecolor=BLUE, **style)
        else:
            corner = (x - _BOX[0] / 2 + 0.12, y - _BOX[1] / 2 + 0.12)
            inner = (_BOX[0] - 0.24, _BOX[1] - 0.24)
            shape = "round,pad=0.12,rounding_size=0.16"
            edge = INK if observed else ORANGE
            patch = FancyBboxPatch(corner, *inner, boxstyle=shape, edgecolor=edge, **style)
        self._axes.add_patch(patch)
        self._patches[name] = patch
        lines = _wrapped(name, 11 if source else 14)
        room = (0.72 if source else 1.04) * 72
        size = min(8.5, room / (0.62 * max(map(len, lines))), 13.0 / len(lines))
        _text(self._axes, x, y + 0.31, "\n".join(lines), size, INK)

    def below_name(self, name: str) -> Point:
        x, y = self._places[name]
        return (x, y - 0.1)

    def note(self, name: str, what: str) -> None:
        """What an observed site has in place of a belief."""

        _text(self._axes, *self.below_name(name), what, 11, INK)

    def own(self, name: str, log: Tensor) -> None:
        """A source's prior above it, or soft evidence below its site."""

        share = log.softmax(0) if bool((log > float("-inf")).any()) else torch.zeros_like(log)
        x, y = self._places[name]
        source = name in self._graph.sources
        side, edge = (1, _RADIUS) if source else (-1, _BOX[1] / 2)
        at = (x, y + side * (edge + _GAP))
        self._arrow(at, (x, y), 0.0, name, {"color": BLUE if source else MUTED})
        draw_chart(self._axes, at, share, BLUE if source else MUTED, hatched=True, ground=True)
        self._taken.append((*at, PANEL[0] / 2, PANEL[1] / 2))

    def tables(self, messages: dict[tuple[str, str], Tensor]) -> None:
        """The table of each mixture, and its edges."""
        from matplotlib.patches import Rectangle

        mixes = [site for site in self._graph.sites if isinstance(site, Mix)]
        squares = {mix.name: (self._places[mix.name][0], self._places[mix.name][1] + _ABOVE)
                   for mix in mixes}  # fmt: skip
        for x, y in squares.values():
            square = Rectangle((x - 0.08, y - 0.08), 0.16, 0.16, color=INK, zorder=4)
            self._axes.add_patch(square)
            self._taken.append((x, y, 0.08, 0.08))
        lines = {
            (mix.name, name): self._line(squares[mix.name], mix, name, (mix.name, name) in messages)
            for mix in mixes
            for name in (mix.name, *mix.parents, *mix.hidden)
        }
        at: dict[tuple[str, str], Point] = {}
        for _ in range(4):  # a chart may make room for another one
            for key in (key for key in lines if key in messages):
                at.pop(key, None)
                strange = [point for other in lines if other != key for point in lines[other]]
                at[key] = self._spot(lines[key], key[0] == key[1], list(at.values()), strange)
        for key, point in at.items():
            draw_chart(self._axes, point, messages[key], ORANGE, ground=True)

    def _spot(
        self, line: list[Point], own: bool, charts: list[Point], strange: list[Point]
    ) -> Point:
        """Where on its line a chart is least in the way of sites, charts and strange lines."""
        half = (PANEL[0] / 2, PANEL[1] / 2)
        boxes = self._taken + [(*chart, *half) for chart in charts]
        clear = _BOX[1] / 2 + 0.12 if own else _RADIUS
        wanted = 0.58 * (1 - clear / math.dist(line[0], line[-1])) * len(line)

        def room(place: int) -> tuple[float, float, float]:
            """Up to 0.03 inches from boxes, then from lines, then near to where it looks best."""
            x, y = line[place]
            free = [max(abs(x - a) - w - half[0], abs(y - b) - h - half[1]) for a, b, w, h in boxes]
            cross = [max(abs(x - a) - half[0], abs(y - b) - half[1]) for a, b in strange]
            return min(*free, 0.03), min([*cross, 0.03]), -abs(place - wanted)

        return line[max(range(8, 42), key=room)]

    def _line(self, table: Point, mix: Mix, name: str, told: bool) -> list[Point]:
        """Draw the edge of a table and a site; 51 points along it."""

        stop = self._places[name]
        others = [place for other, place in self._places.items() if other not in (name, mix.name)]
        bend = max(_BENDS, key=lambda b: (min(_clearance(table, stop, b, others), 0.8), -abs(b)))
        style: dict[str, Any] = {"color": INK, "arrowstyle": "-|>" if told else "-"}
        if name in mix.hidden:
            style |= {"color": MUTED, "linestyle": (0, (4, 3))}
        self._arrow(table, stop, bend, name, style)
        return [_along(table, stop, bend, i / 50) for i in range(51)]

    def _arrow(
        self, start: Point, stop: Point, bend: float, name: str, style: dict[str, Any]
    ) -> None:
        from matplotlib.patches import FancyArrowPatch

        look = {"arrowstyle": "-|>", "linewidth": 1.3, "linestyle": "solid", **style}
        self._axes.add_patch(
            FancyArrowPatch(
                start, stop, patchB=self._patches[name], shrinkA=0, shrinkB=1, mutation_scale=13,
                connectionstyle=f"arc3,rad={bend}", zorder=2, **look,
            )
        )  # fmt: skip


def _title(posterior: Posterior, row: tuple[int, int]) -> str:
    settled = posterior.converged is None or bool(posterior.converged[row])
    trust = "exact" if posterior.exact else "approximate" if settled else "not converged"
    engine, evidence = type(posterior.plan.engine).__name__, float(posterior.log_evidence[row])
    return f"{posterior.graph.name}: {engine}, {trust}, log evidence {evidence:.2f} nats"


def _legend(axes: Any, soft: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Any] = [Patch(**hatched(BLUE), label="prior"), Patch(color=ORANGE, label="message"),
             Patch(color=GREEN, label="belief")]  # fmt: skip
    if soft:
        marks.append(Patch(**hatched(MUTED), label="soft evidence"))
    marks.append(Patch(facecolor=SHADE, edgecolor=INK, label="observed"))
    table = Line2D([], [], color=INK, linestyle="none", marker="s", markersize=6, label="table")
    legend(axes, [*marks, table])
