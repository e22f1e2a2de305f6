"""hypothesis, which only tests need."""

from __future__ import annotations

from typing import Any

from ..errors import MlassError


def strategies() -> Any:
    """The module `hypothesis.strategies`. Raises MlassError where it is not installed."""
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise MlassError(
            f"random graphs and problems are drawn by hypothesis ({error}). Install it: "
            "pip install hypothesis. Without it, check_engine(engine, problem) checks one problem."
        ) from error
    return strategies
