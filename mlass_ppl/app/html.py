"""Pieces of the page: pictures in place, progress, messages."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """A small picture with a title above it and a note below."""

    title: str
    png: bytes
    note: str = ""


def picture(png: bytes, about: str, *, css: str = "mlass-picture") -> str:
    """An <img> that holds its picture. about: for those who cannot see it."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img class="{css}" alt="{escape(about)}" src="data:image/png;base64,{data}">'


def tiles(rows: Mapping[str, Sequence[Tile]]) -> str:
    """Rows of tiles, each with what it is called."""
    out = []
    for name, own in rows.items():
        cells = "".join(
            f'<figure class="mlass-tile"><figcaption>{escape(tile.title)}</figcaption>'
            f"{picture(tile.png, tile.title, css='mlass-pixels')}"
            f"<small>{escape(tile.note)}&nbsp;</small></figure>"
            for tile in own
        )
        out.append(f'<div class="mlass-row"><h4>{escape(name)}</h4><div>{cells}</div></div>')
    return "".join(out)


def progress(text: str, done: int, total: int, detail: str = "") -> str:
    """A bar with a sentence above it."""
    share = 100 * done / max(total, 1)
    return (
        f'<div class="mlass-progress" role="status"><b>{escape(text)}</b>'
        f"<span>{escape(detail)}</span>"
        f'<div><div style="width:{share:.1f}%"></div></div></div>'
    )


def waiting() -> str:
    """What a visitor sees until the worker is free."""
    return progress("Waiting for its turn", 0, 1)


def message(text: str) -> str:
    """A quiet line."""
    return f'<div class="mlass-note" role="status">{escape(text)}</div>' if text else ""


def problem(error: Exception) -> str:
    """What went wrong, in the library's own words."""
    name = type(error).__name__
    return (
        f'<div class="mlass-problem" role="alert"><b>{escape(name)}</b>'
        f"<p>{escape(str(error))}</p></div>"
    )


def facts(values: Mapping[str, str]) -> str:
    """A table of two columns."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="mlass-facts">{rows}</table>'


def pixels(grey: Tensor, tint: np.ndarray | None = None) -> bytes:
    """A PNG of a grey image [H, W] in [0, 1]. tint: colours [H, W, 4] laid over it, the last
    channel how much of the colour there is."""
    from PIL import Image

    values = grey.detach().cpu().clamp(0, 1).double().numpy()
    if tint is not None:
        values = values[..., None] * (1 - tint[..., 3:]) + tint[..., :3] * tint[..., 3:]
    buffer = io.BytesIO()
    Image.fromarray((values * 255).round().astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def drawn(figure: Any, about: str) -> str:
    """A drawing of `mlass_ppl.draw` in place."""
    return picture(figure.render("png", dpi=132), about)
