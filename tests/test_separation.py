"""The result object: saving and drawing it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import make_bundle, mixtures

from mlass_ppl import Beam, Nearest, Refine, Sample, Separation, separate
from mlass_ppl.bundle import Bundle
from mlass_ppl.errors import OptionError
from mlass_ppl.shapes import chain


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle(sources=(2,))


@pytest.fixture(scope="module")
def one(bundle) -> Separation:
    return separate(mixtures(1), chain(2), bundle, search=Sample(3), refine=Refine(steps=2))


@pytest.fixture(scope="module")
def three(bundle) -> Separation:
    return separate(mixtures(3), chain(2), bundle, search=Sample(3))


def pixels(path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path)))


def test_one_mixture_is_saved_side_by_side(one, tmp_path):
    written = one.save(tmp_path / "out")
    names = ["source_1.png", "source_2.png", "mixture.png", "tokens.safetensors"]
    assert written == [tmp_path / "out" / name for name in names]
    assert all(path.is_file() for path in written)
    shown = {"source_1": one["source_1"], "mixture": one.mixtures}  # the refined ones
    for name, image in shown.items():
        expected = (image[0, 0] * 255).round().to(torch.uint8)
        assert torch.equal(pixels(tmp_path / "out" / f"{name}.png"), expected)
    back = load_file(tmp_path / "out" / "tokens.safetensors")
    assert all(torch.equal(back[name], one.tokens[name]) for name in ("source_1", "source_2"))


def test_several_mixtures_get_a_folder_each(three, tmp_path):
    written = three.save(tmp_path)
    assert len(written) == 3 * 3 + 1
    for row in range(3):
        found = pixels(tmp_path / f"{row:04d}" / "source_2.png")
        assert torch.equal(found, (three["source_2"][row, 0] * 255).round().to(torch.uint8))
    assert load_file(tmp_path / "tokens.safetensors")["source_1"].shape == (3, 9)


def test_what_is_there_is_kept_unless_forced(one, tmp_path):
    (tmp_path / "mixture.png").write_text("mine")
    with pytest.raises(OptionError, match=r"mixture\.png exists \(1 files in all\).*force=True"):
        one.save(tmp_path)
    assert (tmp_path / "mixture.png").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1  # nothing was written at all
    one.save(tmp_path, force=True)
    assert pixels(tmp_path / "mixture.png").shape == (12, 12)
    with pytest.raises(OptionError, match="4 files in all"):
        one.save(tmp_path)


def test_several_separations_of_each_mixture(bundle):
    """The nearest first, the same tokens once; the first is the chosen one."""
    found = separate(mixtures(3), chain(2), bundle, search=Sample(6), keep_candidates=True)
    found = replace(
        found,
        candidate_tokens={n: t[:, [0, 1, 2, 0, 1, 3]] for n, t in found.candidate_tokens.items()},
        candidates={n: t[:, [0, 1, 2, 0, 1, 3]] for n, t in found.candidates.items()},
        errors=found.errors[:, [0, 1, 2, 0, 1, 3]],
    )
    order = found.ranking(5)
    assert order.shape == (3, 5)
    for row in range(3):
        best = sorted([0, 1, 2, 5], key=lambda c, row=row: float(found.errors[row, c]))
        assert order[row].tolist() == [*best, -1]
    assert found.ranking(9)[:, 4:].eq(-1).all()
    several = found.ranked(4)
    assert list(several) == ["source_1", "source_2"]
    rows = torch.arange(3)[:, None]
    for name, signals in several.items():
        assert signals.shape == (3, 4, 1, 12, 12)
        assert torch.equal(signals, found.candidates[name][rows, order[:, :4]])
    errors = (torch.stack(list(several.values())).mean(0) - found.mixtures[:, None]).square()
    assert torch.allclose(errors.mean((2, 3, 4)), found.errors.gather(1, order[:, :4]), atol=1e-6)
    with pytest.raises(OptionError, match="mixture 0 has 4 distinct candidates, 5 were asked for"):
        found.ranked(5)
    with pytest.raises(OptionError, match="count must be a whole number, at least 1, got 0"):
        found.ranked(0)


def test_the_best_of_several_is_the_chosen_one(bundle):
    found = separate(
        mixtures(3), chain(2), bundle, search=Beam(8), estimate=Nearest(), keep_candidates=True
    )
    rows = torch.arange(3)
    for name, signals in found.ranked(1).items():
        assert torch.equal(signals[:, 0], found.candidates[name][rows, found.chosen])
    with pytest.raises(OptionError, match=r"were not kept.*keep_candidates=True"):
        separate(mixtures(1), chain(2), bundle, search=Sample(2)).ranked(1)


def test_plot_draws_and_writes(one, three, tmp_path):
    for found in (one, three):
        figure = found.plot(tmp_path / "grid.png")
        assert figure.get_axes()
        assert Image.open(tmp_path / "grid.png").size[0] > 50


def test_the_reconstruction_is_the_weighted_sum(one, three):
    for found in (one, three):
        expected = (found["source_1"] + found["source_2"]) / 2
        assert torch.allclose(found.reconstruction(), expected, atol=1e-6)
        errors = (expected - found.mixtures).square().mean((1, 2, 3))
        assert torch.allclose(found.reconstruction_error(), errors, atol=1e-7)
