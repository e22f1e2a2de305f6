"""Files that cannot be imported: missing, cut short, hostile, of another model; each is named."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lass_files import NAME, K, counts, gpt2_state, put, vqvae_state, write_published
from torch import Tensor
from typer.testing import CliRunner

from mlass_ppl.cli import app
from mlass_ppl.errors import BundleError
from mlass_ppl.importing import import_lass_mnist
from mlass_ppl.importing.sums import read_sums

VQVAE, PRIOR = f"checkpoints/vqvae/{NAME}", f"checkpoints/unconditioned/{NAME}"
TABLE = f"checkpoints/sum/{NAME}"
State = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_published(tmp_path / "published")


def refused(folder: Path, *parts: str, **options: Any) -> None:
    with pytest.raises(BundleError) as caught:
        import_lass_mnist(folder, **options)
    for part in parts:
        assert part in str(caught.value)


# --- missing -------------------------------------------------------------------------------------


def test_a_missing_file_is_told_with_what_was_found(folder, tmp_path):
    (folder / PRIOR).unlink()
    (folder / "checkpoints/lass-mnist-ckpts.tar").write_bytes(b"")
    result = CliRunner().invoke(app, ["import", "lass-mnist", str(folder), "--out", str(tmp_path)])
    assert result.exit_code == 2
    said = result.output
    assert "prior: expected unconditioned/256-sigmoid-big.pt; missing" in said
    assert str(folder / VQVAE) in said  # found
    assert "checkpoints/lass-mnist-ckpts.tar" in said
    assert "tar -xf" in said
    assert "--prior" in said
    assert not (tmp_path / "bundle.json").exists()


def test_tables_are_missed_as_well(folder):
    for path in [*folder.glob("checkpoints/sum/*"), *folder.glob("models/*/*")]:
        path.unlink()
    refused(folder, "tables: expected sum/256-sigmoid-big.pt", "missing")


def test_a_folder_that_is_none(folder, tmp_path):
    refused(tmp_path / "nowhere", "does not exist", "tar -xf")
    refused(folder / VQVAE, "is a file", "expected the folder")
    refused(folder, "no.pt", "cannot be read", vqvae=tmp_path / "no.pt")
    refused(folder, str(tmp_path), "cannot be read", vqvae=tmp_path)


# --- damaged and hostile -------------------------------------------------------------------------


@pytest.mark.parametrize("file", [VQVAE, PRIOR, TABLE])
def test_a_file_cut_short_anywhere_is_named(folder, file):
    whole = (folder / file).read_bytes()
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
        (folder / file).write_bytes(whole[: int(share * len(whole))])
        refused(folder, file, "no whole PyTorch file", "cut short")


def test_bytes_that_were_changed_never_end_in_another_error(folder):
    whole = (folder / TABLE).read_bytes()
    errors = 0
    for place in range(0, len(whole), 11):
        (folder / TABLE).write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        try:
            read_sums(folder / TABLE, K)
        except BundleError:
            errors += 1
    assert errors > 10


def test_the_page_of_a_download_is_no_file(folder):
    (folder / VQVAE).write_text("<!DOCTYPE html><html><title>Virus scan warning</title></html>")
    refused(folder, VQVAE, "page of the download")


class Hostile:
    """Makes a folder when it is unpickled by an unguarded reader."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("file", [VQVAE, PRIOR, TABLE])
def test_a_file_that_would_run_code_is_refused(folder, file, tmp_path):
    mark = tmp_path / "ran"
    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))):
        write({"encoder.0.weight": torch.ones(2), "more": Hostile(mark)}, folder / file)
        refused(folder, file, "could run code of their own", "state_dict()")
        assert not mark.exists()
    torch.load(put(Hostile(mark), tmp_path / "evil.pt"), weights_only=False)
    assert mark.exists()  # the file was dangerous


