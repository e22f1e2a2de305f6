"""A distribution over tokens as a bar chart small enough to stand on an edge."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ._style import INK, MUTED
from .graph import Point, _text

_BARS = (0.74, 0.27)  # inches
_MOST = 64
PANEL = (0.86, 0.54)
"""Width and height of a chart with its captions, inches."""


def draw_chart(
    axes: Any,
    at: Point,
    share: Tensor,
    colour: str,
    *,
    hatched: bool = False,
    ground: bool = False,
) -> None:
    """Bars of a distribution [K] around a point, the largest at full height; above them its token
    and share, below the first and the last token. Of more than 64 tokens a bar is the largest of
    several neighbours. ground: on white. One without mass says so."""
    from matplotlib.patches import Polygon, Rectangle

    (x, y), (wide, tall) = at, _BARS
    left, floor = x - wide / 2, y - tall / 2
    if ground:
        corner = (x - PANEL[0] / 2, y - PANEL[1] / 2)
        axes.add_patch(Rectangle(corner, *PANEL, color="white", zorder=4))
    count, best = len(share), int(share.argmax())
    top, caption = float(share[best]), "impossible"
    if top > 0:
        parts = share.double().cpu().tensor_split(min(count, _MOST))
        heights = [float(part.max()) for part in parts]
        step = wide / len(heights)
        gap = 0.12 * step if count <= 32 else 0.0
        points = [(left, floor)]
        for place, height in enumerate(heights):
            begin, level = left + place * step, floor + tall * height / top
            points += [(begin + gap, floor), (begin + gap, level)]
            points += [(begin + step - gap, level), (begin + step - gap, floor)]
        look: dict[str, Any] = {"facecolor": colour, "linewidth": 0.0}
        if hatched:
            look = {"facecolor": "white", "edgecolor": colour, "hatch": "/" * 9}
            look["linewidth"] = 0.7 if count <= 32 else 0.3
        axes.add_patch(Polygon([*points, (left + wide, floor)], zorder=5, **look))
        caption = f"{best}: {top:.2g}"
    axes.plot([left, left + wide], [floor, floor], color=INK, linewidth=0.7, zorder=6)
    _text(axes, x, y + tall / 2 + 0.07, caption, 5.8, INK)
    for token in {0, count - 1}:
        _text(axes, left + wide * (token + 0.5) / count, floor - 0.06, str(token), 4.6, MUTED)
