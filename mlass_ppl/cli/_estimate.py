"""Estimates by name, as `mlass separate` and `mlass evaluate` take them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import OptionError

ESTIMATES = ("auto", "mean", "expected", "nearest", "probable")

Name = Annotated[
    str,
    typer.Option(
        "--estimate",
        help="How candidates become one separation: mean (posterior mean), expected (the same of "
        "latents, by every position's marginals), nearest (to the mixture, as LASS) or probable; "
        "auto is expected for sounds whose sources differ, mean otherwise.",
    ),
]


def estimate_from(name: str, auto: Any) -> Any:
    """The estimate that `--estimate` names; `auto` is the one of that name. Raises OptionError on
    an unknown name."""
    from ..estimate import Expectation, Mean, MostProbable, Nearest

    if name not in ESTIMATES:
        raise OptionError(f"unknown --estimate '{name}': expected one of {', '.join(ESTIMATES)}.")
    named = auto, Mean(), Expectation(), Nearest(), MostProbable()
    return dict(zip(ESTIMATES, named, strict=True))[name]
