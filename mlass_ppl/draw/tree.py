"""A picture of a search: which candidates share a past, and where they part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError
from ._candidates import candidate_tokens, shares
from ._checks import check_candidates, check_mixture
from ._style import INK, LABEL, MUTED, NOTE, SKY, TITLE, VERMILION, WIDTH, plain, quiet

if TYPE_CHECKING:
    from ..separation import Separation
    from ._figure import Drawing

_SIDE = 1.1  # inches, for the weights


def draw_tree(
    separation: Separation,
    mixture: int = 0,
    source: str | None = None,
    *,
    path: str | Path | None = None,
) -> Drawing:
    """Draw the candidates of one mixture as a tree over the token positions.

    Candidates run together as long as their tokens are the same, at every source or at the one
    that is named, and part at a dot. A line is as wide as there are candidates on it. The bars at
    the end are their shares of the search's weights; the chosen candidate is marked.

    The tree is of the candidates that are left at the end: pasts that a search gave up (`SMC` by
    resampling, `Beam` by its width) are not in it, so that early positions show fewer branches than
    there were. `path` (.png, .svg or .pdf) is written when given. Raises OptionError on a mixture
    or a source that is not there, and on another ending.
    """
    from ._figure import Lines

    check_candidates(separation)
    check_mixture(separation, mixture)
    tokens = candidate_tokens(separation, mixture)
    if source is not None:
        if source not in tokens:
            raise OptionError(f"no source '{source}' here; there are {list(tokens)}.")
        tokens = {source: tokens[source]}
    groups = _prefixes(np.stack([own.numpy() for own in tokens.values()], -1))
    tree = _Tree(groups, int(separation.chosen[mixture]))
    count, length = groups.shape
    tall = min(5.0, max(1.6, 0.075 * count)) + 0.85
    figure = Lines(figsize=(WIDTH, tall))
    box = (0.12 / WIDTH, 0.5 / tall, 1 - (_SIDE + 0.3) / WIDTH, 1 - 0.85 / tall)
    axes = figure.add_axes(box)
    axes.set(xlim=(-1 - 0.01 * length, length - 1), ylim=(count - 0.3, -0.7))
    quiet(axes, "bottom")
    axes.set_yticks([])
    axes.set_xlabel("token position", fontsize=LABEL, color=MUTED)
    _lines(axes, tree)
    left = box[0] + box[2]
    _weights(figure.add_axes((left, box[1], _SIDE / WIDTH, box[3])), tree,
             shares(separation, mixture).numpy())  # fmt: skip
    what = plain(source if source is not None else ", ".join(tokens))
    ends = len(np.unique(groups[:, -1]))
    text = f"{what}: {count} candidates, {ends} different"
    figure.text(box[0], 1 - 0.22 / tall, text, fontsize=TITLE, color=INK)
    if path is not None:
        figure.write(path)
    return figure


def _prefixes(tokens: np.ndarray) -> np.ndarray:
    """Which candidates share their tokens up to each position, as numbers [C, T], of tokens
    [C, T, n]."""
    count, length = tokens.shape[:2]
    group = np.zeros(count, dtype=np.int64)
    out = np.empty((count, length), dtype=np.int64)
    for t in range(length):
        keys = np.column_stack([group, tokens[:, t]])
        group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        out[:, t] = group
    return out


@dataclass(frozen=True)
class _Line:
    """A run of candidates from one position to another: xs, ys; how many, and the chosen one?"""

    points: np.ndarray
    count: int
    chosen: bool


class _Tree:
    """Where everything stands. groups [C, T]: of `_prefixes`."""

    def __init__(self, groups: np.ndarray, chosen: int) -> None:
        self.size, self.length = groups.shape
        # Candidates of one past stand together, those of larger groups first.
        ranks = []
        for column in groups.T:
            sizes = np.bincount(column)
            ranks.append(np.argsort(np.argsort(-sizes, kind="stable"))[column])
        order = np.lexsort(ranks[::-1])
        self.row = np.empty(self.size, dtype=np.int64)
        self.row[order] = np.arange(self.size)
        self.lines: list[_Line] = []
        self.dots: list[tuple[float, float]] = []
        self.ends: list[tuple[float, np.ndarray, bool]] = []
        stack = [(np.arange(self.size), -1, float(self.row.mean()))]
        while stack:
            members, start, before = stack.pop()
            stop = start
            while stop + 1 < self.length and len(np.unique(groups[members, stop + 1])) == 1:
                stop += 1
            level, mine = float(self.row[members].mean()), bool((members == chosen).any())
            bend = min(stop - start, max(1.0, self.length / 30))
            points = [*_curve(start, before, start + bend, level), (stop, level)]
            self.lines.append(_Line(np.array(points), len(members), mine))
            if stop + 1 == self.length:
                self.ends.append((level, members, mine))
                continue
            self.dots.append((stop, level))
            kinds = groups[members, stop + 1]
            stack += [(members[kinds == kind], stop, level) for kind in np.unique(kinds)]


def _curve(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    """A bend that leaves and arrives level."""
    return [
        (x0 + (x1 - x0) * t, y0 + (y1 - y0) * (3 * t**2 - 2 * t**3)) for t in np.linspace(0, 1, 14)
    ]


def _lines(axes: Any, tree: _Tree) -> None:
    for line in sorted(tree.lines, key=lambda line: (line.chosen, line.count)):
        wide = 1.0 + 6.0 * line.count / tree.size
        style = {"solid_capstyle": "round", "solid_joinstyle": "round"}
        axes.plot(*line.points.T, color=SKY, linewidth=wide, zorder=2, **style)
        if line.chosen:
            axes.plot(*line.points.T, color=VERMILION, linewidth=1.9, zorder=4, **style)
    if tree.dots:
        axes.plot(*np.array(tree.dots).T, "o", color=INK, markersize=2.4, zorder=5)


def _weights(axes: Any, tree: _Tree, share: np.ndarray) -> None:
    quiet(axes)
    axes.set(ylim=(tree.size - 0.3, -0.7), xticks=[], yticks=[])
    top = max(float(share[members].sum()) for _, members, _ in tree.ends)
    axes.set_xlim(-0.06 * top, 2.0 * top)
    axes.set_xlabel("share of weight", fontsize=LABEL, color=MUTED, loc="left")
    for level, members, mine in tree.ends:
        mass = float(share[members].sum())
        colour = VERMILION if mine else SKY
        axes.barh(level, mass, height=0.8 * len(members) ** 0.5, color=colour)
        if mine:
            axes.text(mass + 0.05 * top, level, f"chosen, {mass:.2f}", fontsize=NOTE, color=INK,
                      va="center")  # fmt: skip
