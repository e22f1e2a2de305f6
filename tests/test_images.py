"""Image files of every kind come in as light ink on black, or as a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mlass_ppl.data import images as module
from mlass_ppl.data.images import image_files, read_image
from mlass_ppl.errors import SignalError


@pytest.fixture
def digit():
    """uint8 [28, 28]: a light bar on black."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[6:22, 10:18] = 255
    pixels[6:10, 8:20] = 130
    return pixels


def _save(tmp_path, array, name="digit.png", mode=None, **options):
    path = tmp_path / name
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_a_28x28_grey_file_comes_in_untouched(tmp_path, digit):
    read = read_image(_save(tmp_path, digit))
    assert read.pixels.shape == (1, 28, 28)
    assert read.pixels.dtype == torch.float32
    assert read.notices == ()
    assert torch.equal(read.pixels[0], torch.from_numpy(digit).float() / 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I", "CMYK"])
def test_modes_mean_the_same_pixels(tmp_path, digit, mode):
    path = _save(tmp_path, digit, "digit.tif", mode)
    read = read_image(path)
    assert (read.pixels[0] - torch.from_numpy(digit) / 255).abs().max() < 0.02
    assert read.notices == ()


def test_bilevel_and_sixteen_bit_and_float(tmp_path, digit):
    bilevel = Image.fromarray(digit).point(lambda v: 255 if v > 200 else 0).convert("1")
    bilevel.save(tmp_path / "one.png")
    assert read_image(tmp_path / "one.png").pixels.unique().tolist() == [0.0, 1.0]
    wide = digit.astype(np.uint16) * 257
    read = read_image(_save(tmp_path, wide, "wide.png"))
    assert (read.pixels[0] - torch.from_numpy(digit) / 255).abs().max() < 1e-3
    real = (digit / 255).astype(np.float32)
    read = read_image(_save(tmp_path, real, "real.tif"))
    assert torch.equal(read.pixels[0], torch.from_numpy(real))


def test_dark_ink_on_paper_is_inverted_with_a_notice(tmp_path, digit):
    read = read_image(_save(tmp_path, 255 - digit))
    assert torch.allclose(read.pixels[0], torch.from_numpy(digit) / 255, atol=1e-6)
    assert any("inverted" in notice for notice in read.notices)


def test_a_dim_ground_is_moved_to_black_with_a_notice(tmp_path, digit):
    paper = (200 - digit * (150 / 255)).astype(np.uint8)  # a photograph: grey paper, grey ink
    read = read_image(_save(tmp_path, paper))
    assert read.pixels[0, 0].max() < 0.01
    assert [notice.split()[0] for notice in read.notices] == ["inverted:", "ground"]


@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_ground_is_filled_opposite_to_the_ink(tmp_path, digit, ink):
    rgba = np.full((28, 28, 4), ink, np.uint8)
    rgba[..., 3] = digit
    read = read_image(_save(tmp_path, rgba))
    assert torch.allclose(read.pixels[0], torch.from_numpy(digit) / 255, atol=1e-6)
    assert "transparent" in read.notices[0]


@pytest.mark.parametrize("shape", [(56, 56), (280, 140), (9, 14), (1, 3000), (400, 401)])
def test_any_size_is_resized_with_a_notice(tmp_path, shape):
    array = np.zeros(shape, np.uint8)
    array[shape[0] // 4 : -(shape[0] // 4) or None, shape[1] // 4 : -(shape[1] // 4)] = 255
    read = read_image(_save(tmp_path, array))
    assert read.pixels.shape == (1, 28, 28)
    assert f"resized from {shape[1]}x{shape[0]} to 28x28 pixels" in read.notices
    # proportions are kept: the ink covers as large a share of the padded square as before
    side = max(shape)
    assert read.pixels.mean() == pytest.approx((array / 255).sum() / side**2, rel=0.15, abs=0.02)


def test_other_targets_than_squares(tmp_path, digit):
    assert read_image(_save(tmp_path, digit), (32, 64)).pixels.shape == (1, 32, 64)


def test_flat_images_are_noticed(tmp_path):
    read = read_image(_save(tmp_path, np.full((28, 28), 255, np.uint8)))
    assert read.pixels.max() == 0
    assert "flat" in read.notices[-1]


def test_rotation_flags_and_animations_are_minded(tmp_path, digit):
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    Image.fromarray(digit[::-1, ::-1].copy()).save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png").pixels[0]
    assert torch.equal(turned, torch.from_numpy(digit).float() / 255)
    frames = [Image.fromarray(digit), Image.fromarray(255 - digit)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    read = read_image(tmp_path / "two.gif")
    assert "first frame" in read.notices[0]
    assert (read.pixels[0] - torch.from_numpy(digit) / 255).abs().max() < 0.02


def test_bad_files_are_told(tmp_path, digit):
    with pytest.raises(SignalError, match="no image file"):
        read_image(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(SignalError, match="no image that can be read"):
        read_image(tmp_path / "text.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(SignalError, match="no image that can be read"):
        read_image(tmp_path / "empty.png")
    random = np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)
    whole = _save(tmp_path, random, "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SignalError, match="damaged"):
        read_image(tmp_path / "cut.png")


def test_nan_and_out_of_range_pixels_are_told(tmp_path):
    array = np.zeros((28, 28), np.float32)
    array[3, 4] = np.nan
    with pytest.raises(SignalError, match="1 NaN or infinite pixels of 784"):
        read_image(_save(tmp_path, array, "nan.tif"))
    array[3, 4] = -5
    with pytest.raises(SignalError, match=r"from -5 to 0; expected"):
        read_image(_save(tmp_path, array, "low.tif"))


def test_huge_files_are_refused_before_they_are_unpacked(tmp_path, digit, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 27 * 28)
    with pytest.raises(SignalError, match="28 x 28 pixels; expected at most 756"):
        read_image(_save(tmp_path, digit))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit: an error, no warning
    with pytest.raises(SignalError, match="too large"):
        read_image(tmp_path / "digit.png")


def test_folders_are_searched_and_files_stand_once(tmp_path, digit):
    (tmp_path / "deep").mkdir()
    first = _save(tmp_path, digit, "a.png")
    second = _save(tmp_path / "deep", digit, "b.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    assert image_files([tmp_path, first]) == [first, second]
    (tmp_path / "bare").mkdir()
    with pytest.raises(SignalError, match="holds no image"):
        image_files([tmp_path / "bare"])
    with pytest.raises(SignalError, match="no file or folder"):
        image_files([tmp_path / "nowhere"])
    with pytest.raises(SignalError, match="got none"):
        image_files([])
