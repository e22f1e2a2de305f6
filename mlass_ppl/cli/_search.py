"""Searches by name and options, as `mlass separate` and `mlass evaluate` take them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import OptionError

SEARCHES = ("sample", "smc", "beam", "greedy")

Name = Annotated[str, typer.Option("--search", help=f"How candidates grow: {', '.join(SEARCHES)}.")]
Temperature = Annotated[
    str, typer.Option(help="Of the priors; FIRST:LAST goes from the first token to the last.")
]
TopK = Annotated[
    int | None, typer.Option(help="Keep only the k most probable tokens of each prior.")
]
TopP = Annotated[
    float | None, typer.Option(help="Keep only the tokens that hold this share of a prior's mass.")
]


def candidates_for(asked: int | None, sound: bool) -> int:
    """How many candidates: by default 64, of sound, whose signals have ten times as many tokens,
    16."""
    return (16 if sound else 64) if asked is None else asked


def search_from(
    name: str, candidates: int, temperature: str, top_k: int | None, top_p: float | None
) -> Any:
    """The search that the options name; `candidates` is the width of a beam, and greedy has one.
    Raises OptionError on an unknown name and on values out of range."""
    from ..search import SMC, Beam, Greedy, Sample

    prior: dict[str, Any] = {
        "temperature": _temperature(temperature), "top_k": top_k, "top_p": top_p
    }  # fmt: skip
    if name == "greedy":
        return Greedy(**prior)
    if name not in SEARCHES:
        raise OptionError(f"unknown search '{name}': expected one of {', '.join(SEARCHES)}.")
    if candidates < 1:
        raise OptionError(f"--candidates must be a whole number, at least 1, got {candidates}.")
    kinds: dict[str, Any] = {"sample": Sample, "smc": SMC, "beam": Beam}
    return kinds[name](candidates, **prior)


def _temperature(text: str) -> float | tuple[float, ...]:
    try:
        parts = tuple(float(part) for part in text.split(":"))
    except ValueError as error:
        raise OptionError(
            f"--temperature takes a number, or FIRST:LAST such as 1.2:0.8; got '{text}'."
        ) from error
    return parts[0] if len(parts) == 1 else parts