def test_a_hostile_npz_is_refused(folder, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "sums.npz"
    data = np.array([Hostile(mark)], dtype=object)
    np.savez(path, coords=np.zeros((3, 1), int), data=data, shape=[K] * 3, fill_value=0.0)
    refused(folder, "sums.npz", "no sparse array", sums=[path])
    assert not mark.exists()


def test_a_tensor_cannot_claim_more_than_the_file_holds(folder):
    huge = torch.ones(1).expand(10**9, 8)
    put({**vqvae_state(), "codeBook.embedding.weight": huge}, folder / VQVAE)
    refused(folder, VQVAE, "claims shape [1000000000, 8]")
    put(vqvae_state(), folder / VQVAE)
    put(torch.ones(1).expand(10**6, K, K), folder / TABLE)
    refused(folder, TABLE, "claims shape")


# --- of another model ----------------------------------------------------------------------------


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


STATES: list[tuple[str, Callable[[], Any], tuple[str, ...]]] = [
    (VQVAE, gpt2_state, ("no VQ-VAE of LASS", "transformer.wte.weight", "--vqvae")),
    (PRIOR, vqvae_state, ("no GPT-2", "encoder.0.weight", "--prior")),
    (VQVAE, lambda: counts(K, K, K), ("holds a Tensor", "state dict", "256-sigmoid-big.pt")),
    (VQVAE, dict, ("holds a dict", "expected a state dict")),
    (PRIOR, lambda: {"model": gpt2_state()}, ("holds a dict as 'model'", "state_dict()")),
    (VQVAE, lambda: without(vqvae_state(), "decoder.3.weight"), ("no weights 'decoder.3.weight'",)),
    (VQVAE, lambda: {**vqvae_state(), "extra": torch.ones(1)}, ("has weights 'extra'",)),
    (
        VQVAE,
        lambda: {**vqvae_state(), "encoder.0.weight": torch.ones(8, 3, 4, 4)},
        ("'encoder.0.weight' of shape [8, 3, 4, 4]", "expected [8, 1, 4, 4]"),
    ),
    (VQVAE, lambda: {**vqvae_state(), "encoder.1.bias": torch.ones(8) / 0}, ("NaN or infinite",)),
    (
        VQVAE,
        lambda: {**vqvae_state(), "encoder.1.bias": torch.ones(8).to_sparse()},
        ("sparse 'encoder.1.bias'",),
    ),
    (VQVAE, lambda: vqvae_state(alphabet=K + 1), (f"{K + 1} codes", f"over {K}", "one model")),
    (PRIOR, lambda: gpt2_state(length=10), ("10 tokens", "no square grid")),
    (PRIOR, lambda: gpt2_state(width=9), ("9 wide", "--heads")),
    (
        PRIOR,
        lambda: {**gpt2_state(), "lm_head.weight": torch.ones(K, 8)},
        ("'lm_head.weight'", "output layer of its own"),
    ),
    (PRIOR, lambda: {"transformer.wte.weight": torch.ones(0, 8)}, ("no GPT-2",)),
]  # fmt: skip


@pytest.mark.parametrize(("file", "make", "parts"), STATES)
def test_weights_of_another_model_are_named(folder, file, make, parts):
    put(make(), folder / file)
    refused(folder, file, *parts)


def sparse(value: float, place: int = 0) -> Tensor:
    """A table of one entry, at [0, 0, place]."""
    where, values = torch.tensor([[0], [0], [place]]), torch.tensor([value])
    return torch.sparse_coo_tensor(where, values, (K, K, K), check_invariants=False)


def normalised() -> Tensor:
    sums = counts(K, K, K) + 1
    return sums / sums.sum(-1, keepdim=True)


TABLES: list[tuple[Callable[[], Any], tuple[str, ...]]] = [
    (normalised, ("no counts", "normalised")),
    (lambda: -counts(K, K, K), ("no counts, such as -",)),
    (lambda: counts(K, K, K) / 0, ("no counts",)),
    (lambda: counts(K, K, K) * 1j, ("no counts",)),
    (lambda: torch.zeros(K, K, K), ("nothing but zeros",)),
    (lambda: counts(K + 1, K + 1, K + 1), (f"[{K + 1}, {K + 1}, {K + 1}]", "another VQ-VAE")),
    (lambda: counts(1, K, K), ("[1, 6, 6]", "[n, 6, 6] (MLASS-PE)")),
    (lambda: torch.tensor([]), ("shape [0]",)),
    (vqvae_state, ("holds a dict", "expected one tensor")),
    (lambda: sparse(0.5), ("no counts, such as 0.5",)),
    (lambda: counts(K, K, K).to_sparse(2), ("values [36, 6]",)),
    (lambda: counts(K, K).to_sparse_csr(), ("sparse_csr",)),
]


@pytest.mark.parametrize(("make", "parts"), TABLES)
def test_tables_of_something_else_are_named(folder, make, parts):
    put(make(), folder / TABLE)
    refused(folder, TABLE, *parts)


def test_sparse_entries_outside_the_table_are_refused(folder, tmp_path):
    put(sparse(1.0, K), folder / TABLE)
    refused(folder, TABLE)
    arrays = {"data": np.ones(1), "shape": [K] * 3, "fill_value": 0.0}
    np.savez(tmp_path / "out.npz", coords=np.array([[0], [0], [K]]), **arrays)
    refused(folder, "out.npz", "outside its shape", sums=[tmp_path / "out.npz"])
    np.savez(tmp_path / "two.npz", coords=np.zeros((3, 2), int), **arrays)
    refused(folder, "two.npz", "coordinates [3, 2]", sums=[tmp_path / "two.npz"])


def test_an_npz_that_is_no_sparse_array_is_refused(folder, tmp_path):
    path = tmp_path / "sums.npz"
    np.savez(path, frequencies=np.ones(3))
    refused(folder, "sums.npz", "coords, data, shape and fill_value", sums=[path])
    arrays = {"coords": np.zeros((3, 1), int), "data": np.ones(1), "shape": [K] * 3}
    np.savez(path, **arrays, fill_value=1.0)
    refused(folder, "sums.npz", "fill value 1.0", sums=[path])
    path.write_bytes(path.read_bytes()[:-40])
    refused(folder, "sums.npz", "cut short", sums=[path])
    refused(folder, "no.npz", "cannot be read", sums=[tmp_path / "no.npz"])


def test_a_zip_of_something_else_is_refused(folder):
    with zipfile.ZipFile(folder / VQVAE, "w") as file:
        file.writestr("readme.txt", "hello")
    refused(folder, VQVAE, "no whole PyTorch file")
