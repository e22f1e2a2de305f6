"""The picture of marginals: which tokens stand on it, how high, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from mlass_ppl import (
    BP,
    Exact,
    Extractor,
    OptionError,
    chain,
    mix,
    posterior,
    source,
    star,
)
from mlass_ppl.draw import draw_marginals


def dice():
    return mix("sum", source("red"), source("blue"))


def adds(first: int = 6, second: int = 6) -> torch.Tensor:
    table = torch.zeros(first, second, first + second - 1)
    for a in range(first):
        table[a, torch.arange(second), a + torch.arange(second)] = 1
    return table


def thrown(total: int = 7, engine=BP()):
    priors = {"red": [0.3, 0.1, 0.1, 0.1, 0.1, 0.3], "blue": [1 / 6] * 6}
    return posterior(dice, {"sum": adds()}, priors, {"sum": total}, infer=engine)


def large(size: int = 1024):
    """One source of many tokens that is heard as it is, of three weights."""
    prior = torch.full((size,), 1e-9)
    prior[[5, 700, 31, 8]] = torch.tensor([0.5, 0.2, 0.2, 0.1])
    prior /= prior.sum()
    heard = torch.zeros(size)
    heard[[5, 700]] = torch.tensor([1.0, 4.0])
    table = {"m": torch.stack([1 - heard / 8, heard / 8], -1)[:, None].expand(size, 1, 2)}
    program = lambda: mix("m", source("z"), source("other"))  # noqa: E731
    return posterior(program, table, {"z": prior, "other": [1.0]}, {"m": 1}, infer=Exact())


def heights(axes) -> list[list[float]]:
    return [[bar.get_height() for bar in bars] for bars in axes.containers]


def labels(axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def test_small_alphabets_are_shown_whole_beside_their_priors() -> None:
    answer = thrown()
    figure = draw_marginals(answer)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["red", "blue"]
    for axes, name in zip(figure.axes, ("red", "blue"), strict=True):
        before, after = heights(axes)
        assert labels(axes) == [str(token) for token in range(6)]
        assert after == pytest.approx(answer.marginals()[name][0, 0].tolist())
        assert before == pytest.approx(answer.position.unary[name][0].exp().tolist())
    assert "before" in figure.axes[0].get_title(loc="right")
    assert f"{float(answer.entropy('red')) / 0.693147:.2f} bits" in figure.axes[0].get_title(
        "right"
    )


def test_of_large_alphabets_the_most_probable_tokens_and_the_rest() -> None:
    answer = large()
    axes = draw_marginals(answer, ["z"], truth={"z": 900}, limit=4).axes[0]
    before, after = heights(axes)
    # falling belief, then what the prior alone expected, then the truth, then all others
    assert labels(axes) == ["700", "5", "31", "8", "900", "1,019\nothers"]
    assert after[:2] == pytest.approx([8 / 13, 5 / 13], abs=1e-5)
    assert sum(after) == pytest.approx(1)
    assert sum(before) == pytest.approx(1)
    assert before[:2] == pytest.approx([0.2, 0.5], abs=1e-5)
    marks = [text for text in axes.texts if text.get_text() == "▼"]
    assert [mark.xy[0] for mark in marks] == [4]


def test_the_row_that_was_asked_for() -> None:
    priors = {
        "red": torch.tensor([[[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]]),
        "blue": torch.full((1, 2, 6), 1 / 6),
    }
    answer = posterior(dice, {"sum": adds()}, priors, {"sum": 5}, infer=BP())
    for row, token in (((0, 0), 5), ((0, 1), 0)):
        after = heights(draw_marginals(answer, ["blue"], row).axes[0])[1]
        assert after[token] == pytest.approx(1)
    with pytest.raises(OptionError, match=r"no row \(0, 2\)"):
        draw_marginals(answer, row=(0, 2))


@pytest.mark.parametrize("size", [6, 40])
def test_partial_mixtures_have_no_prior(size: int) -> None:
    tables = {"mix_2": adds(size, size), "mixture": adds(2 * size - 1, size)}
    priors = {f"source_{i}": [1 / size] * size for i in (1, 2, 3)}
    answer = posterior(chain(3), tables, priors, {"mixture": size}, infer=BP())
    figure = draw_marginals(answer)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == list(answer.marginals())
    assert len(panels["mix_2"].containers) == 1
    assert "before" not in panels["mix_2"].get_title(loc="right")
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert texts == {"prior", "belief"}  # no truth was given


def test_extractors_and_rows_that_are_impossible() -> None:
    tables = {f"mixture_{i}": torch.eye(4).roll(i, 1) for i in (1, 2)}
    priors = {"source_1": [0.25] * 4, "source_2": [0.5, 0.5, 0.0, 0.0]}
    given = {"mixture_1": 0, "mixture_2": 0}  # source_2 would have to be 2
    answer = posterior(star(2), tables, priors, given, infer=Extractor())
    said = [axes.get_title(loc="right") for axes in draw_marginals(answer).axes]
    assert said[1] == "impossible"


def test_files_and_refusals(tmp_path) -> None:
    answer = thrown()
    one, two = tmp_path / "a.svg", tmp_path / "b.svg"
    figure = draw_marginals(answer, truth={"red": 5}, path=one)
    draw_marginals(answer, truth={"red": torch.tensor(5)}, path=two)
    assert one.read_bytes() == two.read_bytes()
    assert figure._repr_svg_() == one.read_text()
    with pytest.raises(OptionError, match=r"no marginal of 'sum'.*\['red', 'blue'\]"):
        draw_marginals(answer, ["sum"])
    with pytest.raises(OptionError, match="from 0 to 5, got 6"):
        draw_marginals(answer, truth={"red": 6})
    with pytest.raises(OptionError, match="truth names 'green'"):
        draw_marginals(answer, truth={"green": 1})
    with pytest.raises(OptionError, match="at least one site"):
        draw_marginals(answer, [])
    with pytest.raises(OptionError, match=r"\.png, \.svg or \.pdf"):
        draw_marginals(answer, path=tmp_path / "a.gif")
