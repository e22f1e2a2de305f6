"""Formulas for the site, `$...$` and `$$...$$` on a page, as MathML, which browsers draw.

Viewers of repositories draw the same signs on their own, and the site needs no script for it.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_page_content(content: str, **_: Any) -> str:
    return _FORMULA.sub(_drawn, content)


def _drawn(found: re.Match[str]) -> str:
    formula = html.unescape(found[3]).strip()
    drawn = convert(formula, display="inline" if found[2] == "(" else "block")
    drawn = drawn.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # "is drawn from"
    if "<mi>&</mi>" in drawn or "<mi>\\" in drawn:
        raise PluginError(f"no MathML of {formula!r}: align lines by an array, {{rl}}.")
    return drawn if found[2] == "(" else f'<div class="formula">{drawn}</div>'
