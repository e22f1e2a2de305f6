"""How time and memory of `BP` grow: with sources, alphabet, filled cells, candidates, mixtures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mlass_ppl as mlass

from .measure import Call, Plan, extra_mb, median_ms, times
from .problem import Case, Problem
from .synthetic import CHILDREN, made

_BASE = Case(3, 256, 64)
"""What is held where it does not vary."""


@dataclass(frozen=True)
class Curve:
    """What varies, over which values, in which words, and the power of it that time should follow:
    the number of cells grows with K^2."""

    name: str
    values: tuple[int, ...]
    label: str
    power: float = 1.0


def curves(quick: bool) -> tuple[Curve, ...]:
    short = slice(None, None, 2) if quick else slice(None)
    return (
        Curve("n", (2, 3, 4, 5, 6, 7, 8)[short], "sources n of a chain"),
        Curve("k", (64, 128, 256, 512, 1024)[: 3 if quick else None], "alphabet K", 2.0),
        Curve("children", (2, 4, 8, 16, 32)[short], "filled cells for each pair of parents"),
        Curve("candidates", (16, 64, 256, 512, 1024)[short], "candidates C of a mixture"),
        Curve("mixtures", (1, 2, 4, 8, 16)[short], "mixtures M, 64 candidates each"),
    )


def scaling(wanted: Iterable[Curve], plan: Plan, out: Path) -> Iterator[dict[str, Any]]:
    """A row for each value of each curve, then one with the fits; writes `scaling.png` to `out`."""
    rows, fits = [], []
    for curve in wanted:
        own = list(_curve(curve, plan))
        rows += own
        yield from own
        fits.append(
            {
                "part": "fit",
                "varies": curve.name,
                "power": curve.power,
                **_line("ms", own, curve),
                **_line("peak_mb", own, curve),
            }
        )
        yield fits[-1]
    _draw(rows, fits, out / "scaling.png")


def _curve(curve: Curve, plan: Plan) -> Iterator[dict[str, Any]]:
    """The calls of one curve are made in turn, so that other work on the machine meets them all."""
    calls: dict[str, Call] = {}
    cells = {}
    for value in curve.values:
        case, children, mixtures = _BASE, CHILDREN, 1
        if curve.name == "children":
            children = float(value)
        elif curve.name == "mixtures":
            mixtures = value
        else:
            case = replace(case, **{curve.name: value})
        problem = made(case, children)
        calls[str(value)] = _asked(problem, mixtures)
        cells[str(value)] = sum(len(table.keys) for table in problem.chained)
    seconds = times(calls, plan)
    for name, call in calls.items():
        yield {
            "part": "scaling",
            "varies": curve.name,
            "value": int(name),
            "cells": cells[name],
            "ms": median_ms(seconds[name]),
            "repeats": len(seconds[name]),
            "peak_mb": extra_mb(call),
        }


def _asked(problem: Problem, mixtures: int) -> Call:
    """Posterior and joint sample of as many mixtures, each as the problem's."""
    plan = mlass.BP().plan(problem.graph, problem.tables)
    log_priors = {name: log.expand(mixtures, -1, -1) for name, log in problem.log_priors.items()}
    given = {"mixture": torch.full((mixtures,), problem.token)}
    random = [torch.Generator().manual_seed(number) for number in range(mixtures)]
    return lambda: plan.posterior(log_priors, given).sample(random)


def _line(what: str, rows: list[dict[str, Any]], curve: Curve) -> dict[str, float]:
    """Least squares of a line against the value to its power: slope, intercept and R^2."""
    found = [(row["value"] ** curve.power, row[what]) for row in rows if row[what] is not None]
    if len(found) < 2:
        return {}
    x, y = np.array(found, dtype=float).T
    slope, intercept = np.polyfit(x, y, 1)
    rest, spread = ((y - slope * x - intercept) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    r2 = 1.0 - rest / spread if spread > 0 else 1.0
    return {
        f"{what}_slope": float(slope),
        f"{what}_at_0": float(intercept),
        f"{what}_r2": float(r2),
    }


def _draw(rows: list[dict[str, Any]], fits: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    labels = {curve.name: curve.label for curve in curves(False)}
    figure = Figure(figsize=(3.0 * len(fits), 5.2), layout="constrained")
    axes = figure.subplots(2, len(fits), squeeze=False)
    for column, fit in enumerate(fits):
        own = [row for row in rows if row["varies"] == fit["varies"]]
        for axis, what, unit in zip(axes[:, column], ("ms", "peak_mb"), ("ms", "MB"), strict=True):
            points = [(row["value"], row[what]) for row in own if row[what] is not None]
            axis.plot(*zip(*points, strict=True), "o", color="#0072B2", markersize=4)
            if f"{what}_slope" in fit:
                x = np.linspace(0, max(value for value, _ in points), 100)
                y = fit[f"{what}_slope"] * x ** fit["power"] + fit[f"{what}_at_0"]
                power = "" if fit["power"] == 1 else f", against its power {fit['power']:g}"
                axis.plot(x, y, color="#D55E00", linewidth=1)
                axis.set_title(f"R² = {fit[f'{what}_r2']:.3f}{power}", fontsize=8)
            axis.set_ylim(bottom=0)
            axis.set_ylabel(unit, fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
        axes[1, column].set_xlabel(labels[fit["varies"]], fontsize=8)
    figure.suptitle(f"A joint sample by BP(); where not varied {_BASE}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
