"""Sizes of memory, as options take them."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import OptionError

MemoryLimit = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        help="Memory that separating may take beside models and results: 2GB, 500MB. Fewer "
        "mixtures are then separated at once; no result changes.",
    ),
]


def bytes_from(text: str | None, option: str) -> float | None:
    """A size such as 4GB or 512MB in bytes; infinite for none. Raises OptionError that names the
    option."""
    if text is None:
        return None
    if text.lower() == "none":
        return float("inf")
    number, scale = text.upper().removesuffix("B"), 1.0
    for suffix, factor in (("K", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        if number.endswith(suffix):
            number, scale = number[:-1], factor
    try:
        size = float(number) * scale
    except ValueError:
        size = 0.0
    if not size > 0.0:
        raise OptionError(f"{option} takes a size such as 4GB or 512MB, or none; not '{text}'.")
    return size
