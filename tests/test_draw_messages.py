"""The picture of messages: what stands on it, that nothing covers anything, and its files."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest
import torch

from mlass_ppl import (
    BP,
    EngineError,
    Exact,
    LoopyBP,
    OptionError,
    Soft,
    Table,
    balanced,
    chain,
    compile_program,
    joint,
    mix,
    source,
    star,
)
from mlass_ppl.draw import draw_messages
from mlass_ppl.draw._chart import PANEL
from mlass_ppl.draw.messages import _BOX, _RADIUS


def loop():
    a, b, c = source("a"), source("b"), source("c")
    x, y = mix("x", a, b), mix("y", b, c)
    return mix("left", x, y), mix("right", a, y)


def stereo():
    a, b = source("a"), source("b")
    return mix("left", a, b, weights=(0.7, 0.3)), mix("right", a, b, weights=(0.3, 0.7))


def posterior(program, size: int = 4, engine=BP(), candidates: int = 2):
    graph = compile_program(program)
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    tables = {
        factor.name: Table.from_array((4 * normal(*[size] * len(factor.scope))).softmax(-1))
        for factor in graph.factors
    }
    priors = {name: normal(1, candidates, size).log_softmax(-1) for name in graph.sources}
    evidence = {name: torch.tensor([1]) for name in graph.known}
    evidence |= {name: normal(1, size) for name in graph.soft}
    return engine.plan(graph, tables).posterior(priors, evidence)


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def boxes(figure):
    """(x, y, width, height) of the sites, and of the charts on edges, by what they are drawn as."""
    from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

    sites, charts = [], []
    for patch in figure.axes[0].patches:
        if isinstance(patch, Circle):
            sites.append((*patch.center, 2 * _RADIUS, 2 * _RADIUS))
        elif isinstance(patch, FancyBboxPatch):
            middle = (patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2)
            sites.append((*middle, *_BOX))
        elif isinstance(patch, Rectangle) and (patch.get_width(), patch.get_height()) == PANEL:
            middle = (patch.get_x() + PANEL[0] / 2, patch.get_y() + PANEL[1] / 2)
            charts.append((*middle, *PANEL))
    return sites, charts


PICTURES = [
    *((shape, size, BP()) for shape in (chain(3), joint(2), balanced(4)) for size in (4, 12)),
    (chain(3, evidence=Soft()), 6, BP()),
    (joint(4), 4, BP()),
    (star(3), 40, BP()),
    (loop, 5, LoopyBP()),
    (stereo, 6, LoopyBP(damping=0.75)),
]


@pytest.mark.filterwarnings("ignore:LoopyBP")  # messages are drawn whether they settled or not
@pytest.mark.parametrize(
    ("program", "size", "engine"), PICTURES, ids=lambda value: getattr(value, "__name__", None)
)
def test_every_message_has_a_chart_and_nothing_overlaps(program, size, engine) -> None:
    here = posterior(program, size, engine)
    figure = draw_messages(here)
    sites, charts = boxes(figure)
    assert len(sites) == len(here.graph.sites)
    assert len(charts) == len(here.messages()) + len(here.position.unary)
    for (x, y, w, h), (a, b, v, g) in itertools.combinations(sites + charts, 2):
        assert abs(x - a) >= (w + v) / 2 - 1e-9 or abs(y - b) >= (h + g) / 2 - 1e-9
    low, high = figure.axes[0].get_xlim()
    assert all(low <= x - w / 2 and x + w / 2 <= high for x, _, w, _ in sites + charts)
    names = {text.replace("\n", "") for text in texts(figure)}
    assert {site.name for site in here.graph.sites} <= names


def test_charts_say_the_largest_token_of_the_row_that_was_asked_for() -> None:
    here = posterior(chain(3))
    for candidate in range(2):
        shown = texts(draw_messages(here, candidate=candidate))
        told = [*here.messages().values(), *here.marginals().values()]
        told += [here.position.unary[n].exp().unflatten(0, (1, 2)) for n in here.graph.sources]
        wanted = [share[0, candidate].max(0) for share in told]
        captions = sorted(f"{int(top.indices)}: {float(top.values):.2g}" for top in wanted)
        assert sorted(text for text in shown if re.match(r"\d+: ", text)) == captions
        assert "= 1" in shown
        assert f"log evidence {float(here.log_evidence[0, candidate]):.2f} nats" in "".join(shown)


def test_bars_are_as_high_as_their_shares() -> None:
    from matplotlib.patches import Polygon

    here = posterior(joint(2), size=3)
    bars = [p for p in draw_messages(here).axes[0].patches if isinstance(p, Polygon)]
    found = set()
    for bar in bars:
        heights = bar.get_xy()[2::4, 1][:3] - bar.get_xy()[0, 1]
        found.add(tuple((heights / heights.max()).round(6)))
    for share in (*here.messages().values(), *here.marginals().values()):
        wanted = share[0, 0] / share[0, 0].max()
        assert tuple(wanted.numpy().round(6)) in found


def test_bars_of_large_alphabets_are_the_largest_of_neighbours() -> None:
    from matplotlib.patches import Polygon

    here = posterior(joint(2), size=256)
    bars = [p for p in draw_messages(here).axes[0].patches if isinstance(p, Polygon)]
    assert bars
    found = set()
    for bar in bars:
        heights = bar.get_xy()[2::4, 1][:64] - bar.get_xy()[0, 1]
        found.add(tuple((heights / heights.max()).round(6)))
    for share in here.marginals().values():
        wanted = share[0, 0].reshape(64, 4).max(1).values
        assert tuple((wanted / wanted.max()).numpy().round(6)) in found


@pytest.mark.filterwarnings("ignore:LoopyBP")
def test_messages_of_sites_that_share_two_tables_lie_on_their_own_lines() -> None:
    sites, charts = boxes(draw_messages(posterior(stereo, 6, LoopyBP(damping=0.75))))
    columns = [x for x, *_ in sites]
    beside = [x for x, y, *_ in charts if min(abs(x - c) for c in columns) > 1e-6]
    assert len(beside) == 2  # of the two lines that cross; all others are straight down
    assert abs(beside[0] - beside[1]) >= PANEL[0]


def test_it_says_how_far_to_trust() -> None:
    title = "".join(texts(draw_messages(posterior(chain(2)))))
    assert "chain(2): BP, exact" in title
    title = "".join(texts(draw_messages(posterior(loop, engine=LoopyBP()))))
    assert "loop: LoopyBP, approximate" in title
    with pytest.warns(UserWarning, match="did not settle"):
        rough = posterior(loop, engine=LoopyBP(max_steps=1))
    assert "LoopyBP, not converged" in "".join(texts(draw_messages(rough)))


@pytest.mark.parametrize("engine", [BP(), LoopyBP()], ids=["bp", "loopy"])
def test_impossible_rows_are_drawn_too(engine) -> None:
    here = posterior(chain(3))
    priors = {n: here.position.unary[n].unflatten(0, (1, 2)).clone() for n in here.graph.sources}
    priors["source_1"][0, 1] = float("-inf")
    plan = engine.plan(here.graph, here.plan.tables)
    both = plan.posterior(priors, {"mixture": torch.tensor([1])})
    shown = texts(draw_messages(both, candidate=1))
    assert "impossible" in shown
    assert "log evidence -inf nats" in "".join(shown)
    assert texts(draw_messages(both)) != shown
    assert "impossible" not in texts(draw_messages(both))


def test_files(tmp_path) -> None:
    here = posterior(joint(2))
    figure = draw_messages(here, tmp_path / "deep" / "messages.png")
    assert (tmp_path / "deep" / "messages.png").read_bytes().startswith(b"\x89PNG")
    assert figure.render("svg") == draw_messages(here).render("svg")  # the same bytes every time
    with pytest.raises(OptionError, match=r"\.png, \.svg or \.pdf"):
        draw_messages(here, tmp_path / "messages.jpeg")


def test_errors_are_sentences() -> None:
    with pytest.raises(EngineError, match=r"Exact\(.*passes no messages; draw those of BP\(\)"):
        draw_messages(posterior(joint(2), engine=Exact()))
    for row in ((1, 0), (0, 2), (-1, 0)):
        with pytest.raises(OptionError, match=r"among 1 mixtures x 2 candidates"):
            draw_messages(posterior(joint(2)), None, *row)


def test_matplotlib_is_imported_when_something_is_drawn() -> None:
    code = "import sys, mlass_ppl.draw; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
