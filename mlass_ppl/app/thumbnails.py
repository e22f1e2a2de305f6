"""Small pictures of digits: those to pick from, and those that are mixed."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..data.digits import bundled_digits
from . import html
from .digits import OFFERED, Mixing

_SIDE = 84  # three screen pixels for each of a digit


def thumbnails(folder: Path) -> list[str]:
    """PNG files of the bundled digits to pick from, in the order of their indices."""
    images, labels = bundled_digits(list(range(OFFERED)))
    home = folder / "digits"
    home.mkdir(exist_ok=True)
    out = []
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = home / f"{index:02d}-{label}.png"
        pixels = (image[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST).save(path)
        out.append(str(path))
    return out


def slots(mixing: Mixing) -> str:
    """The digits that are mixed, the places still free, and their mixture."""
    mean = mixing.mean()
    cells = []
    if mixing.uploaded is None:
        cells = [
            html.picture(html.pixels(digit.pixels[0]), digit.name, css="mlass-slot")
            for digit in mixing.digits
        ]
        free = mixing.count - len(mixing.digits)
        cells += ['<span class="mlass-slot mlass-free">?</span>'] * free
    joined = '<span class="mlass-sign">+</span>'.join(cells)
    sign = '<span class="mlass-sign">=</span>' if cells else ""
    last = '<span class="mlass-slot mlass-free"></span>'
    if mean is not None:
        last = html.picture(html.pixels(mean[0]), "their mean", css="mlass-slot mlass-mean")
    return f'<div class="mlass-slots">{joined}{sign}{last}</div>'
