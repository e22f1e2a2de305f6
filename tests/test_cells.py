"""Moments of cells: exact sums of products, merged in any order, stored and read back."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from torch import Tensor

from mlass_ppl.errors import TableError
from mlass_ppl.tables import CellMoments, Counts, load_cells, save_cells, save_counts
from mlass_ppl.tables import cells as module
from mlass_ppl.tables.store import _checksum


def draw(alphabet: int, width: int, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Correlated features that are whole units of 2^-16, so that nothing is lost to rounding."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(alphabet, (number,), generator=random)
    mixing = torch.randn(width, width, generator=random, dtype=torch.float64)
    values = torch.randn(number, width, generator=random, dtype=torch.float64) @ mixing
    return tokens, ((values + tokens[:, None]).clamp(-16, 16) * 2**16).round() / 2**16


def make(alphabet: int = 4, width: int = 3, number: int = 60, seed: int = 0) -> CellMoments:
    return CellMoments.from_features(*draw(alphabet, width, number, seed), alphabet)


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 80), st.integers(0, 2**20))
def test_means_and_covariances_are_those_of_numpy(alphabet, width, number, seed):
    tokens, features = draw(alphabet, width, number, seed)
    cells = CellMoments.from_features(tokens, features, alphabet)
    assert (cells.shape, cells.width, cells.samples) == ((alphabet,), width, number)
    assert cells.keys.tolist() == tokens.unique().tolist()
    means, covariances = cells.gaussians(0)
    for token in cells.keys.tolist():
        rows = features[tokens == token].numpy()
        assert int(cells.number[token]) == len(rows)
        assert means[token].numpy() == pytest.approx(rows.mean(0), abs=1e-9)
        wanted = np.cov(rows.T, bias=True).reshape(width, width)
        assert covariances[token].numpy() == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=20)
@given(st.integers(1, 5), st.lists(st.integers(0, 40), min_size=3, max_size=3), st.integers(0, 99))
def test_merging_is_bit_for_bit_the_same_in_any_order(alphabet, numbers, seed):
    drawn = [draw(alphabet, 2, number, seed + place) for place, number in enumerate(numbers)]
    parts = [CellMoments.from_features(*one, alphabet) for one in drawn]
    tokens, features = (torch.cat(list(each)) for each in zip(*drawn, strict=True))
    whole = CellMoments.from_features(tokens, features, alphabet)
    for a, b, c in permutations(parts):
        assert (a + b) + c == a + (b + c) == CellMoments.merge([c, b, a]) == whole
    assert parts[0] + CellMoments.empty(alphabet, 2) == parts[0]


def test_large_batches_are_summed_in_pieces(monkeypatch):
    whole = make(number=100)
    monkeypatch.setattr(module, "_SAMPLES", 7)
    assert make(number=100) == whole
    monkeypatch.setattr(module, "_ROOM", 30)
    assert make(number=100) == whole


def test_positions_of_any_shape_and_type():
    tokens, features = draw(4, 2, 24, 0)
    flat = CellMoments.from_features(tokens, features, 4)
    shaped = CellMoments.from_features(
        tokens.reshape(4, 6).to(torch.int16), features.reshape(4, 6, 2).float(), 4
    )
    assert shaped.number.equal(flat.number)
    assert shaped == CellMoments.from_features(tokens, features.float(), 4)
    assert flat != CellMoments.from_features(tokens.flip(0), features, 4)
    assert flat != "cells"


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 20), st.floats(0.1, 9), st.integers(0, 2**20))
def test_few_samples_are_pulled_to_all_of_them(alphabet, number, strength, seed):
    """As if `strength` samples of the overall mean and covariance had been seen beside a cell's."""
    tokens, features = draw(alphabet, 2, number, seed)
    cells = CellMoments.from_features(tokens, features, alphabet + 1)  # the last is never seen
    means, covariances = cells.gaussians(strength)
    x = features.numpy()
    overall, spread = x.mean(0), np.cov(x.T, bias=True).reshape(2, 2)
    second = spread + np.outer(overall, overall)
    for token in range(alphabet + 1):
        rows = x[tokens.numpy() == token]
        total = len(rows) + strength
        mean = (rows.sum(0) + strength * overall) / total
        wanted = (rows.T @ rows + strength * second) / total - np.outer(mean, mean)
        assert means[token].numpy() == pytest.approx(mean, abs=1e-8)
        assert covariances[token].numpy() == pytest.approx(wanted, abs=1e-7)
    assert means[-1].numpy() == pytest.approx(overall, abs=1e-9)


def test_pooled_cells_are_one_cell():
    tokens, features = draw(5, 3, 40, 2)
    cells = CellMoments.from_features(tokens, features, 5)
    assert cells.pooled() == CellMoments.from_features(tokens * 0, features, 1)
    assert cells.pooled().pooled() == cells.pooled()


