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


def best(n: int, candidates: int = 64) -> Setting:
    """The default: a linear feature of n sources, resampled candidates."""
    return Setting(
        "candidates",
        f"{candidates} candidates",
        mlass.joint(n, evidence=LINEAR),
        mlass.Auto(),
        mlass.SMC(candidates),
    )


def settings(n: int) -> list[Setting]:
    """All settings for n sources: search, evidence, graph, number of candidates."""
    token, linear = mlass.chain(n), mlass.joint(n, evidence=LINEAR)
    rows = []
    if n <= 3:
        rows += [
            Setting("search", name, token, mlass.BP(), search)
            for name, search in (
                ("published: Sample(64)", mlass.Sample(64)),
                ("Sample, top_p 0.95", mlass.Sample(64, top_p=0.95)),
                ("Sample, temperature 0.8", mlass.Sample(64, temperature=0.8)),
                ("Greedy", mlass.Greedy()),
                ("Beam(64)", mlass.Beam(64)),
                ("Beam(64, groups 4)", mlass.Beam(64, groups=4)),
                ("SMC(64), always", mlass.SMC(64, threshold=1.0)),
                ("SMC(64)", mlass.SMC(64)),
                ("SMC(64), temperature 1.2 to 0.8", mlass.SMC(64, temperature=(1.2, 0.8))),
            )
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
    if n > 3:
        shapes = {"chain": mlass.chain(n), "balanced": mlass.balanced(n)}
        rows += [
            Setting("graph", f"{name}, tokens", program, mlass.BP(), mlass.SMC(64))
            for name, program in shapes.items()
        ]
    return rows + [best(n, count) for count in (4, 16, 64, 128, 256)]
