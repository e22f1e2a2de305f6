"""Pictures of separated images: the grid of estimates beside the truth, and the candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .._separating.signals import mixed
from ..errors import OptionError, SignalError
from ._checks import check_mixture
from ._style import INK, LABEL, MUTED, TICK, TITLE, plain

if TYPE_CHECKING:
    from ..separation import Separation
    from ._figure import Drawing

_GAP, _BLOCK_GAP = 2, 12  # pixels between the images of a block, and between blocks
_HEAD, _LEFT, _EDGE = 16, 16, 6  # pixels for titles, row labels, the outer margin
_NOTE = 11  # pixels under a row for its notes
_INCH = 36  # image pixels to the inch


@dataclass(frozen=True)
class _Block:
    """Columns that belong together: images [rows, k, H, W] and a note under each row."""

    title: str
    images: np.ndarray
    notes: Sequence[str] | None = None


def draw_estimates(
    mixtures: Tensor | Mapping[str, Tensor],
    estimates: Mapping[str, Tensor],
    truths: Tensor | None = None,
    *,
    labels: Sequence[str] | None = None,
    limit: int = 16,
    path: str | Path | None = None,
) -> Drawing:
    """Draw one row for each mixture: truth (when given), mixture, then every method's estimates.

    mixtures float [M, 1, H, W] in [0, 1], or several, {observed site: ...}; estimates {method:
    [M, n, 1, H, W]}; truths [M, n, 1, H, W]. With truths the estimates stand in the order that fits
    them best, with the mean PSNR in dB of that order below. `labels` name the rows; at most `limit`
    rows are drawn.
    Raises SignalError when the shapes do not go together, OptionError on an unknown ending.
    """
    given = {"mixture": mixtures} if isinstance(mixtures, Tensor) else dict(mixtures)
    count = len(next(iter(given.values())))
    rows = min(count, limit)
    blocks = [_Block(_title(given, "mixtures"), _grey(_stacked(given)[:rows], "mixtures"))]
    if truths is not None:
        blocks.insert(0, _Block("truth", _grey(truths[:rows], "truths")))
    for method, signals in estimates.items():
        if len(signals) != count:
            raise SignalError(f"there are {count} mixtures, but {len(signals)} rows of '{method}'.")
        if truths is None:
            blocks.append(_Block(method, _grey(signals[:rows], method)))
            continue
        from ..evaluate.metrics import score

        fit = score(signals[:rows], truths[:rows])
        order = torch.from_numpy(fit.permutation)
        placed = signals[:rows].detach().cpu()[torch.arange(rows)[:, None], order]
        notes = [f"{value:.1f} dB" for value in fit.mean]
        blocks.append(_Block(method, _grey(placed, method), notes))
    return _draw(blocks, labels or [str(row + 1) for row in range(rows)], path)


def draw_separation(
    separation: Separation,
    path: str | Path | None = None,
    *,
    truths: Tensor | None = None,
    labels: Sequence[str] | None = None,
) -> Drawing:
    """Draw a `Separation`: mixture, separated sources, the refined ones, and what they add up to,
    for each observed signal where there are several.

    truths float [M, n, 1, H, W], when known, stand first; the rest is as in `draw_estimates`.
    """
    rows = len(separation.mixtures)
    columns = {_title(separation.signals, "separated"): _stacked(separation.signals)}
    if separation.refined is not None:
        columns["refined"] = _stacked(separation.refined)
    if truths is not None:
        return draw_estimates(_observed(separation), columns, truths, labels=labels, path=path)
    given = _observed(separation)
    blocks = [_Block(_title(given, "mixtures"), _grey(_stacked(given), "mixtures"))]
    blocks += [_Block(title, _grey(signals, title)) for title, signals in columns.items()]
    sums = {site: separation.reconstruction(site) for site in separation.importance}
    title = "sum" if len(sums) == 1 else "sums"
    blocks.append(_Block(title, _grey(_stacked(sums), "reconstruction")))
    return _draw(blocks, labels or [str(row + 1) for row in range(rows)], path)


def draw_candidates(
    separation: Separation,
    index: int = 0,
    *,
    limit: int = 16,
    path: str | Path | None = None,
) -> Drawing:
    """Draw the candidates of one mixture, nearest to it first: their sources and their sum.

    Below each stands its mean squared error against the mixture (times 1,000); the first is the one
    that was chosen. Raises OptionError when the separation kept no candidates or has no such
    mixture.
    """
    if separation.candidates is None:
        raise OptionError(
            "this separation kept no candidates; call separate(..., keep_candidates=True)."
        )
    check_mixture(separation, index)
    order = separation.errors[index].argsort(stable=True)[:limit].cpu()
    shown = {name: kept[index].cpu()[order] for name, kept in separation.candidates.items()}
    graph, given = separation.graph, _observed(separation)
    sums = {site: mixed(shown, graph.leaf_weights(site)) for site in separation.importance}
    said = ["sum"] if len(sums) == 1 else [f"sum, {site}" for site in sums]
    errors = [f"{1000 * separation.errors[index, k].item():.1f}" for k in order.tolist()]
    parts = _grey(torch.stack([*shown.values(), *sums.values()]), "candidates")
    mixtures = _grey(torch.stack([value[index].cpu() for value in given.values()])[:, None], "mix")
    blank = np.full((len(shown), *mixtures.shape[1:]), np.nan)  # each stands beside its sum
    left = _Block(_title(given, "mixtures"), np.concatenate([blank, mixtures]))
    notes = [[""] * len(errors)] * (len(parts) - 1) + [errors]
    return _draw(
        [left, _Block(f"candidates, nearest first ({len(errors)} of "
                      f"{separation.errors.shape[1]})", parts)],
        [*shown, *said],
        path,
        under=notes,
    )  # fmt: skip


def _observed(separation: Separation) -> dict[str, Tensor]:
    """The observed signals by what they are called in a picture."""
    sites = list(separation.importance)
    names = ["mixture"] if len(sites) == 1 else sites
    return {name: separation.observed[site] for name, site in zip(names, sites, strict=True)}


def _title(names: Mapping[str, Tensor], otherwise: str) -> str:
    title = ", ".join(names)
    return title if len(title) < 24 else otherwise


def _stacked(signals: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(signals.values()), 1)


def _grey(images: Tensor, what: str) -> np.ndarray:
    """[rows, k, 1, H, W] as float [rows, k, H, W]."""
    if images.ndim != 5 or images.shape[2] != 1:
        raise SignalError(
            f"a grid needs grey images [rows, columns, 1, height, width]; {what} have "
            f"{list(images.shape)}."
        )
    return np.asarray(images.detach().cpu().numpy()[:, :, 0], dtype=np.float64)


def _draw(
    blocks: list[_Block],
    labels: Sequence[str],
    path: str | Path | None,
    under: Sequence[Sequence[str]] | None = None,
) -> Drawing:
    """One canvas for all images, so that a grid of hundreds is drawn at once.

    `under`: notes below each image of the last block, row by row.
    """
    from ._figure import Pixels

    height, width = blocks[0].images.shape[-2:]
    noted = under is not None or any(block.notes for block in blocks)
    step = height + (_NOTE if noted else 2 * _GAP)
    left = max(_LEFT, round(2.6 * max(map(len, labels))) + 8)
    starts, x = [], left
    for block in blocks:
        starts.append(x)
        x += max(block.images.shape[1] * (width + _GAP), 3 * len(block.title)) + _BLOCK_GAP
    size = (_HEAD + len(labels) * step + _EDGE, x - _BLOCK_GAP + _EDGE)
    canvas = np.full(size, np.nan)
    figure = Pixels(figsize=(size[1] / _INCH, size[0] / _INCH))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, size[1]), ylim=(size[0], 0))
    axes.axis("off")

    def write(x: float, y: float, text: str, points: float, align: Any, colour: str) -> None:
        axes.text(x, y, plain(text), fontsize=points, color=colour, ha=align, va="center")

    for row, label in enumerate(labels):
        write(left - 4, _HEAD + row * step + height / 2, label, LABEL, "right", MUTED)
    for block, start in zip(blocks, starts, strict=True):
        span = block.images.shape[1] * (width + _GAP) - _GAP
        write(start, _HEAD / 2, block.title, TITLE, "left", INK)
        for row, images in enumerate(block.images):
            top = _HEAD + row * step
            for k, image in enumerate(images):
                at = start + k * (width + _GAP)
                canvas[top : top + height, at : at + width] = image
                if under is not None and block is blocks[-1]:
                    write(at + width / 2, top + height + 5, under[row][k], TICK, "center", INK)
            if block.notes:
                write(start + span / 2, top + height + 5, block.notes[row], LABEL, "center", INK)
    axes.imshow(
        canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto",
        extent=(0, size[1], size[0], 0), zorder=0,
    )  # fmt: skip
    if path is not None:
        figure.write(path)
    return figure
