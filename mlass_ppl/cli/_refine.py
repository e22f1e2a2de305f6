"""Refinements by name, as `mlass separate` and `mlass evaluate` take them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import OptionError

REFINEMENTS = ("auto", "learned", "descent", "none")

Name = Annotated[
    str,
    typer.Option(
        "--refine",
        help=f"Refinement of the chosen candidate: {', '.join(REFINEMENTS)}. auto is learned where "
        "the bundle has a refiner, else descent.",
    ),
]


def check_name(name: str) -> None:
    """Raise OptionError on an unknown refinement, before a bundle is read."""
    if name not in REFINEMENTS:
        raise OptionError(f"unknown --refine '{name}': expected one of {', '.join(REFINEMENTS)}.")


def refinement_from(name: str, bundle: Any, steps: int = 500) -> Any:
    """The refinement that `--refine` names, for a bundle; None for none. steps: of a descent.
    Raises OptionError on an unknown name, and BundleError where the bundle has no refiner."""
    from ..refine import Learned, Refine

    check_name(name)
    if name == "none":
        return None
    if name == "descent" or (name == "auto" and bundle.refiner is None):
        return Refine(steps=steps)
    learned = Learned()
    learned.check(bundle)
    return learned
