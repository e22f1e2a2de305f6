"""A picture of what an observation says of each site: its tokens before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import OptionError
from ._checks import check_row
from ._style import (
    BLUE,
    GREEN,
    INK,
    LABEL,
    MUTED,
    NOTE,
    TITLE,
    VERMILION,
    hatched,
    legend,
    plain,
    quiet,
)

if TYPE_CHECKING:
    from ..infer import Posterior
    from ._figure import Drawing

_ACROSS = 3  # panels side by side
_PANEL, _GAP = (2.75, 1.35), (0.5, 0.66)  # inches
_EDGE, _HEAD, _FOOT = 0.08, 0.62, 0.62
_SLIGHT = 5e-3
"""What a token of a large alphabet has to have, before or after, to be worth a bar."""


def draw_marginals(
    posterior: Posterior,
    sites: Sequence[str] | None = None,
    row: tuple[int, int] = (0, 0),
    truth: Mapping[str, int] | None = None,
    *,
    limit: int = 10,
    path: str | Path | None = None,
) -> Drawing:
    """Draw p(site | evidence) beside the prior p(site | past), token by token, of one row.

    sites: latent ones, by default all. row: (mixture, candidate). truth: {site: token} to be
    marked. Of alphabets larger than `limit` + 2 up to `limit` tokens are shown, those of the most
    mass before or after and the true one, in falling order of their belief; the last bars are the
    mass of all others. Partial mixtures have no prior of their own. The uncertainty of each site,
    after and before, is in bits. `path` (.png, .svg or .pdf) is written when given.

    Raises OptionError on a row, a site or a true token that is not there, and on another ending.
    """
    from ._figure import Lines

    place = check_row(posterior, row)
    beliefs = posterior.marginals()
    names = list(beliefs) if sites is None else list(sites)
    if unknown := [name for name in names if name not in beliefs]:
        raise OptionError(
            f"no marginal of '{unknown[0]}': the latent sites of '{posterior.graph.name}' are "
            f"{list(beliefs)}."
        )
    if not names or limit < 1:
        raise OptionError(f"at least one site and one token are drawn, got {names}, {limit=}.")
    if strange := [name for name in truth or {} if name not in beliefs]:
        raise OptionError(f"truth names '{strange[0]}'; the latent sites are {list(beliefs)}.")
    told = {name: int(token) for name, token in (truth or {}).items() if name in names}
    columns = 2 if len(names) == 4 else min(_ACROSS, len(names))
    lines = -(-len(names) // columns)
    wide = 2 * _EDGE + columns * (_PANEL[0] + _GAP[0])
    tall = _HEAD + lines * (_PANEL[1] + _GAP[1]) - _GAP[1] + _FOOT
    figure = Lines(figsize=(wide, tall))
    for number, name in enumerate(names):
        left = _EDGE + (number % columns) * (_PANEL[0] + _GAP[0]) + _GAP[0]
        top = tall - _HEAD - (number // columns) * (_PANEL[1] + _GAP[1])
        axes = figure.add_axes(
            (left / wide, (top - _PANEL[1]) / tall, _PANEL[0] / wide, _PANEL[1] / tall)
        )
        prior = None
        if name in posterior.graph.sources and name in posterior.position.unary:
            prior = _shares(posterior.position.unary[name][place].double())
        bars = _bars(name, beliefs[name][row].double().cpu(), prior, told.get(name), limit)
        _panel(axes, name, bars)
    _title(figure, posterior, row, bool(told))
    if path is not None:
        figure.write(path)
    return figure


@dataclass(frozen=True)
class _Bars:
    """labels: of each pair of bars. after, before: their heights. true: place of the true token.
    bits: entropy after and before."""

    labels: list[str]
    after: list[float]
    before: list[float] | None
    true: int | None
    bits: tuple[float, float | None]


def _shares(log: Tensor) -> Tensor:
    log = log.detach().cpu()
    return log.softmax(0) if bool((log > float("-inf")).any()) else torch.zeros_like(log)


def _bits(share: Tensor) -> float:
    return float(torch.special.entr(share).sum().clamp_min(0)) / math.log(2)


def _bars(name: str, after: Tensor, before: Tensor | None, true: int | None, limit: int) -> _Bars:
    count = len(after)
    if true is not None and not 0 <= true < count:
        raise OptionError(f"truth['{name}'] is a token from 0 to {count - 1}, got {true}.")
    shown = list(range(count))
    if count > limit + 2:
        most = after if before is None else torch.maximum(after, before)
        tokens = most.argsort(descending=True, stable=True)[:limit].tolist()
        tokens = [token for token in tokens if most[token] >= _SLIGHT]
        tokens += [true] if true is not None and true not in tokens else []
        shown = sorted(tokens, key=lambda token: (-float(after[token]), -float(most[token])))
    labels, rest = [str(token) for token in shown], count - len(shown)
    heights = {"after": after[shown].tolist()}
    if before is not None:
        heights["before"] = before[shown].tolist()
    if rest:
        labels.append(f"{rest:,}\nothers")
        for share, own in ((after, heights["after"]), (before, heights.get("before"))):
            if share is not None and own is not None:
                own.append(max(0.0, float(share.sum()) - sum(own)))
    return _Bars(
        labels,
        heights["after"],
        heights.get("before"),
        None if true is None else shown.index(true),
        (_bits(after), None if before is None else _bits(before)),
    )


def _panel(axes: Any, name: str, bars: _Bars) -> None:
    quiet(axes, "bottom", grid=True)
    places = range(len(bars.labels))
    wide = 0.4 if bars.before is not None else 0.6
    shift = wide / 2 if bars.before is not None else 0.0
    if bars.before is not None:
        axes.bar([x - shift for x in places], bars.before, wide, **hatched(BLUE), zorder=2)
    axes.bar([x + shift for x in places], bars.after, wide, color=GREEN, zorder=3)
    top = max([*bars.after, *(bars.before or ()), 0.05])
    axes.set(xlim=(-0.6, max(len(bars.labels), 6) - 0.4), ylim=(0, 1.25 * top))
    axes.set_xticks(list(places), bars.labels, fontsize=NOTE)
    axes.locator_params(axis="y", nbins=4)
    clear = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}  # of the prior's bar beside it
    for x, height in zip(places, bars.after, strict=True):
        if height >= 0.1 * top:
            text = f"{height:.2f}".lstrip("0")
            axes.annotate(
                text, (x + shift, height), (0, 1.5), textcoords="offset points",
                fontsize=NOTE, color=INK, ha="center", va="bottom", bbox=clear, zorder=4,
            )  # fmt: skip
    if bars.true is not None:
        height = max(bars.after[bars.true], bars.before[bars.true] if bars.before else 0.0)
        axes.annotate(
            "▼", (bars.true, height), (0, 9), textcoords="offset points",
            fontsize=NOTE, color=VERMILION, ha="center", va="bottom",
        )  # fmt: skip
    after, before = bars.bits
    told = f"{after:.2f} bits" + ("" if before is None else f", {before:.2f} before")
    if not sum(bars.after):
        told = "impossible"
    axes.set_title(plain(name), fontsize=LABEL, color=INK, loc="left", pad=4)
    axes.set_title(told, fontsize=NOTE, color=MUTED, loc="right", pad=4)


def _title(figure: Any, posterior: Posterior, row: tuple[int, int], marked: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    evidence = float(posterior.log_evidence[row])
    kind = "exact" if posterior.exact else "approximate"
    engine = type(posterior.plan.engine).__name__
    text = f"{posterior.graph.name}: {engine}, {kind}, log evidence {evidence:.2f} nats"
    top = 1 - 0.2 / figure.get_figheight()
    figure.text(0.5, top, plain(text), fontsize=TITLE, color=INK, ha="center", va="center")
    marks: list[Any] = [Patch(**hatched(BLUE), label="prior"), Patch(color=GREEN, label="belief")]
    if marked:
        marks.append(Line2D([], [], color=VERMILION, linestyle="none", marker="v", label="truth"))
    legend(figure, marks)
