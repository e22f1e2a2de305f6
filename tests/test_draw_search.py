"""Pictures of a search: the tree of candidates, where they disagree, and their evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import make_bundle, mixtures

from mlass_ppl import (
    BP,
    SMC,
    Beam,
    OptionError,
    Separation,
    SignalError,
    chain,
    compile_program,
    separate,
)
from mlass_ppl.draw import draw_evidence, draw_tree, draw_uncertainty

INF = float("inf")


def make(
    first: list[list[int]],
    second: list[list[int]] | None = None,
    *,
    weights: list[float] | None = None,
    chosen: int = 0,
    shape: tuple[int, ...] = (1, 12, 12),
    **more,
) -> Separation:
    """One mixture with these tokens [C, T] of its two sources."""
    tokens = {"source_1": torch.tensor([first])}
    tokens["source_2"] = torch.tensor([second]) if second else torch.zeros_like(tokens["source_1"])
    count, length = tokens["source_1"].shape[1:]
    random = torch.Generator().manual_seed(0)
    signals = {name: torch.rand(1, *shape, generator=random) for name in tokens}
    fields = {
        "graph": compile_program(chain(2)),
        "observed": {"mixture": sum(signals.values()) / 2},
        "signals": signals,
        "refined": None,
        "tokens": {name: own[:, chosen] for name, own in tokens.items()},
        "evidence": torch.full((1, count, length), -1.0),
        "errors": torch.zeros(1, count),
        "chosen": torch.tensor([chosen]),
        "candidate_tokens": tokens,
        "log_weights": torch.tensor([weights or [0.0] * count]).double(),
    }
    return Separation(**{**fields, **more})


def dots(figure) -> set[tuple[float, float]]:
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    return {(x, y) for line in lines for x, y in zip(*line.get_data(), strict=True)}


def test_the_tree_parts_where_tokens_do() -> None:
    figure = draw_tree(make([[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1]], chosen=3))
    assert sorted(x for x, _ in dots(figure)) == [0, 1]  # after the first token, and the second
    ends = {tuple(line.get_data()[1][-1:]) for line in figure.axes[0].lines
            if line.get_data()[0][-1] == 2}  # fmt: skip
    assert len(ends) == 3
    assert figure.texts[0].get_text() == "source_1, source_2: 4 candidates, 3 different"
    widths = {line.get_linewidth() for line in figure.axes[0].lines if line.get_marker() == "None"}
    assert len(widths) == 4  # of four, two and one candidate, and the chosen one's


def test_lines_of_more_candidates_are_wider() -> None:
    figure = draw_tree(make([[0, 0], [0, 0], [0, 0], [1, 0]]))
    ends = [line for line in figure.axes[0].lines if line.get_data()[0][-1] == 1]
    wide = {line.get_data()[1][-1]: line.get_linewidth() for line in ends if line.get_zorder() == 2}
    assert wide[1.0] > wide[3.0]  # three candidates above one


def test_the_chosen_candidate_and_the_weights_stand_at_the_end() -> None:
    weights = [math.log(0.2), math.log(0.5), math.log(0.3)]
    side = draw_tree(make([[0, 1], [2, 3], [0, 1]], weights=weights, chosen=1)).axes[1]
    shares = sorted(bar.get_width() for bar in side.patches)
    assert shares == pytest.approx([0.5, 0.5])  # two copies together, and one
    assert [text.get_text() for text in side.texts] == ["chosen, 0.50"]
    # copies of a beam have no weight, and a search that lost all of them no opinion
    for given, wanted in (([0.0, -INF, -INF], 1.0), ([-INF] * 3, 1 / 3)):
        side = draw_tree(make([[0, 1], [2, 3], [1, 1]], weights=given)).axes[1]
        assert max(bar.get_width() for bar in side.patches) == pytest.approx(wanted)


def test_one_source_alone() -> None:
    found = make([[0, 0], [0, 1]], [[1, 0], [2, 0]])
    assert {x for x, _ in dots(draw_tree(found))} == {-1}  # before the first token
    assert {x for x, _ in dots(draw_tree(found, source="source_1"))} == {0}
    assert {x for x, _ in dots(draw_tree(found, 0, "source_2"))} == {-1}


@pytest.mark.parametrize("draw", [draw_tree, draw_uncertainty, draw_evidence])
def test_refusals(draw, tmp_path) -> None:
    found = make([[0] * 9, [1] * 9])
    with pytest.raises(OptionError, match="there is no mixture 1"):
        draw(found, 1)
    with pytest.raises(OptionError, match=r"\.png, \.svg or \.pdf"):
        draw(found, path=tmp_path / "a.gif")
    draw(found, path=tmp_path / "a.svg")
    draw(found, path=tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    if draw is not draw_evidence:
        with pytest.raises(OptionError, match="no candidate_tokens"):
            draw(replace(found, candidate_tokens={}))
    if draw is draw_tree:
        with pytest.raises(OptionError, match="no source 'drums'"):
            draw(found, source="drums")


def maps(figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes[3:5]]


def test_entropy_is_of_the_weighted_candidates_in_bits() -> None:
    first = [[0] * 9, [0] * 8 + [1], [0] * 7 + [2, 2], [0] * 7 + [3, 3]]
    even, none = maps(draw_uncertainty(make(first)))
    assert even.shape == (3, 3)  # an image of 12 x 12 has three rows of three
    assert even[:2].max() == none.max() == 0
    assert even[2] == pytest.approx([0, 1.5, 2])
    weights = [math.log(0.5), math.log(0.5), -INF, -INF]
    assert maps(draw_uncertainty(make(first, weights=weights)))[0][2] == pytest.approx([0, 0, 1])
    text = " ".join(t.get_text() for t in draw_uncertainty(make(first, weights=weights)).texts)
    assert "4 candidates" in text
    assert "worth 2.0" in text


def test_interchangeable_sources_are_put_into_one_order() -> None:
    a, b = [1, 2, 3, 4], [5, 6, 7, 8]
    found = make([a, b, b], [b, a, a], shape=(1, 2, 2), chosen=0)
    for own in maps(draw_uncertainty(found)):
        assert own == pytest.approx(np.full((2, 2), own[0, 0]))
        assert own[0, 0] > 0.9  # as they stand
    for own in maps(draw_uncertainty(found, bundle=make_bundle())):
        assert own.max() == 0


def test_images_that_are_no_grid_and_no_grey() -> None:
    row = maps(draw_uncertainty(make([[0] * 7, [1] * 7])))[0]
    assert row.shape == (1, 7)
    with pytest.raises(SignalError, match="grey images"):
        draw_uncertainty(make([[0, 1]], shape=(3, 12, 12)))


def test_sounds_have_curves_along_time() -> None:
    found = make([[0, 0, 1, 1], [0, 1, 2, 1]], shape=(1, 4000), sample_rate=8000)
    figure = draw_uncertainty(found)
    assert hasattr(figure, "_repr_svg_")
    wave, curve = figure.axes[:2]
    assert wave.get_xlim() == curve.get_xlim() == (0, 0.5)
    stairs = curve.patches[0].get_data()
    assert stairs.values == pytest.approx([0, 1, 1, 0])
    assert stairs.edges == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])
    axes = draw_evidence(found).axes[0]
    assert axes.get_xlabel() == "seconds"
    quiet = replace(found, signals={name: 0 * own for name, own in found.signals.items()})
    draw_uncertainty(quiet).render("png")  # silence has a picture


def steps(figure) -> list[np.ndarray]:
    """Band, median and chosen one."""
    return [patch.get_data() for patch in figure.axes[0].patches]


def marks(figure) -> dict[str, list[float]]:
    """Positions of the marks below, by what the legend calls them."""
    names = {mark.get_marker(): mark.get_label() for mark in figure.legends[0].legend_handles
             if hasattr(mark, "get_marker")}  # fmt: skip
    return {names[line.get_marker()]: line.get_xdata().tolist() for line in figure.axes[0].lines}


def test_evidence_of_the_chosen_and_the_band() -> None:
    told = -torch.arange(33.0).reshape(1, 11, 3)
    found = make([[0, 0, 0]] * 11, evidence=told, chosen=4)
    figure = draw_evidence(found)
    band, median, own = steps(figure)
    assert own.values == pytest.approx(told[0, 4].numpy())
    assert median.values == pytest.approx(told[0].median(0).values.numpy())
    assert band.baseline == pytest.approx(told[0, 9].numpy())
    assert band.values == pytest.approx(told[0, 1].numpy())
    assert own.edges.tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert not marks(figure)
    assert f"{float(told[0, 4].sum()):.1f} nats" in figure.axes[0].get_title(loc="left")


def test_blind_and_skipped_positions_are_marked() -> None:
    told = torch.full((1, 3, 6), -2.0)
    told[0, :, 1] = -INF
    told[0, 0, 2] = -INF
    told[0, :, 4] = 0.0
    found = make([[0] * 6] * 3, evidence=told, notices=("1 observed tokens were skipped.",))
    figure = draw_evidence(found)
    assert marks(figure) == {"blind": [1, 2], "skipped": [4]}
    assert np.isnan(steps(figure)[2].values).tolist() == [False, True, True, False, False, False]
    certain = marks(draw_evidence(replace(found, notices=())))
    assert certain == {"blind": [1, 2]}  # 0 nats is also what was certain
    draw_evidence(replace(found, evidence=torch.full((1, 3, 6), -INF))).render("png")


@pytest.mark.parametrize("search", [SMC(8), Beam(5)], ids=repr)
def test_what_separate_returns_is_drawn(search) -> None:
    found = separate(mixtures(2), chain(2), make_bundle(), infer=BP(), search=search,
                     on_unseen="prior")  # fmt: skip
    for draw in (draw_tree, draw_uncertainty, draw_evidence):
        assert draw(found, 1).render("png").startswith(b"\x89PNG")
    ends = {tuple(line.get_data()[1][-1:]) for line in draw_tree(found).axes[0].lines
            if line.get_data()[0][-1] == 8}  # fmt: skip
    both = torch.stack(list(found.candidate_tokens.values()), -1)[0].flatten(1)
    assert len(ends) == len(both.unique(dim=0))
