"""The bundled digits: MNIST's geometry, ink and meaning, from 8x8 counts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mlass_ppl.data import digits as module
from mlass_ppl.data import find_data, mnist_images, mnist_labels
from mlass_ppl.data.digits import bundled_digits, centre
from mlass_ppl.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return bundled_digits(range(0, 1797, 6))


def test_shape_range_and_labels(digits):
    images, labels = digits
    assert images.shape == (300, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.min() >= 0
    assert images.max() <= 1
    assert set(labels.tolist()) == set(range(10))
    assert images.amax((1, 2, 3)).min() > 0.9  # full white in every digit, as in MNIST


def test_an_image_does_not_depend_on_its_company(digits):
    alone, label = bundled_digits([12])
    assert torch.allclose(alone[0], digits[0][2], atol=1e-5)
    assert label[0] == digits[1][2]


def test_geometry_is_mnists(digits):
    images = digits[0][:, 0]
    place = torch.arange(28.0)
    mass = images.sum((1, 2))
    rows = (images.sum(2) * place).sum(1) / mass
    columns = (images.sum(1) * place).sum(1) / mass
    assert rows.mean() == pytest.approx(14.0, abs=0.1)
    assert columns.mean() == pytest.approx(14.0, abs=0.1)
    assert (rows - 14).abs().max() < 0.51
    sides = torch.maximum((images > 0.02).any(2).sum(1), (images > 0.02).any(1).sum(1))
    assert sides.max() <= 20
    assert (sides == 20).float().mean() > 0.98  # 99.8 % in MNIST's test images


def test_ink_is_mnists(digits):
    images = digits[0]
    # MNIST's test images: 0.133 mean, 0.311 standard deviation, 81 % black, 9 % above 0.9
    assert images.mean() == pytest.approx(0.133, abs=0.03)
    assert images.std() == pytest.approx(0.311, abs=0.03)
    assert (images < 1 / 255).float().mean() == pytest.approx(0.81, abs=0.04)
    assert (images > 0.9).float().mean() == pytest.approx(0.09, abs=0.03)


def test_outlines_give_the_counts_back():
    from sklearn.datasets import load_digits

    counts = torch.as_tensor(load_digits().images[:64], dtype=torch.float32).unsqueeze(1) / 16
    drawn = torch.sigmoid(module._GAIN * module._outlines(counts))
    blocks = functional.avg_pool2d(drawn, module._BLOCK)[:, :, 2:-2, 2:-2]
    assert (blocks - counts).square().mean().sqrt() < 0.03
    smooth = functional.interpolate(counts, (32, 32), mode="bicubic").clamp(0, 1)
    assert (functional.avg_pool2d(smooth, 4) - counts).square().mean().sqrt() > 0.05


def test_centre_places_a_bar_by_its_mass():
    ink = torch.zeros(90, 60)
    ink[10:50, 20:30] = 1.0
    image = centre(ink)
    assert image.shape == (28, 28)
    assert image[4:24, 12:17].sum() == pytest.approx(20 * 5, rel=0.01)
    assert image.sum() == pytest.approx(20 * 5, rel=0.01)


def test_bad_requests_are_told():
    with pytest.raises(DataError, match=r"\[0, 1797\); got -1 to 3"):
        bundled_digits([3, -1])
    with pytest.raises(DataError, match="1797"):
        bundled_digits([1797])
    with pytest.raises(DataError, match="no ink"):
        centre(torch.zeros(8, 8))
    images, labels = bundled_digits([])
    assert images.shape == (0, 1, 28, 28)
    assert labels.shape == (0,)


def test_nearest_mnist_image_is_mostly_the_same_digit(digits):
    if find_data("mnist") is None:
        pytest.skip("no MNIST at $MLASS_DATA/mnist or ../shared/data/mnist")
    images, labels = digits
    known, names = mnist_images("train")[:6000], mnist_labels("train")[:6000]
    near = torch.cdist(images.flatten(1), known.flatten(1)).argmin(1)
    assert (names[near] == labels).float().mean() > 0.7
