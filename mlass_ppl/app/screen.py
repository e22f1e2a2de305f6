"""What is shown of a separation of digits while it runs: the tokens so far, decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..bundle import Bundle
from ..draw import draw_graph, draw_messages
from ..errors import EngineError
from ..graph import MixingGraph
from . import html
from .prefixes import Seen

_UNDECIDED, _HERE = (0.80, 0.84, 0.90, 1.0), (0.90, 0.62, 0.0, 0.55)  # colours, and how much


@dataclass(frozen=True)
class View:
    """What the page shows, as HTML. archive: of the result, to download."""

    status: str = ""
    stage: str = ""
    picture: str = ""
    evidence: str = ""
    tree: str = ""
    code: str = ""
    archive: Path | None = None
    running: bool = False


@dataclass
class Screen:
    """Draws the frames of one separation. given: what stands above
    them. total: what the sources' mixture at the first observed site is called."""

    graph: MixingGraph
    bundle: Bundle
    given: Sequence[html.Tile]
    total: str = "their sum"
    blank: Mapping[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.blank = {
            name: codec.encode(torch.zeros(1, *codec.signal_shape))[0]
            for name in self.graph.sources
            for codec in [self.bundle.codec_of(self.graph, name)]
        }

    def frame(self, seen: Seen) -> View:
        """The tokens so far decoded, the rest greyed out; the messages of this token."""
        done = seen.position + 1
        signals, tint = self._decoded(seen), _tint(seen.position, seen.length)
        tiles = [html.Tile(name, html.pixels(signal[0], tint)) for name, signal in signals.items()]
        weights = self.graph.leaf_weights(self.graph.observed[0])
        total = torch.stack([w * signals[name] for name, w in weights.items()]).sum(0)
        so_far = [*tiles, html.Tile(self.total, html.pixels(total[0], tint))]
        rows = {"given": self.given, f"{done} of {seen.length} tokens so far": so_far}
        pasts = f"{seen.kinds} different pasts; the one shown has {seen.share:.0%} of the weight"
        return View(
            status=html.progress(f"Token {done} of {seen.length}", done, seen.length, pasts),
            stage=html.tiles(rows),
            picture=self._messages(seen),
            running=True,
        )

    def _decoded(self, seen: Seen) -> dict[str, Tensor]:
        out = {}
        for name, tokens in seen.tokens.items():
            whole = self.blank[name].clone()
            whole[: len(tokens)] = tokens.clamp_min(0)
            out[name] = self.bundle.codec_of(self.graph, name).decode(whole[None])[0]
        return out

    def _messages(self, seen: Seen) -> str:
        try:
            figure = draw_messages(seen.posterior, candidate=seen.row)
        except EngineError as error:  # which engines pass none, the error tells
            return html.message(str(error)) + html.drawn(draw_graph(self.graph), "the graph")
        return html.drawn(figure, f"messages of token {seen.position + 1}")


def _tint(position: int, length: int) -> np.ndarray:
    """Colours over the patches that have no token yet, and over the one that just got its."""
    side = isqrt(length)
    colours = np.zeros((length, 4))
    colours[position + 1 :] = _UNDECIDED
    colours[position] = _HERE
    patch = 28 // side
    return colours.reshape(side, side, 4).repeat(patch, 0).repeat(patch, 1)
