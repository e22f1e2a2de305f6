"""The references' pairing and the floors that it must reproduce."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlass_ppl.data import find_data, mnist_images
from mlass_ppl.errors import OptionError, SignalError
from mlass_ppl.evaluate import MixtureSet, pairing, psnr, split_hash


@pytest.fixture(scope="module")
def test_images() -> torch.Tensor:
    folder = find_data("mnist")
    if folder is None:
        pytest.skip("no MNIST here: set MLASS_DATA to a folder that holds mnist/")
    return mnist_images("test", folder)


def _random(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_slots_follow_the_permutation() -> None:
    order = np.random.default_rng(100).permutation(50)
    found = pairing(50, 4, 100)
    assert found[:, 0].tolist() == list(range(50))
    for slot in range(3):
        assert found[:, slot + 1].tolist() == order[found[:, slot]].tolist()


def test_every_image_stands_once_in_every_slot() -> None:
    found = pairing(10_000, 3, 100)
    assert all(len(set(found[:, slot])) == 10_000 for slot in range(3))
    # perm has one cycle of length 2 at the references' seed: two triplets repeat an image
    assert sum(len(set(row)) < 3 for row in found.tolist()) == 2


def test_a_mixture_is_the_mean_of_its_sources() -> None:
    images = _random(20)
    mixtures = MixtureSet.make(images, 3, 7)
    chosen = np.array([4, 0, 19])
    truths = mixtures.truths(chosen)
    assert truths.shape == (3, 3, 1, 28, 28)
    for row, index in enumerate(chosen):
        parts = [images[i] for i in mixtures.indices[index]]
        torch.testing.assert_close(truths[row], torch.stack(parts))
        torch.testing.assert_close(mixtures.mixtures(chosen)[row], sum(parts) / 3)


@pytest.mark.parametrize(
    ("sources", "floor", "spread", "black", "black_spread", "first", "count"),
    [(2, 14.89, 1.33, 9.73, 1.17, 15.01, 175), (3, 13.62, 0.89, 9.73, 0.95, 13.74, 184)],
)
def test_floors_over_all_test_mixtures(
    test_images: torch.Tensor,
    sources: int,
    floor: float,
    spread: float,
    black: float,
    black_spread: float,
    first: float,
    count: int,
) -> None:
    """The mixture copied to every output and black outputs, as measured on the references' own
    pairing; `first` is the floor of the first mixtures, those that the published rows used."""
    mixtures = MixtureSet.make(test_images, sources, 100)
    everything = np.arange(len(mixtures))
    truths, mixed = mixtures.truths(everything), mixtures.mixtures(everything)
    copied = psnr(mixed[:, None], truths).mean(1)
    assert copied.size == 10_000
    assert round(copied.mean(), 2) == floor
    assert round(copied.std(), 2) == spread
    assert round(copied[:count].mean(), 2) == first
    nothing = psnr(torch.zeros(1, 1, 1, 28, 28), truths).mean(1)
    assert round(nothing.mean(), 2) == black
    assert round(nothing.std(), 2) == black_spread


def test_split_hash_tells_pixels_and_order() -> None:
    images = _random(5)
    assert split_hash(images) == split_hash(images.clone())
    assert split_hash(images) != split_hash(images.flip(0))
    assert split_hash(images) != split_hash(images[:4])
    touched = images.clone()
    touched[2, 0, 0, 0] = 1.0 - touched[2, 0, 0, 0].round()
    assert split_hash(images) != split_hash(touched)


def test_split_hash_of_mnist(test_images: torch.Tensor) -> None:
    assert split_hash(test_images).startswith("310a79d81702")


def test_refusals() -> None:
    with pytest.raises(OptionError, match="two or more sources"):
        pairing(10, 1, 100)
    with pytest.raises(OptionError, match="pairing seed"):
        pairing(10, 2, -1)
    with pytest.raises(SignalError, match="at least one image"):
        MixtureSet.make(torch.zeros(0, 1, 28, 28), 2)
    with pytest.raises(SignalError, match="at least one image"):
        MixtureSet.make(torch.zeros(28, 28), 2)
