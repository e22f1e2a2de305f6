"""What the ablation compares: one switch at a time, from the published model to the default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlass_ppl as mlass


@dataclass(frozen=True)
class Setting:
    """group: what is varied there. program, infer, search: as `separate` takes them."""

    group: str
    name: str
    program: Any
    infer: mlass.Engine
    search: mlass.Search
    smoothing: Any = None

    @property
    def graph(self) -> mlass.MixingGraph:
        return mlass.compile_program(self.program)


LINEAR = mlass.Feature(linear=True)

LOUD = {"source_1": 0.5, "source_2": 0.3, "source_3": 0.2}
"""Weights of three sources that are not alike."""


def ordered(*names: str) -> Any:
    """A chain of tokens of the sources of `LOUD` in this order, the last one added last, in the
    alphabets of `fine(n)`. The order of the first two changes nothing."""

    def program() -> Any:
        heard, loud = mlass.source(names[0]), LOUD[names[0]]
        for place, name in enumerate(names[1:], 2):
            both, last = loud + LOUD[name], place == len(names)
            heard = mlass.mix(
                "mixture" if last else f"mix_{place}",
                heard,
                mlass.source(name),
                weights=(loud / both, LOUD[name] / both),
                codec="fine" if last else "middle",
            )
            loud = both
        return heard

    program.__name__ = f"ordered({', '.join(names)})"
    return program


def unordered() -> Any:
    """The sources of `LOUD` under one linear feature, which has no order."""
    sources = [mlass.source(name) for name in LOUD]
    return mlass.mix("mixture", *sources, weights=tuple(LOUD.values()), evidence=LINEAR)


def best(n: int, candidates: int = 64) -> Setting:
    """The default: a linear feature of n sources, resampled candidates."""
    return Setting(
        "candidates",
        f"{candidates} candidates",
        mlass.joint(n, evidence=LINEAR),
        mlass.Auto(),
        mlass.SMC(candidates),
    )


def searches() -> dict[str, mlass.Search]:
    """All searches, by what the tables of the ablation call them."""
    return {
        "published: Sample(64)": mlass.Sample(64),
        "Sample, top_p 0.95": mlass.Sample(64, top_p=0.95),
        "Sample, temperature 0.8": mlass.Sample(64, temperature=0.8),
        "Greedy": mlass.Greedy(),
        "Beam(64)": mlass.Beam(64),
        "Beam(64, groups 4)": mlass.Beam(64, groups=4),
        "SMC(64), always": mlass.SMC(64, threshold=1.0),
        "SMC(64)": mlass.SMC(64),
        "SMC(64), temperature 1.2 to 0.8": mlass.SMC(64, temperature=(1.2, 0.8)),
    }


def settings(n: int) -> list[Setting]:
    """All settings for n sources: search, evidence, graph, order, number of candidates."""
    token, linear = mlass.chain(n), mlass.joint(n, evidence=LINEAR)
    rows = []
    if n <= 3:
        rows += [
            Setting("search", name, token, mlass.BP(), search)
            for name, search in searches().items()
        ]
        # `Auto()` takes `Truncated()` for three sources, which has no beams in groups.
        rows += [
            Setting("search by feature", name, linear, mlass.Auto(), search)
            for name, search in searches().items()
            if n == 2 or not isinstance(search, mlass.Beam) or search.groups == 1
        ]
        inner = {"inner": "middle"} if n > 2 else {}
        fine = mlass.chain(n, codec="fine", **inner)
        soft, counted = mlass.Soft(), mlass.Feature()
        rows += [
            Setting("evidence", name, program, mlass.BP(), mlass.SMC(64))
            for name, program in (
                ("token of 256", token),
                ("token of 2048", fine),
                ("weights over 256 tokens", mlass.chain(n, evidence=soft)),
                ("feature, counted", mlass.chain(n, evidence=counted)),
                ("feature, linear, chain", mlass.chain(n, evidence=LINEAR)),
                (
                    "feature, linear, power 0.5",
                    mlass.chain(n, evidence=mlass.Feature(0.5, linear=True)),
                ),
            )
        ]
    if n > 2:
        rows += [
            Setting("engine", f"Truncated({keep})", linear, mlass.Truncated(keep), mlass.SMC(64))
            for keep in (128, 512, 1024)
        ]
    if n == len(LOUD):
        loud, middle, quiet = LOUD
        orders = {
            "the loudest last": (quiet, middle, loud),
            "the middle one last": (loud, quiet, middle),
            "the quietest last": (loud, middle, quiet),
        }
        rows += [
            Setting("order", name, ordered(*order), mlass.BP(), mlass.SMC(64))
            for name, order in orders.items()
        ]
        rows.append(Setting("order", "linear feature", unordered, mlass.Auto(), mlass.SMC(64)))
    if n > 3:
        shapes = {"chain": mlass.chain(n), "balanced": mlass.balanced(n)}
        rows += [
            Setting("graph", f"{name}, tokens", program, mlass.BP(), mlass.SMC(64))
            for name, program in shapes.items()
        ]
    return rows + [best(n, count) for count in (4, 16, 64, 128, 256)]
