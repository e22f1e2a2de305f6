"""One separation of digits as it is watched: frames while it runs, then everything found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..draw import draw_evidence, draw_graph, draw_tree
from ..errors import MlassError
from ..evaluate.metrics import score
from ..graph import MixingGraph
from ..refine import Learned
from ..search import SMC
from ..separate import separate
from ..separation import Separation
from . import html
from .archive import zip_digits
from .desk import Desk, check_numbers, told
from .digits import Mixing
from .prefixes import Prefixes
from .screen import Screen, View

BUNDLE = "mnist"
"""The bundle of digits."""


@dataclass(frozen=True)
class DigitRun:
    """What is asked. every: whether each token is shown, however long that takes."""

    shape: str
    engine: str
    candidates: Any = 16
    seed: Any = 0
    refine: bool = True
    every: bool = True


def graph_picture(graph: MixingGraph) -> str:
    return html.drawn(draw_graph(graph), f"the graph {graph.name}")


def run(desk: Desk, mixing: Mixing, asked: DigitRun) -> Iterator[View]:
    """Views of one separation; the last one holds the result, or what went wrong."""
    try:
        candidates, seed = check_numbers(desk.limits, asked.candidates, asked.seed)
        choices = desk.choices(BUNDLE)
        graph = choices.graph(asked.shape, mixing.count)
        engine = choices.offer(asked.shape, mixing.count).engine(asked.engine)
        observed = mixing.observed(graph)
        screen, prefixes = (
            Screen(graph, choices.bundle, _given(mixing, observed)),
            Prefixes(graph.sources),
        )

        def work(show: Callable[[Any], None]) -> Separation:
            return separate(
                observed,
                graph,
                choices.bundle,
                infer=engine,
                search=SMC(candidates),
                refine=Learned() if asked.refine else None,
                seed=seed,
                on_unseen="prior",
                watch=lambda watched: show(prefixes.add(watched)),
            )

        mixing.job = desk.job(work, every=asked.every)
        start = View(html.waiting(), running=True)
        yield replace(start, picture=graph_picture(graph))
        last = start
        for seen in mixing.job.frames():
            last = screen.frame(seen)
            yield last
        if mixing.job.stopped:
            yield replace(last, status=html.message("Stopped."), running=False)
            return
        yield _finished(desk, mixing, asked, mixing.job.result)
    except (MlassError, MemoryError) as error:
        yield View(html.problem(told(error)))


def _finished(desk: Desk, mixing: Mixing, asked: DigitRun, found: Separation) -> View:
    graph, truths, length = found.graph, mixing.truths, found.evidence.shape[2]
    order, notes = list(range(len(graph.sources))), [""] * len(graph.sources)
    facts = {}
    if truths is not None:
        fit = score(torch.stack([found[name] for name in graph.sources], 1), truths)
        order = fit.permutation[0].tolist()  # each below the digit that it fits
        notes = [f"{value:.1f} dB" for value in fit.scores[0]]
        facts["PSNR"] = f"{fit.mean[0]:.1f} dB, mean of the digits"
    separated = [
        html.Tile(graph.sources[place], html.pixels(found[graph.sources[place]][0, 0]), note)
        for place, note in zip(order, notes, strict=True)
    ]
    sites = list(found.importance)
    separated += [
        html.Tile("their sum" if len(sites) == 1 else f"sum, {name}",
                  html.pixels(found.reconstruction(name)[0, 0]))
        for name in sites
    ]  # fmt: skip
    picked = found.settings.get("picked")
    facts |= {
        "mixture error": f"{float(found.reconstruction_error()):.1e}, mean square",
        "log evidence": f"{_evidence(found):.1f} nats, of the chosen candidate",
        "engine": asked.engine + (f", which picked {type(picked).__name__}" if picked else ""),
        "time": f"{found.seconds + found.refine_seconds:.1f} s"
        + (", pictures of every token included" if asked.every else ""),
    }
    rows = {"given": _given(mixing, mixing.observed(graph)), "separated": separated}
    notices = "".join(html.message(notice) for notice in found.notices)
    done = html.progress("Done", 1, 1, f"{length} of {length} tokens") + notices
    return View(
        status=done,
        stage=html.tiles(rows) + html.facts(facts),
        picture=graph_picture(graph),
        evidence=html.drawn(draw_evidence(found), "evidence along the tokens"),
        tree=html.drawn(draw_tree(found), "the candidates as a tree"),
        code=python(mixing, asked, found),
        archive=zip_digits(found, truths, desk.place()),
    )


def _given(mixing: Mixing, observed: Tensor | Mapping[str, Tensor]) -> list[html.Tile]:
    """The digits, where they are known, and what is observed of them."""
    tiles = [html.Tile(digit.name, html.pixels(digit.pixels[0])) for digit in mixing.digits]
    mixtures = {"mixture": observed} if isinstance(observed, Tensor) else observed
    return tiles + [html.Tile(name, html.pixels(own[0])) for name, own in mixtures.items()]


def _evidence(found: Separation) -> float:
    own = found.evidence[0, int(found.chosen[0])].double()
    return float(own[own > float("-inf")].sum())


def python(mixing: Mixing, asked: DigitRun, found: Separation) -> str:
    """The same separation as a script, where its digits are bundled ones; else one that reads the
    mixture from the archive."""
    indices = [digit.index for digit in mixing.digits]
    make, given = f"mlass.{asked.shape}({mixing.count})", '"mixture.png"'
    head = ["import mlass_ppl as mlass"]
    if indices and None not in indices and len(found.importance) == 1:
        head += ["from mlass_ppl.data.digits import bundled_digits", ""]
        head += [f"digits, _ = bundled_digits({indices})"]
        given = "digits.mean(0)"
    if asked.shape == "stereo":
        head += ["", "# stereo(2): see models/programs/stereo.py and docs/app.md"]
        head += ["from mlass_ppl.app.choices import stereo"]
        make, given = "stereo(2)", '{"left": "left.png", "right": "right.png"}'
    refine = ", refine=mlass.Learned()" if asked.refine else ""
    return "\n".join(
        [
            *head,
            "out = mlass.separate(",
            f'    {given}, {make}, mlass.load("{BUNDLE}"), infer=mlass.{asked.engine}(),',
            f"    search=mlass.SMC({found.evidence.shape[1]}), seed={found.settings['seed']}"
            f'{refine}, on_unseen="prior",',
            ")",
            "print(out)",
            'out.save("separated")',
        ]
    )
