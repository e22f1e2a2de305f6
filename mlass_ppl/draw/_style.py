"""The look that all pictures share: colours, sizes of type, quiet axes."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's palette, told apart by readers with any kind of colour blindness. What only a
# colour would tell is told by hatching, width, a mark or a word as well, so that grey prints read.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY = "#56B4E9"  # of candidates: lighter in grey than the chosen one's vermilion
INK, MUTED, SHADE, PALE = "#222222", "#6b6b6b", "#d0d0d0", "#eeeeee"

MAP = "cividis"
"""Colours of maps: they read alike with and without colour blindness, and as greys."""

TITLE, LABEL, TICK, NOTE = 9.5, 8.5, 7.5, 6.5
"""Sizes of type, points: above a picture, of a panel, along an axis, beside a mark."""

WIDTH, WIDE = 7.2, 9.0
"""Inches, of pictures whose width is free: that of a page's text, and more for spectrograms."""


def plain(text: str) -> str:
    """A name as it is: no formula."""
    return text.replace("$", r"\$")


def quiet(axes: Any, *sides: str, grid: bool = False) -> None:
    """Only these sides of a frame ("left", "bottom"), in grey; grid: pale horizontal lines."""
    for name, spine in axes.spines.items():
        spine.set_visible(name in sides)
        spine.set_color(MUTED)
        spine.set_linewidth(0.7)
    axes.tick_params(labelsize=TICK, colors=MUTED, width=0.7, length=3)
    axes.tick_params(left="left" in sides, bottom="bottom" in sides)
    if grid:
        axes.grid(axis="y", color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)


def hatched(colour: str, **more: Any) -> dict[str, Any]:
    """The look of what was believed before: an outline filled with strokes."""
    return {"facecolor": "white", "edgecolor": colour, "hatch": "/" * 7, "linewidth": 0.7, **more}


def legend(axes: Any, marks: list[Any], where: str = "lower center", **more: Any) -> None:
    """The marks in one line."""
    axes.legend(
        handles=marks, loc=where, ncols=len(marks), frameon=False, fontsize=TICK,
        handletextpad=0.4, columnspacing=1.2, borderpad=0.1, handlelength=1.4, **more,
    )  # fmt: skip
