"""A picture of how well the candidates' pasts foretold what was observed, position by position."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._candidates import grid
from ._checks import check_mixture
from ._style import INK, LABEL, MUTED, PALE, SKY, TITLE, VERMILION, WIDTH, legend, plain, quiet

if TYPE_CHECKING:
    from ..separation import Separation
    from ._figure import Drawing


def draw_evidence(
    separation: Separation, mixture: int = 0, *, path: str | Path | None = None
) -> Drawing:
    """Draw log p(observed at t | past) of the candidates of one mixture along the positions, nats.

    The band holds the middle 80 % of the candidates, the line in it is their median; the chosen
    candidate stands out. Below are marked the positions that the chosen one met blindly, since its
    tables rule out what was observed (evidence -inf), and those that were skipped because no table
    ever saw the observed token. Along seconds for sounds. Of features it is the logarithm of a
    density, which may be positive. Candidates are those left at the end: after resampling early
    positions show fewer different pasts than there were.

    `path` (.png, .svg or .pdf) is written when given. Raises OptionError on a mixture that is not
    there and on another ending.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from ._figure import Lines

    check_mixture(separation, mixture)
    told = separation.evidence[mixture].detach().cpu().double().numpy()
    chosen = told[int(separation.chosen[mixture])]
    length = told.shape[1]
    figure = Lines(figsize=(WIDTH, 2.7))
    axes = figure.add_axes((0.085, 0.27, 0.9, 0.62))
    quiet(axes, "left", "bottom", grid=True)
    edges, unit = np.arange(length + 1) - 0.5, "token position"
    if separation.sample_rate is not None:
        seconds = separation.mixtures.shape[-1] / separation.sample_rate
        edges, unit = np.linspace(0, seconds, length + 1), "seconds"
    elif separation.mixtures.ndim == 4:
        rows, across = grid(length, *separation.mixtures.shape[2:])
        if rows > 1:  # a line where a row of the image's grid of tokens begins
            unit = f"token position, {across} to a row of the image"
            axes.set_xticks(range(0, length, across))
            axes.grid(axis="x", color=PALE, linewidth=0.8)
    low, middle, high = _bands(told)
    axes.use_sticky_edges = False
    axes.stairs(high, edges, baseline=low, fill=True, color=SKY, alpha=0.35, linewidth=0)
    axes.stairs(middle, edges, baseline=None, color=SKY, linewidth=1.2)
    own = np.where(np.isfinite(chosen), chosen, np.nan)
    axes.stairs(own, edges, baseline=None, color=VERMILION, linewidth=1.6)
    marks = [
        Patch(color=SKY, alpha=0.35, label="80 % of the candidates"),
        Line2D([], [], color=SKY, linewidth=1.2, label="median"),
        Line2D([], [], color=VERMILION, linewidth=1.5, label="chosen"),
    ]
    skipped = _skipped(separation, told)
    ground, x = axes.get_xaxis_transform(), (edges[1:] + edges[:-1]) / 2
    for where, sign, name in ((np.isneginf(chosen), "x", "blind"), (skipped, "|", "skipped")):
        if where.any():
            style: dict[str, Any] = {
                "marker": sign,
                "color": INK,
                "linestyle": "none",
                "markersize": 5,
            }
            axes.plot(x[where], np.full(where.sum(), 0.04), transform=ground, **style)
            marks.append(Line2D([], [], label=name, **style))
    axes.set_xlim(edges[0], edges[-1])
    kind = "log density" if separation.graph.features else "log evidence"
    axes.set_ylabel(f"{kind}, nats", fontsize=LABEL, color=MUTED)
    axes.set_xlabel(unit, fontsize=LABEL, color=MUTED)
    total = float(chosen[np.isfinite(chosen)].sum())
    text = f"{separation.graph.name}: log p(observed | past), {total:.1f} nats along the chosen one"
    axes.set_title(plain(text), fontsize=TITLE, color=INK, loc="left")
    legend(figure, marks)
    if path is not None:
        figure.write(path)
    return figure


def _bands(told: np.ndarray) -> np.ndarray:
    """Tenth, middle and ninetieth percent of what is finite, [3, T]; NaN where nothing is."""
    out = np.full((3, told.shape[1]), np.nan)
    if (some := np.isfinite(told).any(0)).any():
        finite = np.where(np.isfinite(told), told, np.nan)[:, some]
        out[:, some] = np.nanquantile(finite, (0.1, 0.5, 0.9), axis=0)
    return out


def _skipped(separation: Separation, told: np.ndarray) -> np.ndarray:
    """Positions that were skipped: of evidence 0 for every candidate, where a notice says so."""
    if not any("skipped" in notice for notice in separation.notices):
        return np.zeros(told.shape[1], dtype=bool)
    return np.asarray((told == 0).all(0))
