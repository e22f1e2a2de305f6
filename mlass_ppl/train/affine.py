"""Small affine changes of pictures: more training images than there are."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import DataError


def augment(
    images: Tensor,
    generator: torch.Generator | None = None,
    *,
    rotation: float = 7.0,
    scale: float = 0.06,
    shear: float = 0.1,
    shift: float = 1.2,
    stretch: float = 0.05,
) -> Tensor:
    """Each image turned, scaled, sheared, shifted and stretched a little, each by its own draw.

    images: float [N, C, H, W] in [0, 1], dark (0) outside the picture; the result has the same
    shape, dtype, device and range. Each amount is uniform between minus and plus its bound:
    rotation in degrees; scale and, of the height alone, stretch as fractions; shear in pixels a
    pixel; shift, in both directions, in pixels. Sampled bilinearly, so that the result is a little
    smoother. generator: on the CPU; the same one gives the same images on any device.

    Raises DataError on anything but such images. After Simard, Steinkraus & Platt (2003), "Best
    practices for convolutional neural networks applied to visual document analysis".
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise DataError(
            "augment takes float images [N, C, H, W] in [0, 1], got "
            f"{images.dtype} {list(images.shape)}. Add the missing dimensions (x[:, None]), or "
            "divide bytes by 255."
        )
    count, _, height, width = images.shape
    if not count:
        return images.clone()

    def draw(bound: float) -> Tensor:
        return ((torch.rand(count, generator=generator) * 2 - 1) * bound).to(images)

    turn, size, lean = draw(math.radians(rotation)), 1 + draw(scale), draw(shear)
    right, down = draw(2 * shift / width), draw(2 * shift / height)  # the picture is 2 wide
    cosine, sine, tall = turn.cos() * size, turn.sin() * size, 1 + draw(stretch)
    aspect = height / width
    across = torch.stack([cosine, (lean - sine) * aspect, right], 1)
    along = torch.stack([sine / aspect, cosine * tall, down], 1)
    grid = functional.affine_grid(
        torch.stack([across, along], 1), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False).clamp(0, 1)
