"""scikit-learn's bundled handwritten digits, brought to 28x28 in MNIST's style. No download.

The 1,797 images (UCI "Optical Recognition of Handwritten Digits", test part) are 8x8 counts of ink
in 4x4 blocks of a 32x32 scan. The blocks are undone as a smooth outline whose block means give the
counts back (iterative back-projection), which restores strokes instead of blurring them; then the
digit gets MNIST's proportions and mean slant, is scaled into a 20x20 box and centred by its centre
of mass in 28x28, as MNIST was made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import DataError

_BLOCK = 4  # pixels of the original scan per side of one of the 8x8 counts
_PAD = 2  # empty counts around the digit, so that strokes may touch the border
_GAIN, _SHARP = 8.0, 40.0  # slope of the ink in the outline: while fitting, when drawn
_THIN = 0.47  # where to draw the edge, from the fitted outline (0) to the ridge of the stroke (1)
_WIDER, _SLANT = 1.25, -0.14  # MNIST's digits against these, by second moments
_ZOOM = 3


def _blur(images: Tensor, sigma: float) -> Tensor:
    radius = int(3 * sigma + 0.5)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    pad = functional.pad(images, (radius,) * 4, mode="replicate")
    rows = functional.conv2d(pad, kernel.view(1, 1, 1, -1))
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1))


def _outlines(counts: Tensor, steps: int = 12) -> Tensor:
    """Smooth fields [N, 1, 48, 48], positive on ink, whose block means give the counts."""
    ink = functional.pad(counts, (_PAD,) * 4)
    size = ink.shape[-1] * _BLOCK

    def up(blocks: Tensor) -> Tensor:
        return functional.interpolate(blocks, (size, size), mode="bicubic", align_corners=False)

    field = up(ink) - 0.5
    for _ in range(steps):
        drawn = torch.sigmoid(_GAIN * _blur(field, _BLOCK / 2))
        field = (field + up(ink - functional.avg_pool2d(drawn, _BLOCK))).clamp(-1.5, 1.5)
    return _blur(field, _BLOCK / 2)


def _draw(fields: Tensor) -> Tensor:
    """Outlines to ink in [0, 1], thinned, magnified, widened and slanted."""
    side = fields.shape[-1] * _ZOOM
    matrix = torch.tensor([[1 / _WIDER, -_SLANT / _WIDER, 0.0], [0.0, 1.0, 0.0]])
    grid = functional.affine_grid(
        matrix.expand(len(fields), 2, 3), [len(fields), 1, side, side], align_corners=False
    )
    # The edge follows the ridge nearby: thick strokes come out thinner, thin ones do not break.
    ridge = _blur(functional.max_pool2d(fields.clamp(min=0), _BLOCK + 1, 1, _BLOCK // 2), 1.0)
    height = functional.grid_sample(
        fields - _THIN * ridge + 0.03,
        grid,
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    return torch.sigmoid(_SHARP * height)


def centre(ink: Tensor, box: int = 20, size: int = 28) -> Tensor:
    """Place one image [H, W] of light ink in [0, 1] as MNIST does: float32 [size, size].

    The ink is cut tightly, scaled with antialiasing so that its longer side is `box` pixels, and
    put with its centre of mass in the middle of the canvas. Raises DataError on an empty image.
    """
    rows, columns = (ink > 0.5).any(1).nonzero(), (ink > 0.5).any(0).nonzero()
    if not len(rows):
        raise DataError("there is no ink in the image (no pixel above 0.5), so nothing to centre.")
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = box / max(cut.shape)
    height, width = (max(1, round(side * scale)) for side in cut.shape)
    cut = functional.interpolate(
        cut[None, None], (height, width), mode="bicubic", align_corners=False, antialias=True
    )[0, 0].clamp(0, 1)
    mass = cut.sum()
    top, left = (
        min(max(round(size / 2 - ((cut.sum(1 - axis) * place).sum() / mass).item()), 0), room)
        for axis, place, room in (
            (0, torch.arange(height), size - height),
            (1, torch.arange(width), size - width),
        )
    )
    canvas = torch.zeros(size, size)
    canvas[top : top + height, left : left + width] = cut
    return canvas


def bundled_digits(indices: Sequence[int] | Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The bundled digits (or those at `indices`) and their labels.

    Returns images float32 [N, 1, 28, 28] in [0, 1] (light ink on black) and labels int64 [N].
    Takes about 5 ms an image. Raises DataError when scikit-learn is missing or an index is outside
    [0, 1797). Source: scikit-learn `load_digits`, UCI ML repository, CC BY 4.0.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the bundled digits come with scikit-learn, which is not installed here: "
            "pip install scikit-learn, or give MNIST with --data-root."
        ) from error
    data = load_digits()
    total = len(data.target)
    chosen = torch.arange(total) if indices is None else torch.as_tensor(indices).long().flatten()
    if chosen.numel() == 0:
        return torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.int64)
    if int(chosen.min()) < 0 or int(chosen.max()) >= total:
        raise DataError(
            f"digit indices lie in [0, {total}); got {int(chosen.min())} to {int(chosen.max())}."
        )
    counts = torch.as_tensor(data.images, dtype=torch.float32)[chosen].unsqueeze(1) / 16
    images = [centre(ink) for part in counts.split(64) for ink in _draw(_outlines(part))[:, 0]]
    return torch.stack(images).unsqueeze(1), torch.as_tensor(data.target)[chosen].long()
