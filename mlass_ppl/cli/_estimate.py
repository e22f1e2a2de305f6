"""Estimates by name, as `mlass separate` and `mlass evaluate` take them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import OptionError

ESTIMATES = ("mean", "nearest", "probable")

Name = Annotated[
    str,
    typer.Option(
        "--estimate",
        help="How candidates become one separation: mean (posterior mean), nearest (to the "
        "mixture, as LASS) or probable.",
    ),
]


def estimate_from(name: str) -> Any:
    """The estimate that `--estimate` names. Raises OptionError on an unknown name."""
    from ..estimate import Mean, MostProbable, Nearest

    if name not in ESTIMATES:
        raise OptionError(f"unknown --estimate '{name}': expected one of {', '.join(ESTIMATES)}.")
    return dict(zip(ESTIMATES, (Mean(), Nearest(), MostProbable()), strict=True))[name]
