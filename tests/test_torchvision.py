"""Against the real torchvision, where it imports: `make test-full`."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
import torch

from mlass_ppl.data import find_data, mnist_images, mnist_labels

pytestmark = pytest.mark.full


def test_torchvision_reads_the_same_mnist(tmp_path: Path) -> None:
    try:
        from torchvision.datasets import MNIST
    except Exception as error:  # a CUDA wheel beside a CPU torch fails with more than ImportError
        pytest.skip(f"torchvision does not import here: {error}")
    source = find_data("mnist")
    if source is None:
        pytest.skip("no MNIST in $MLASS_DATA or ../shared/data")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in source.glob("*.gz"):
        with gzip.open(packed) as file, open(raw / packed.stem, "wb") as out:
            shutil.copyfileobj(file, out)
    theirs = MNIST(str(tmp_path), train=False)
    ours = mnist_images("test", tmp_path)
    assert torch.equal((ours[:, 0] * 255).round().to(torch.uint8), theirs.data)
    assert torch.equal(mnist_labels("test", tmp_path), theirs.targets)
    both = torch.cat([mnist_images("train", tmp_path), mnist_images("validation", tmp_path)])
    whole = MNIST(str(tmp_path), train=True).data
    assert torch.equal((both[:, 0] * 255).round().to(torch.uint8), whole)
