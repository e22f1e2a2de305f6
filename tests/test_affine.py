"""Augmented images: what moves, by how much, and what stays."""

from __future__ import annotations

import pytest
import torch
from tiny import blobs
from torch import Tensor

from mlass_ppl.errors import DataError
from mlass_ppl.train import augment

RANDOM = torch.Generator


def test_augment_moves_the_picture_and_keeps_all_else():
    pictures = torch.nn.functional.pad(blobs(40), (6, 6, 6, 6))
    for given in (pictures, pictures.double(), pictures[..., 2:-2], pictures.expand(-1, 3, -1, -1)):
        found = augment(given, RANDOM().manual_seed(1))
        assert (found.shape, found.dtype) == (given.shape, given.dtype)
        assert 0 <= found.min() <= found.max() <= 1
        assert (found - given).abs().amax((1, 2, 3)).min() > 0.02  # none is left as it was
        assert found.sum() == pytest.approx(float(given.sum()), rel=0.05)  # nor lost
    assert torch.equal(*(augment(pictures, RANDOM().manual_seed(2)) for _ in range(2)))
    assert augment(pictures[:0]).shape == (0, *pictures.shape[1:])


NOTHING = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0, "stretch": 0.0}


@pytest.mark.parametrize("size", [(28, 28), (20, 40)])
def test_each_amount_is_what_its_unit_says(size):
    """A dot right of and one above the middle, and where the changes put them at most."""
    height, width = size
    picture = torch.zeros(500, 1, height, width)
    picture[:, 0, height // 2 - 1 : height // 2 + 1, width // 2 + 5 : width // 2 + 7] = 1  # at +6

    def place(**change: float) -> Tensor:
        found = augment(picture, RANDOM().manual_seed(0), **{**NOTHING, **change})[:, 0]
        mass = found.sum((1, 2))
        rows = (found.sum(2) * (torch.arange(height) + 0.5)).sum(1) / mass - height / 2
        columns = (found.sum(1) * (torch.arange(width) + 0.5)).sum(1) / mass - width / 2
        return torch.stack([rows, columns])

    assert torch.allclose(augment(picture, **NOTHING), picture, atol=1e-5)
    rows, columns = place(shift=2.0)
    for moved in (rows, columns - 6):
        assert moved.abs().max() == pytest.approx(2.0, abs=0.1)
        assert moved.mean() == pytest.approx(0.0, abs=0.15)
    rows, columns = place(rotation=30.0)
    assert rows.abs().max() == pytest.approx(3.0, abs=0.2)  # 6 sin 30°
    assert rows.square().add(columns.square()).sqrt().sub(6).abs().max() < 0.2  # turned alone
    rows, columns = place(scale=0.1)
    assert columns.max() == pytest.approx(6 / 0.9, abs=0.15)
    assert columns.min() == pytest.approx(6 / 1.1, abs=0.15)
    assert place(stretch=0.1)[1].sub(6).abs().max() < 0.01  # of the height alone
    assert place(shear=0.1).sub(torch.tensor([[0.0], [6.0]])).abs().max() < 0.1  # of columns


@pytest.mark.parametrize("wrong", [torch.rand(3, 8, 8), torch.zeros(3, 1, 8, 8, dtype=torch.uint8)])
def test_what_is_no_image_is_not_augmented(wrong):
    with pytest.raises(DataError, match=r"float images \[N, C, H, W\].*, or divide bytes by 255"):
        augment(wrong)
