"""A picture of where a separation is unsure: how far its candidates disagree on each token."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SignalError
from ._candidates import candidate_tokens, entropy, grid, shares
from ._checks import check_candidates, check_mixture
from ._style import BLUE, INK, LABEL, MAP, MUTED, NOTE, TICK, TITLE, WIDTH, plain, quiet

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..separation import Separation
    from ._figure import Drawing

_COLUMNS = 900  # of a waveform: about one a pixel
_TILE, _GAP = 1.25, 0.12  # inches


def draw_uncertainty(
    separation: Separation,
    mixture: int = 0,
    *,
    bundle: Bundle | None = None,
    path: str | Path | None = None,
) -> Drawing:
    """Draw the entropy of each source's tokens over the weighted candidates, in bits.

    Of images a map over the grid of tokens below each estimate; of sounds a curve along time below
    each waveform, which is drawn as loud as it gets. An entropy of 0 bits is one token in all
    candidates, and C candidates have at most log2(C) bits, fewer where a few have all the weight:
    the picture says to how many candidates of equal weight they amount.

    bundle: sources that it makes interchangeable (of one prior, class and weight) are first put
    into the order nearest to the chosen candidate's, token by token; without that a candidate and
    its mirror image disagree everywhere.

    `candidate_tokens` are those left at the end: after resampling (`SMC`) or selection (`Beam`)
    many candidates share one early past, so that early positions are less certain than they look.
    `path` (.png, .svg or .pdf) is written when given. Raises OptionError on a mixture that is not
    there and on another ending, SignalError on images that are not grey.
    """
    check_candidates(separation)
    check_mixture(separation, mixture)
    tokens, share = candidate_tokens(separation, mixture, bundle), shares(separation, mixture)
    bits = {name: entropy(own, share).numpy() for name, own in tokens.items()}
    signals = {name: separation[name][mixture].detach().cpu() for name in bits}
    if separation.sample_rate is not None:
        figure = _sounds(separation, mixture, signals, bits)
    else:
        figure = _images(separation, mixture, signals, bits)
    if path is not None:
        figure.write(path)
    return figure


def _told(separation: Separation, mixture: int, between: str = ",\n") -> str:
    """How many candidates, and to how many of equal weight they amount."""
    share = shares(separation, mixture)
    return f"{len(share)} candidates{between}worth {float(1 / share.square().sum()):.1f} equal ones"


def _most(bits: dict[str, np.ndarray], count: int) -> float:
    """The top of the scale: what is there, at least a bit, at most what candidates can tell."""
    top = max(float(own.max()) for own in bits.values())
    return min(max(math.ceil(top), 1.0), max(math.log2(count), 1.0))


def _images(
    separation: Separation, mixture: int, signals: dict[str, Tensor], bits: dict[str, np.ndarray]
) -> Drawing:
    from ._figure import Pixels

    first = next(iter(signals.values()))
    if first.ndim != 3 or first.shape[0] != 1:
        raise SignalError(f"maps stand beside grey images [1, H, W], got {list(first.shape)}.")
    given = {site: separation.observed[site][mixture].cpu() for site in separation.importance}
    top = _most(bits, separation.evidence.shape[1])
    columns = len(given) + len(bits)
    wide, tall = 0.3 + columns * (_TILE + _GAP) + 0.75, 2 * (_TILE + _GAP) + 0.4
    figure = Pixels(figsize=(wide, tall))

    def tile(column: int, row: int) -> Any:
        left, bottom = 0.2 + column * (_TILE + _GAP), 0.15 + (1 - row) * (_TILE + _GAP)
        axes = figure.add_axes((left / wide, bottom / tall, _TILE / wide, _TILE / tall))
        axes.set(xticks=[], yticks=[])
        quiet(axes)
        return axes

    for column, (name, image) in enumerate([*given.items(), *signals.items()]):
        axes = tile(column, 0)
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(plain(name), fontsize=LABEL, color=INK, pad=4)
    shown: Any = None
    for column, own in enumerate(bits.values(), len(given)):
        places = grid(len(own), *first.shape[1:])
        shown = tile(column, 1).imshow(
            own.reshape(places), cmap=MAP, vmin=0, vmax=top, interpolation="nearest", aspect="auto"
        )
    box = (1 - 0.62 / wide, 0.15 / tall, 0.1 / wide, _TILE / tall)
    bar = figure.colorbar(shown, cax=figure.add_axes(box))
    bar.set_label("bits", fontsize=LABEL, color=MUTED)
    bar.ax.tick_params(labelsize=NOTE, colors=MUTED)
    bar.outline.set_visible(False)
    figure.text(
        (0.2 + _TILE / 2) / wide, (0.15 + _TILE / 2) / tall,
        f"entropy of\neach token over\n{_told(separation, mixture)}",
        fontsize=TICK, color=MUTED, ha="center", va="center", linespacing=1.4,
    )  # fmt: skip
    return figure


def _sounds(
    separation: Separation, mixture: int, signals: dict[str, Tensor], bits: dict[str, np.ndarray]
) -> Drawing:
    from ._figure import Lines

    assert separation.sample_rate is not None
    seconds = next(iter(signals.values())).shape[-1] / separation.sample_rate
    top = _most(bits, separation.evidence.shape[1])
    tall = 0.75 + 1.25 * len(bits)
    figure = Lines(figsize=(WIDTH, tall))
    side = 1.1 / WIDTH
    for row, (name, own) in enumerate(bits.items()):
        bottom = 0.5 + 1.25 * (len(bits) - 1 - row)
        wave = figure.add_axes((side, (bottom + 0.45) / tall, 0.98 - side, 0.62 / tall))
        low, high = _envelope(signals[name].flatten())
        x = np.linspace(0, seconds, len(low))
        loudest = max(float(high.max()), -float(low.min())) or 1.0
        wave.fill_between(x, low, high, color=MUTED, linewidth=0.3)
        wave.set(xlim=(0, seconds), ylim=(-loudest, loudest), xticks=[], yticks=[])
        wave.set_ylabel(plain(name), fontsize=LABEL, color=INK, rotation=0, ha="right", va="center")
        quiet(wave)
        axes = figure.add_axes((side, bottom / tall, 0.98 - side, 0.42 / tall))
        edges = np.linspace(0, seconds, len(own) + 1)
        axes.stairs(own, edges, fill=True, color=BLUE)
        axes.set(xlim=(0, seconds), ylim=(0, top))
        quiet(axes, "bottom")
        axes.set_yticks([top], [f"{top:.3g} bits"])
        last = row == len(bits) - 1
        axes.tick_params(labelbottom=last)
        if last:
            axes.set_xlabel("seconds", fontsize=LABEL, color=MUTED)
    text = f"entropy of each token over {_told(separation, mixture, ', ')}"
    figure.text(side, 1 - 0.25 / tall, text, fontsize=TITLE, color=INK)
    return figure


def _envelope(signal: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest sample of each of up to `_COLUMNS` stretches."""
    parts = torch.tensor_split(signal, min(_COLUMNS, max(1, len(signal))))
    low, high = zip(*(part.aminmax() for part in parts), strict=True)
    return np.array([float(x) for x in low]), np.array([float(x) for x in high])
