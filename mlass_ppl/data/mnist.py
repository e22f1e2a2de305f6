"""MNIST from its four idx files, by a reader of our own; torchvision only to download."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

Split = Literal["train", "validation", "test"]

VALIDATION = 5_000
"""The last images of the 60,000 training images, kept out of all training."""

_STEMS = {"train": "train", "validation": "train", "test": "t10k"}


def find_data(folder: str) -> Path | None:
    """First of `$MLASS_DATA/folder` and `../shared/data/folder` that exists, or None."""
    roots = [os.environ.get("MLASS_DATA"), Path(__file__).parents[2].parent / "shared" / "data"]
    for root in roots:
        if root and (path := Path(root) / folder).is_dir():
            return path
    return None


def read_idx(path: str | Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, plain or gzipped.

    Returns a uint8 array of the shape in the file's header. Raises DataError when the file is no
    idx file of bytes or holds more or less than its header says.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"cannot read idx file {path.name} ({error}): it is missing or damaged. Fetch it again."
        ) from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path.name} is no idx file of unsigned bytes (magic {raw[:4]!r}).")
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if body.size != prod(shape):
        raise DataError(
            f"{path.name} says {shape} but holds {body.size:,} bytes of "
            f"{prod(shape):,}: it is truncated or not MNIST. Fetch it again."
        )
    return body.reshape(shape).copy()


def _locate(root: str | Path | None, stem: str, kind: str) -> Path:
    folder = Path(root) if root is not None else find_data("mnist")
    name = f"{stem}-{kind}"
    if folder is not None:
        for base in (folder, folder / "mnist", folder / "MNIST" / "raw", folder / "raw"):
            for candidate in (base / f"{name}.gz", base / name):
                if candidate.is_file():
                    return candidate
    where = folder if folder is not None else "no data folder"
    raise DataError(
        f"MNIST file '{name}.gz' not found ({where}). Give its folder with --data-root or "
        "$MLASS_DATA (then $MLASS_DATA/mnist), or install the extra [vision] and call "
        "mlass_ppl.data.download_mnist(folder)."
    )


def _cut(array: np.ndarray, split: Split, rank: int) -> np.ndarray:
    if array.ndim != rank or (split != "test" and len(array) <= VALIDATION):
        raise DataError(
            f"the {split} split is no MNIST: expected {'[N, 28, 28]' if rank == 3 else '[N]'}"
            f"{'' if split == 'test' else f' with N above {VALIDATION:,}'}, got an array "
            f"{list(array.shape)}. Fetch the files again."
        )
    if split == "train":
        return array[:-VALIDATION]
    return array[-VALIDATION:] if split == "validation" else array


def mnist_images(split: Split = "train", root: str | Path | None = None) -> Tensor:
    """Images of one split, float32 [N, 1, 28, 28] in [0, 1].

    `train` is the first 55,000 training images, `validation` the last 5,000, `test` the 10,000
    test images, each in the order of the files. Raises DataError when the files are missing.
    """
    if split not in _STEMS:
        raise DataError(f"unknown split '{split}': expected one of {', '.join(_STEMS)}.")
    images = read_idx(_locate(root, _STEMS[split], "images-idx3-ubyte"))
    return torch.from_numpy(_cut(images, split, 3)).unsqueeze(1).float().div_(255)


def mnist_labels(split: Split = "train", root: str | Path | None = None) -> Tensor:
    """Labels of one split, int64 [N], in the order of `mnist_images`."""
    if split not in _STEMS:
        raise DataError(f"unknown split '{split}': expected one of {', '.join(_STEMS)}.")
    labels = read_idx(_locate(root, _STEMS[split], "labels-idx1-ubyte"))
    return torch.from_numpy(_cut(labels, split, 1)).long()


def download_mnist(folder: str | Path) -> Path:
    """Download MNIST through torchvision into `folder` and return the folder of the idx files.

    Raises DataError when torchvision does not import or the download fails.
    """
    try:
        from torchvision.datasets import MNIST
    except Exception as error:  # a CUDA wheel beside a CPU torch fails with more than ImportError
        raise DataError(
            f"torchvision does not import here ({error}). Install the extra [vision], or put the "
            "four idx .gz files into a folder and pass it as --data-root."
        ) from error
    try:
        MNIST(str(folder), train=True, download=True)
    except Exception as error:
        raise DataError(f"torchvision could not download MNIST: {error}") from error
    return Path(folder) / "MNIST" / "raw"
