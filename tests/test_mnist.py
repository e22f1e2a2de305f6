"""MNIST's reader on files written here, and the real files where there are some."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from mlass_ppl.data import VALIDATION, find_data, mnist_images, mnist_labels, read_idx
from mlass_ppl.data.mnist import _locate
from mlass_ppl.errors import DataError

RANDOM = np.random.default_rng(0)


def idx(array: np.ndarray, magic: bytes | None = None) -> bytes:
    head = magic or b"\x00\x00\x08" + bytes([array.ndim])
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (7,), (2, 2, 2, 2), (0, 28, 28)])
def test_what_is_written_is_read(tmp_path, suffix, shape):
    array = RANDOM.integers(0, 256, shape).astype(np.uint8)
    found = read_idx(write(tmp_path / f"file-idx{suffix}", idx(array)))
    assert np.array_equal(found, array)
    assert found.dtype == np.uint8
    assert found.flags.writeable


ARRAY = RANDOM.integers(0, 256, (3, 4, 5)).astype(np.uint8)
BROKEN = {
    "empty": (b"", "no idx file"),
    "short header": (idx(ARRAY)[:10], "no idx file"),
    "wrong magic": (idx(ARRAY, b"\x01\x00\x08\x03"), "no idx file of unsigned bytes"),
    "floats": (idx(ARRAY, b"\x00\x00\x0d\x03"), "no idx file of unsigned bytes"),
    "truncated": (idx(ARRAY)[:-1], r"says \(3, 4, 5\) but holds 59 bytes of 60"),
    "too long": (idx(ARRAY) + b"\0", "holds 61 bytes of 60"),
    "huge": (idx(ARRAY)[:4] + b"\xff" * 12 + bytes(8), "truncated or not MNIST"),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", BROKEN)
def test_malformed_files_are_named(tmp_path, name, suffix):
    content, message = BROKEN[name]
    with pytest.raises(DataError, match=message) as caught:
        read_idx(write(tmp_path / f"digits{suffix}", content))
    assert f"digits{suffix}" in str(caught.value)


def test_damaged_archives_are_named(tmp_path):
    path = write(tmp_path / "digits.gz", idx(RANDOM.integers(0, 256, (50, 28, 28))))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"digits\.gz .*damaged"):
        read_idx(path)
    for place in range(20, len(whole) - 8, len(whole) // 40):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"digits\.gz"):
            read_idx(path)
    path.write_bytes(idx(ARRAY))  # not compressed at all
    with pytest.raises(DataError, match="cannot read"):
        read_idx(path)
    with pytest.raises(DataError, match="cannot read idx file nowhere"):
        read_idx(tmp_path / "nowhere")


# --- splits --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A small MNIST: image i is filled with i mod 256 and labelled i mod 10."""
    folder = tmp_path_factory.mktemp("data")
    for stem, number in (("train", VALIDATION + 30), ("t10k", 20)):
        order = np.arange(number)
        images = np.broadcast_to((order % 256)[:, None, None], (number, 28, 28))
        write(folder / f"{stem}-images-idx3-ubyte.gz", idx(images))
        write(folder / f"{stem}-labels-idx1-ubyte", idx(order % 10))  # plain
    return folder


@pytest.mark.parametrize(
    ("split", "first", "number"),
    [("train", 0, 30), ("validation", 30, VALIDATION), ("test", 0, 20)],
)
def test_splits(root, split, first, number):
    images, labels = mnist_images(split, root), mnist_labels(split, root)
    order = torch.arange(first, first + number)
    assert images.shape == (number, 1, 28, 28)
    assert images.dtype == torch.float32
    assert torch.equal(images[:, 0, 0, 0], (order % 256).float() / 255)
    assert torch.equal(images[:, 0, 27, 27], images[:, 0, 0, 0])
    assert labels.dtype == torch.int64
    assert torch.equal(labels, order % 10)


@pytest.mark.parametrize("inside", ["", "mnist", "MNIST/raw", "raw"])
def test_files_are_found_where_others_put_them(tmp_path, inside):
    name = "t10k-labels-idx1-ubyte"
    path = write(tmp_path / inside / name, idx(np.arange(5)))
    assert _locate(tmp_path, "t10k", "labels-idx1-ubyte") == path
    assert mnist_labels("test", tmp_path).tolist() == [0, 1, 2, 3, 4]
    packed = write(path.with_name(f"{name}.gz"), idx(np.arange(3)))
    assert _locate(tmp_path, "t10k", "labels-idx1-ubyte") == packed


def test_missing_files_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"'t10k-images-idx3-ubyte\.gz' not found") as caught:
        mnist_images("test", tmp_path)
    for word in (str(tmp_path), "--data-root", "$MLASS_DATA", "download_mnist"):
        assert word in str(caught.value)
    monkeypatch.setattr("mlass_ppl.data.mnist.find_data", lambda folder: None)
    with pytest.raises(DataError, match="no data folder"):
        mnist_images("test")


def test_unknown_splits_are_refused(root):
    for read in (mnist_images, mnist_labels):
        with pytest.raises(DataError, match="unknown split 'dev': expected one of train, val"):
            read("dev", root)


def test_arrays_that_are_no_mnist_are_refused(tmp_path):
    write(tmp_path / "t10k-images-idx3-ubyte", idx(np.arange(5)))
    write(tmp_path / "train-images-idx3-ubyte", idx(np.zeros((9, 28, 28))))
    with pytest.raises(DataError, match=r"expected \[N, 28, 28\], got an array \[5\]"):
        mnist_images("test", tmp_path)
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"N above 5,000, got an array \[9, 28, 28\]"):
            mnist_images(split, tmp_path)


def test_the_environment_says_where_data_is(tmp_path, monkeypatch):
    (tmp_path / "things").mkdir()
    monkeypatch.setenv("MLASS_DATA", str(tmp_path))
    assert find_data("things") == tmp_path / "things"
    assert find_data("no such folder") is None
    monkeypatch.delenv("MLASS_DATA")
    assert find_data("things") is None


# --- the real files ------------------------------------------------------------------------------

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

real = pytest.mark.skipif(
    find_data("mnist") is None, reason="no MNIST in $MLASS_DATA or ../shared/data"
)


@real
@pytest.mark.parametrize("name", MD5)
def test_the_real_files_are_those_of_everyone(name):
    stem, kind = name.split("-", 1)
    path = _locate(None, stem, kind)
    array = read_idx(path)
    raw = idx(array)
    assert hashlib.md5(raw).hexdigest() == MD5[name]


@real
def test_the_real_test_split():
    images, labels = mnist_images("test"), mnist_labels("test")
    assert images.shape == (10_000, 1, 28, 28)
    assert images.min() == 0
    assert images.max() == 1
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert torch.bincount(labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
