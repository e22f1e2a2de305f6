"""The result object: saving and drawing it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import make_bundle, mixtures

from mlass_ppl import Refine, Sample, Separation, separate
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