def test_they_say_what_they_hold():
    cells = CellMoments.from_features(torch.tensor([0, 0, 1]), torch.zeros(3, 2), 4)
    assert str(cells.coverage()) == "3 features; 50.0 % of parent configurations never seen"
    assert repr(cells) == "CellMoments(alphabet=4, width=2, samples=3)"
    assert cells.nbytes == 8 * (4 + 8 + 12)


ONE = torch.zeros(1, dtype=torch.int64)


def huge() -> CellMoments:
    return CellMoments(ONE + 1, ONE[:, None], torch.tensor([[2**61]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CellMoments.from_features(ONE, torch.tensor([[16.1]]), 2), r"\[16.1, 16.1\]"),
        (lambda: CellMoments.from_features(ONE, torch.tensor([[float("nan")]]), 2), "finite"),
        (lambda: CellMoments.from_features(ONE, torch.tensor([[1]]), 2), "floats"),
        (lambda: CellMoments.from_features(ONE / 2, torch.zeros(1, 1), 2), "tokens integers"),
        (lambda: CellMoments.from_features(ONE, torch.zeros(2, 1), 2), r"\[2, 1\] and .* \[1\]"),
        (lambda: CellMoments.from_features(ONE, torch.zeros(()), 2), "floats"),
        (lambda: CellMoments.from_features(ONE + 2, torch.zeros(1, 1), 2), r"lie in \[0, 2\)"),
        (lambda: CellMoments.from_features(ONE, torch.zeros(1, 0), 2), "tokens and a width"),
        (lambda: CellMoments.empty(0, 2), "tokens and a width"),
        (lambda: CellMoments.empty(2, 2).gaussians(1.0), "no feature was counted"),
        (lambda: CellMoments.merge([]), "one or more"),
        (lambda: CellMoments.empty(2, 1) + CellMoments.empty(3, 1), r"\(2, 1\), \(3, 1\)"),
        (lambda: CellMoments.empty(2, 1) + CellMoments.empty(2, 2), r"\(2, 1\), \(2, 2\)"),
        (lambda: huge() + huge(), "overflow.*Count fewer"),
    ],
)
def test_malformed_moments_are_refused(make, message):
    with pytest.raises(TableError, match=message):
        make()


# --- on disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [make(), make(1, 1, 3), CellMoments.empty(3, 5), make(40, 16, 500), huge()],
    ids=["small", "tiny", "empty", "wide", "huge"],
)
def test_round_trip(tmp_path, cells):
    path = tmp_path / "table.safetensors"
    save_cells(cells, path)
    back = load_cells(path)
    assert back == cells
    assert {part.dtype for part in back._sums()} == {torch.int64}
    assert [file.name for file in tmp_path.iterdir()] == ["table.safetensors"]
    save_cells(back, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_sums_are_stored_in_few_bytes(tmp_path):
    cells = make(64, 16, 5000)
    save_cells(cells, tmp_path / "table.safetensors")
    types = {array.dtype for array in load_file(tmp_path / "table.safetensors").values()}
    assert types == {np.dtype(np.uint8)}
    assert (tmp_path / "table.safetensors").stat().st_size < 0.7 * cells.nbytes


def test_damaged_files_are_refused_by_name(tmp_path):
    path = tmp_path / "table.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(TableError, match=message) as caught:
            load_cells(path)
        assert str(path) in str(caught.value)

    refused("no readable table of moments of cells")
    save_counts(Counts.from_dense(torch.ones(2, 2)), path)
    refused("no readable table of moments of cells")
    save_cells(make(), path)
    whole = path.read_bytes()
    for length in (0, 9, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("no readable table of moments of cells")
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    refused("is damaged")


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        ([3], {}),
        ([2, 1], {}),
        ([2], {"number": [1, -1]}),
        ([2], {"number": [1]}),
        ([2], {"number": [1, 0]}),  # a sum of no samples
        ([2], {"total": [1, 2]}),
        ([2], {"cross": [[1, 1], [1, 1]]}),
        ([2], {"total": np.zeros((2, 0)), "cross": np.zeros((2, 0))}),
        ([0], {"number": [], "total": np.zeros((0, 1)), "cross": np.zeros((0, 1))}),
    ],
    ids=str,
)
def test_sums_with_a_right_checksum_must_still_fit(tmp_path, shape, change):
    path = tmp_path / "table.safetensors"
    arrays = {"number": [1, 1], "total": [[1], [2]], "cross": [[1], [4]]}
    arrays = {key: np.array(value, np.int64) for key, value in {**arrays, **change}.items()}
    facts = {"shape": shape, "sha256": _checksum(shape, *arrays.values())}
    save_file(arrays, path, metadata={"cells": json.dumps(facts)})
    with pytest.raises(TableError, match="is damaged"):
        load_cells(path)
