"""What `separate` takes for a mixture, and the sentence for everything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_bundle, mixtures
from torch import Tensor

from mlass_ppl import Sample, separate
from mlass_ppl.bundle import Bundle
from mlass_ppl.errors import MlassError, SignalError
from mlass_ppl.shapes import chain


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle(sources=(2,))


def taken(bundle: Bundle, mixture: object) -> Tensor:
    """The mixtures as `separate` understood them."""
    return separate(mixture, chain(2), bundle, search=Sample(2)).mixtures


def test_one_mixture_in_every_shape(bundle):
    image = mixtures(1)
    for given in (image, image[0], image[0, 0]):
        assert torch.equal(taken(bundle, given), image)
    several = mixtures(3)
    assert torch.equal(taken(bundle, several), several)


def test_arrays_of_every_kind(bundle):
    image = mixtures(2)
    array = image.numpy()
    locked = array.copy()
    locked.flags.writeable = False
    assert torch.equal(taken(bundle, array), image)
    assert torch.equal(taken(bundle, locked), image)
    assert torch.equal(taken(bundle, array[::-1]), image.flip(0))
    assert torch.equal(taken(bundle, array.astype(np.float64)), image)
    assert torch.equal(taken(bundle, array[0, 0].tolist()), image[:1])
    assert torch.allclose(taken(bundle, image.half()), image, atol=1e-3)


def test_eight_bit_pixels_are_scaled(bundle):
    pixels = (mixtures(2) * 255).round().to(torch.uint8)
    expected = pixels.float() / 255
    assert torch.equal(taken(bundle, pixels), expected)
    assert torch.equal(taken(bundle, pixels.numpy()), expected)


def test_what_is_given_is_left_alone(bundle):
    image = mixtures(1).requires_grad_()
    copy = image.detach().clone()
    found = separate(image, chain(2), bundle, search=Sample(2))
    assert not found.mixtures.requires_grad
    assert torch.equal(image.detach(), copy)


@pytest.fixture
def pictures(tmp_path):
    """Two image files: one of the codec's size, one three times as large; with a dark border."""
    small = torch.zeros(12, 12)
    small[2:10, 2:10] = mixtures(1)[0, 0, 2:10, 2:10]
    pixels = (small * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "small.png")
    Image.fromarray(pixels.repeat(3, 0).repeat(3, 1)).save(tmp_path / "large.png")
    return torch.from_numpy(pixels).float()[None] / 255, tmp_path


def test_paths_are_read_at_the_codecs_size(bundle, pictures):
    pixels, folder = pictures
    for path in (folder / "small.png", str(folder / "small.png")):
        found = separate(path, chain(2), bundle, search=Sample(2))
        assert torch.allclose(found.mixtures, pixels[None], atol=1e-6)
        assert found.notices == ()
    found = separate(
        [folder / "large.png", folder / "small.png"], chain(2), bundle, search=Sample(2)
    )
    assert found.mixtures.shape == (2, 1, 12, 12)
    assert torch.allclose(found.mixtures[1], pixels, atol=1e-6)
    (notice,) = found.notices
    assert notice == "large.png: resized from 36x36 to 12x12 pixels"


IMAGE = mixtures(1)[0, 0]


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (torch.zeros(12), r"expected images \[12, 12\], \[1, 12, 12\] or .* got \[12\]"),
        (torch.zeros(13, 12), r"got \[13, 12\].*can be given as paths"),
        (torch.zeros(2, 12, 12), r"got \[2, 12, 12\]"),
        (torch.zeros(1, 3, 12, 12), r"got \[1, 3, 12, 12\]"),
        (torch.zeros(1, 1, 1, 12, 12), r"got \[1, 1, 1, 12, 12\]"),
        (torch.zeros(0, 1, 12, 12), r"M at least 1, got \[0, 1, 12, 12\]"),
        (torch.tensor(0.5), r"got \[\]"),
        ([], r"got \[0\]"),
        (IMAGE.clone().index_fill(0, torch.tensor([3]), float("nan")), "NaN or infinite pixels"),
        (IMAGE / 0, "NaN or infinite pixels"),
        (IMAGE * 255, "Divide 8-bit images by 255"),
        (IMAGE - 0.9, r"must lie in \[0, 1\], got \[-0\."),
        ((IMAGE * 255).long(), "Divide 8-bit images by 255"),
        (IMAGE > 0.5, "real pixel values in .* got torch.bool"),
        (IMAGE.to(torch.complex64), "real pixel values in .* got torch.complex64"),
        (None, "expected an image tensor, an array or a path, got NoneType"),
        ({"image": IMAGE}, "does not observe 'image'; expected a signal for each of 'mixture'"),
        (np.array([["a", "b"]]), "got ndarray"),
        ([[0.1, 0.2], [0.3]], "got list"),
        (["nowhere.png"], "no image file 'nowhere.png'"),
        ("nowhere.png", "no image file 'nowhere.png'"),
        (["nowhere.png", IMAGE], "no image file 'nowhere.png'"),
        ([IMAGE, "nowhere.png"], "paths only, or tensors only, got a path and a Tensor"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(bundle, mixture, message):
    with pytest.raises(SignalError, match=message):
        taken(bundle, mixture)


def test_a_file_that_is_no_image_is_named(bundle, tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(SignalError, match=r"notes\.png"):
        taken(bundle, tmp_path / "notes.png")


def test_every_refusal_is_a_mlass_error():
    assert issubclass(SignalError, MlassError)
