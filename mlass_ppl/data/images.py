"""Image files of any size and mode as the grey signals that an image codec takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import SignalError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".pbm", ".ppm",
)  # fmt: skip
"""Endings that `image_files` takes from a folder."""

MAX_PIXELS = 64_000_000
_FULL_SCALE = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0}
_DIM = 0.05  # a ground lighter than this is moved to black


class GreyImage(NamedTuple):
    """What `read_image` returns.

    pixels: float32 [1, height, width] in [0, 1], light ink on a dark ground.
    notices: one sentence for everything that was done to the file's pixels, in order.
    """

    pixels: Tensor
    notices: tuple[str, ...]


def read_image(path: str | Path, size: tuple[int, int] = (28, 28)) -> GreyImage:
    """Read an image file as light ink on black, resized to `size` = (height, width) pixels.

    Colour becomes luminance, transparency is filled with the ground opposite to the ink, a dark
    digit on a light ground is inverted, a dim ground is moved to black, and a file of another
    size is scaled with antialiasing and padded to the proportions of `size`. Each of these is
    told in `notices`. Raises SignalError when the file is missing, no image, damaged, larger than
    64 million pixels, or holds NaN, infinite or out-of-range values.
    """
    path = Path(path)
    notices: list[str] = []
    grey = torch.from_numpy(_load(path, notices))
    ground = float(_border(grey).median())
    if ground > 0.5:
        grey, ground = 1 - grey, 1 - ground
        notices.append("inverted: the file has dark ink on a light ground")
    if ground > _DIM:
        grey = ((grey - ground) / (1 - ground)).clamp(0, 1)
        notices.append(f"ground of {ground:.2f} moved to black")
    if tuple(grey.shape) != size:
        notices.append(
            f"resized from {grey.shape[1]}x{grey.shape[0]} to {size[1]}x{size[0]} pixels"
        )
        grey = _resize(grey, size)
    if float(grey.max() - grey.min()) < 0.02:
        notices.append("the image is flat: there is hardly any ink in it")
    return GreyImage(grey.unsqueeze(0).contiguous(), tuple(notices))


def image_files(paths: Iterable[str | Path]) -> list[Path]:
    """The image files among `paths` and in the folders among them (sorted, with subfolders).

    Each file stands once. Raises SignalError when a path does not exist, a folder holds no image,
    or nothing is given.
    """
    found: dict[Path, Path] = {}
    for given in map(Path, paths):
        if given.is_dir():
            inside = sorted(
                file
                for file in given.rglob("*")
                if file.suffix.lower() in IMAGE_SUFFIXES
                and file.is_file()
                and not file.name.startswith(".")
            )
            if not inside:
                raise SignalError(
                    f"folder '{given}' holds no image; expected files ending in "
                    f"{', '.join(IMAGE_SUFFIXES)}."
                )
        elif given.exists():
            inside = [given]
        else:
            raise SignalError(f"there is no file or folder '{given}'. Check its spelling.")
        for file in inside:
            found.setdefault(file.resolve(), file)
    if not found:
        raise SignalError("expected one or more image files or folders, got none.")
    return list(found.values())


def _load(path: Path, notices: list[str]) -> np.ndarray:
    """Grey pixels float32 [H, W] in [0, 1] as the file means them."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        raise SignalError(f"there is no image file '{path}'. Check its spelling.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(path)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise SignalError(
                    f"'{path}' has {image.width:,} x {image.height:,} pixels; expected at most "
                    f"{MAX_PIXELS:,}. Scale it down first: it is read at the codec's size anyway."
                )
            if getattr(image, "n_frames", 1) > 1:
                notices.append("only the first frame of an animation or page stack is read")
            image.load()
            grey = _grey(ImageOps.exif_transpose(image), notices)
    except Image.DecompressionBombError as error:
        raise SignalError(f"'{path}' is far too large for an image: {error}") from error
    except UnidentifiedImageError as error:
        raise SignalError(
            f"'{path}' is no image that can be read, or it is damaged. Expected PNG, JPEG, BMP, "
            "GIF, TIFF, WebP or PNM."
        ) from error
    except SignalError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct...
        raise SignalError(
            f"'{path}' is a damaged or unreadable image file ({error}). Save it again as PNG."
        ) from error
    if not np.isfinite(grey).all():
        bad = int((~np.isfinite(grey)).sum())
        raise SignalError(
            f"'{path}' holds {bad:,} NaN or infinite pixels of {grey.size:,}; expected finite "
            "values. Save it as an 8-bit image."
        )
    low, high = float(grey.min()), float(grey.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise SignalError(
            f"'{path}' has pixels from {low:.4g} to {high:.4g}; expected values in [0, 1] or in "
            "[0, 255]. Scale them first."
        )
    return grey.clip(0, 1)


def _grey(image: Any, notices: list[str]) -> np.ndarray:
    if image.mode in ("F", "I") or image.mode in _FULL_SCALE:
        values = np.array(image, dtype=np.float32)
        if (full := _FULL_SCALE.get(image.mode)) is not None:
            return values / full
        finite = values[np.isfinite(values)]
        top = float(finite.max()) if finite.size else 0.0
        if image.mode == "I" and top > 255:
            return values / 65535  # 16-bit PNG files arrive as 32-bit integers
        return values / 255 if image.mode == "I" or 1.5 < top <= 255 else values
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _flatten(image, notices)
    return np.array(image.convert("RGB").convert("L"), dtype=np.float32) / 255


def _flatten(image: Any, notices: list[str]) -> np.ndarray:
    """Fill what is transparent with white under dark ink and with black under light ink."""
    rgba = image.convert("RGBA")
    opacity = np.array(rgba.getchannel("A"), dtype=np.float32) / 255
    grey = np.array(rgba.convert("RGB").convert("L"), dtype=np.float32) / 255
    if opacity.min() >= 1:
        return grey
    ink = float((grey * opacity).sum() / max(float(opacity.sum()), 1e-6))
    fill = 1.0 if ink < 0.5 and opacity.max() > 0 else 0.0
    notices.append(f"transparent pixels filled with {'white' if fill else 'black'}")
    return np.asarray(grey * opacity + fill * (1 - opacity), dtype=np.float32)


def _border(grey: Tensor) -> Tensor:
    return torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _resize(grey: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale with antialiasing until it fits, then pad with black."""
    height, width = grey.shape
    scale = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = functional.interpolate(
        grey[None, None], inner, mode="bilinear", align_corners=False, antialias=True
    )[0, 0]
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    pad = (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top)
    return functional.pad(small, pad).clamp(0, 1)
