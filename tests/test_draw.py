"""Pictures: layout, contents and files; every picture is a matplotlib figure without pyplot."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.draw import (
    ReportPicture,
    ReportRow,
    ReportSection,
    ReportTable,
    draw_candidates,
    draw_estimates,
    draw_graph,
    draw_separation,
    graph_svg,
    layout,
    write_report,
)
from mlass_ppl.errors import OptionError, SignalError
from mlass_ppl.separation import Separation
from mlass_ppl.shapes import chain, joint, star


def _loopy():
    a, b, c = source("a"), source("b"), source("c")
    x, y = mix("x", a, b), mix("y", b, c)
    return mix("m", mix("z", x, y), a), y


GRAPHS = [joint(2), joint(5), chain(2), chain(3), chain(7), star(2), star(4), _loopy]


@pytest.mark.parametrize("program", GRAPHS, ids=lambda program: program.__name__)
def test_layout_puts_parts_above_their_mixture_and_nothing_on_top(program):
    graph = compile_program(program)
    places = layout(graph)
    assert set(places) == {site.name for site in graph.sites}
    for factor in graph.factors:
        for parent in factor.parents:
            assert places[parent][1] > places[factor.child][1]
    points = np.array(list(places.values()))
    gaps = np.abs(points[:, None] - points[None])
    near = (gaps[..., 0] < 1.2) & (gaps[..., 1] < 1.0)
    assert not near[~np.eye(len(points), dtype=bool)].any()
    sources = [places[name][0] for name in graph.sources]
    assert min(point[0] for point in places.values()) == 0
    if program is not _loopy:
        assert sources == sorted(sources)


def test_chain_steps_down():
    places = layout(compile_program(chain(4)))
    heights = [places[name][1] for name in ("source_1", "mix_2", "mix_3", "mixture")]
    assert heights == sorted(heights, reverse=True)
    assert places["source_3"][1] == places["mix_2"][1]  # just above the mixture that takes it


def test_svg_names_every_site_and_weight():
    def trio():
        rhythm = mix("rhythm", source("drums"), source("bass", alphabet=512), weights=(0.7, 0.3))
        return mix("song", rhythm, source("pi<a>no"))

    graph = compile_program(trio)
    svg = graph_svg(graph)
    assert svg.startswith("<svg")
    texts = set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert {"drums", "bass", "rhythm", "song", "pi&lt;a&gt;no", "K=512"} <= texts
    assert {"7/10", "3/10", "2/3", "1/3"} <= texts
    assert {"source", "partial mixture", "observed"} <= texts
    assert graph._repr_svg_() == svg  # the same bytes every time


def test_hidden_parts_are_dashed_and_unlabelled():
    svg = graph_svg(compile_program(star(3)))
    assert svg.count(">1/3</text>") == 3
    assert "averaged over" in svg
    assert "partial mixture" not in svg
    assert "stroke-dasharray" in svg


def test_names_are_no_formulas():
    def odd():
        return mix("m", source("$x_2$ and 100%"), source("x" * 40))

    assert "100%" in graph_svg(compile_program(odd))


def test_graph_files(tmp_path):
    graph = compile_program(chain(3))
    figure = draw_graph(graph, tmp_path / "deep" / "graph.png")
    assert (tmp_path / "deep" / "graph.png").read_bytes().startswith(b"\x89PNG")
    graph.draw(tmp_path / "graph.svg")
    assert "<svg" in (tmp_path / "graph.svg").read_text()
    assert "<svg" in figure._repr_svg_()
    assert not hasattr(figure, "_repr_png_")  # a notebook would keep both
    with pytest.raises(OptionError, match=r"\.png, \.svg or \.pdf"):
        draw_graph(graph, tmp_path / "graph.jpeg")


def _pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., 0]


@pytest.fixture
def truths():
    torch.manual_seed(0)
    return torch.rand(3, 2, 1, 28, 28)


def test_estimates_stand_in_the_order_that_fits(truths):
    swapped = truths.flip(1)
    figure = draw_estimates(truths.mean(1), {"bp": swapped}, truths)
    canvas = figure.axes[0].images[0].get_array()
    rows = np.where(np.isfinite(canvas.filled(np.nan)).any(1))[0]
    line = np.where(np.isfinite(canvas.filled(np.nan)[rows[0]]))[0]
    image = lambda start: canvas[rows[0] : rows[0] + 28, start : start + 28]  # noqa: E731
    starts = [line[0], *(line[1:][np.diff(line) > 1])]
    assert len(starts) == 5  # truth, truth, mixture, bp, bp
    assert np.allclose(image(starts[0]), truths[0, 0, 0])
    assert np.allclose(image(starts[2]), truths.mean(1)[0, 0])
    assert np.allclose(image(starts[3]), truths[0, 0, 0])  # swapped back
    notes = [text.get_text() for text in figure.axes[0].texts]
    assert notes.count("100.0 dB") == 3
    assert {"truth", "mixture", "bp"} <= set(notes)


def test_estimates_without_truth_keep_their_order_and_are_not_scored(truths):
    figure = draw_estimates(truths.mean(1), {"bp": truths}, labels=["x", "y", "z"])
    notes = [text.get_text() for text in figure.axes[0].texts]
    assert not [note for note in notes if "dB" in note]
    assert {"x", "y", "z"} <= set(notes)


def test_only_the_first_rows_are_drawn(truths):
    many = truths.repeat(10, 1, 1, 1, 1)
    figure = draw_estimates(many.mean(1), {"bp": many}, limit=4)
    assert [t.get_text() for t in figure.axes[0].texts if t.get_text().isdigit()] == list("1234")


def test_grids_refuse_what_does_not_go_together(truths):
    with pytest.raises(SignalError, match="3 mixtures, but 2 rows of 'bp'"):
        draw_estimates(truths.mean(1), {"bp": truths[:2]})
    with pytest.raises(SignalError, match="grey images"):
        draw_estimates(truths.mean(1), {"bp": truths.repeat(1, 1, 3, 1, 1)})


@pytest.fixture
def separation(truths):
    graph = compile_program(chain(2))
    candidates = {name: torch.rand(3, 5, 1, 28, 28) for name in graph.sources}
    errors = torch.tensor([[0.5, 0.1, 0.4, 0.2, 0.3]] * 3)
    chosen = {name: images[:, 1] for name, images in candidates.items()}
    return Separation(
        graph=graph,
        observed={"mixture": truths.mean(1)},
        signals=chosen,
        refined=None,
        tokens={},
        evidence=torch.zeros(3, 5, 49),
        errors=errors,
        chosen=torch.ones(3, dtype=torch.int64),
        candidates=candidates,
    )


def test_separation_grid(separation, truths):
    notes = [text.get_text() for text in draw_separation(separation).axes[0].texts]
    assert {"mixture", "source_1, source_2", "sum"} <= set(notes)
    separation = replace(separation, refined=separation.signals)
    notes = [text.get_text() for text in draw_separation(separation, truths=truths).axes[0].texts]
    assert {"truth", "mixture", "refined"} <= set(notes)


def test_candidates_stand_nearest_first(separation, tmp_path):
    figure = draw_candidates(separation, 2, limit=3, path=tmp_path / "c.png")
    notes = [text.get_text() for text in figure.axes[0].texts]
    assert [note for note in notes if re.fullmatch(r"\d+\.\d", note)] == ["100.0", "200.0", "300.0"]
    assert "candidates, nearest first (3 of 5)" in notes
    canvas = figure.axes[0].images[0].get_array().filled(np.nan)
    first = separation.candidates["source_1"][2, 1, 0].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (28, 28))
    assert np.isclose(windows, first).all((2, 3)).any()
    with pytest.raises(OptionError, match="has 3"):
        draw_candidates(separation, 3)
    with pytest.raises(OptionError, match="keep_candidates=True"):
        draw_candidates(replace(separation, candidates=None))


def test_report_is_one_file_and_escapes(tmp_path, truths):
    grid = draw_estimates(truths.mean(1), {"bp": truths})
    table = ReportTable(("row", "dB"), (("<b>bp</b>", "21.3 ± 0.4"),), "scores & floors")
    picture = ReportPicture(grid, 'a "grid"')
    path = write_report(
        tmp_path / "deep" / "report.html",
        "A <report>",
        "lead",
        [ReportSection("Grid", "text", (table, picture, ReportRow((picture, picture))))],
        {"seed": 0, "bundle": "mnist"},
    )
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "<b>bp" not in page
    assert "&lt;b&gt;bp&lt;/b&gt;" in page
    assert page.count('src="data:image/png;base64,iVBOR') == 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert '<td class="number">21.3 ± 0.4</td>' in page
    assert '<th scope="row">seed</th><td>0</td>' in page
    with pytest.raises(OptionError, match="2 columns"):
        ReportTable(("a", "b"), (("1",),))


def test_drawing_is_lazy_and_leaves_pyplot_alone(tmp_path):
    code = (
        "import sys, mlass_ppl.draw\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from mlass_ppl.declare import compile_program\n"
        "from mlass_ppl.shapes import chain\n"
        "compile_program(chain(3)).draw(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "g.svg")]
    subprocess.run(command, check=True, timeout=120)
