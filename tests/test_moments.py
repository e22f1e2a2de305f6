"""Moments: exact sums of features, merged in any order, stored and read back."""

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
from mlass_ppl.tables import Counts, Moments, load_moments, save_counts, save_moments
from mlass_ppl.tables import moments as module
from mlass_ppl.tables.store import _checksum

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def draw(shape: tuple[int, ...], width: int, number: int, seed: int) -> tuple[list[Tensor], Tensor]:
    random = torch.Generator().manual_seed(seed)
    parents = [torch.randint(size, (number,), generator=random) for size in shape]
    return parents, 3 * torch.randn(number, width, generator=random).clamp(-5, 5)


def make(shape: tuple[int, ...] = (3, 4), width: int = 2, number: int = 50, seed: int = 0):
    return Moments.from_features(*draw(shape, width, number, seed), shape)


@settings(max_examples=40)
@given(SHAPES, st.integers(1, 3), st.integers(0, 80), st.integers(0, 2**20))
def test_sums_are_those_of_a_slow_loop(shape, width, number, seed):
    parents, features = draw(shape, width, number, seed)
    moments = Moments.from_features(parents, features, shape)
    sums: dict[int, list] = {}
    for i in range(number):
        key = int(np.ravel_multi_index([int(p[i]) for p in parents], shape))
        units = [round(float(x) * 2**16) for x in features[i]]
        entry = sums.setdefault(key, [0, [0] * width, [0] * width])
        entry[0] += 1
        entry[1] = [a + b for a, b in zip(entry[1], units, strict=True)]
        entry[2] = [a + b * b for a, b in zip(entry[2], units, strict=True)]
    assert moments.keys.tolist() == sorted(sums)
    assert moments.number.tolist() == [sums[key][0] for key in sorted(sums)]
    assert moments.total.tolist() == [sums[key][1] for key in sorted(sums)]
    assert moments.square.tolist() == [sums[key][2] for key in sorted(sums)]
    assert (moments.shape, moments.width, moments.samples) == (shape, width, number)


@settings(max_examples=30)
@given(SHAPES, st.lists(st.integers(0, 40), min_size=3, max_size=3), st.integers(0, 2**20))
def test_merging_is_bit_for_bit_the_same_in_any_order(shape, numbers, seed):
    drawn = [draw(shape, 2, number, seed + place) for place, number in enumerate(numbers)]
    parts = [Moments.from_features(*one, shape) for one in drawn]
    parents = [torch.cat(axis) for axis in zip(*(p for p, _ in drawn), strict=True)]
    whole = Moments.from_features(parents, torch.cat([f for _, f in drawn]), shape)
    for a, b, c in permutations(parts):
        assert (a + b) + c == a + (b + c) == Moments.merge([c, b, a]) == whole
    assert parts[0] + Moments.empty(shape, 2) == parts[0]


def test_large_batches_are_summed_in_pieces(monkeypatch):
    whole = make(number=100)
    monkeypatch.setattr(module, "_SAMPLES", 7)
    assert make(number=100) == whole


def test_equality_is_by_value():
    assert make(seed=1) != make(seed=2)
    assert make(width=2) != make(width=3)
    assert make() != "moments"


def test_positions_of_any_shape_and_type():
    parents, features = draw((3,), 2, 24, 0)
    flat = Moments.from_features(parents, features, (3,))
    shaped = [parents[0].reshape(4, 6).to(torch.int16)]
    assert Moments.from_features(shaped, features.reshape(4, 6, 2).double(), (3,)) == flat


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**20))
def test_symmetrised_moments_are_seen_in_every_order(arity, size, seed):
    shape = (size,) * arity
    parents, features = draw(shape, 2, 30, seed)
    orders = list(permutations(range(arity)))
    every = [torch.cat([parents[order[axis]] for order in orders]) for axis in range(arity)]
    expected = Moments.from_features(every, features.repeat(len(orders), 1), shape)
    assert Moments.from_features(parents, features, shape).symmetrised() == expected


def test_coverage_counts_configurations():
    moments = Moments.from_features([torch.tensor([0, 0, 1])], torch.zeros(3, 2), (4,))
    coverage = moments.coverage()
    assert (coverage.rows, coverage.child, coverage.cells, coverage.total) == (0.5, None, None, 3)
    assert str(coverage) == "3 features; 50.0 % of parent configurations never seen"
    assert moments.nbytes == 8 * (2 + 2 + 4 + 4)


ONE = [torch.zeros(1, dtype=torch.int64)]


def huge(square: int) -> Moments:
    sums = torch.tensor([[0]]), torch.tensor([[square]])
    return Moments((2,), 1, torch.tensor([1]), torch.tensor([1]), *sums)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Moments.from_features(ONE, torch.tensor([[16.1]]), (2,)), r"\[16.1, 16.1\]"),
        (lambda: Moments.from_features(ONE, torch.tensor([[float("nan")]]), (2,)), "finite"),
        (lambda: Moments.from_features(ONE, torch.tensor([[float("-inf")]]), (2,)), "finite"),
        (lambda: Moments.from_features(ONE, torch.tensor([[1]]), (2,)), "floats"),
        (lambda: Moments.from_features(ONE, torch.zeros(2, 1), (2,)), r"\[2, 1\] and \[\[1\]\]"),
        (lambda: Moments.from_features(ONE, torch.zeros(1, 0), (2,)), "width 0"),
        (lambda: Moments.from_features(ONE, torch.zeros(()), (2,)), "width 0"),
        (lambda: Moments.from_features(ONE, torch.zeros(1, 1), (2, 2)), "expected 2 parents"),
        (lambda: Moments.from_features([ONE[0] + 2], torch.zeros(1, 1), (2,)), r"lie in \[0, 2\)"),
        (lambda: Moments.from_features([ONE[0] / 2], torch.zeros(1, 1), (2,)), "integers"),
        (lambda: Moments.empty((), 2), "one or more parents"),
        (lambda: Moments.empty((2**32, 2**32), 2), "more than can be numbered"),
        (lambda: Moments.merge([]), "one or more"),
        (lambda: Moments.empty((2,), 1) + Moments.empty((3,), 1), r"\(2,\) and \(3,\)"),
        (lambda: Moments.empty((2,), 1) + Moments.empty((2,), 2), "widths 1 and 2"),
        (lambda: Moments.empty((2, 3), 1).symmetrised(), r"\(2, 3\) are not exchangeable"),
        (lambda: huge(2**61) + huge(2**61), "overflow.*Count fewer"),
        (lambda: Moments.merge([huge(2**61)] * 9), "overflow"),
    ],
)
def test_malformed_moments_are_refused(make, message):
    with pytest.raises(TableError, match=message):
        make()


def test_large_sums_in_different_places_do_not_overflow():
    other = huge(2**61)
    other = Moments((2,), 1, torch.tensor([0]), other.number, other.total, other.square)
    assert (other + huge(2**61)).square.tolist() == [[2**61], [2**61]]


# --- on disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moments",
    [make(), make((2,), 1, 3), Moments.empty((3, 4), 5), make((40, 40, 40), 3, 500), huge(2**61)],
    ids=["small", "tiny", "empty", "sparse", "huge"],
)
def test_round_trip(tmp_path, moments):
    path = tmp_path / "table.safetensors"
    save_moments(moments, path)
    back = load_moments(path)
    assert back == moments
    assert {part.dtype for part in back._sums()} == {torch.int64}
    assert [file.name for file in tmp_path.iterdir()] == ["table.safetensors"]
    save_moments(back, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_sums_are_stored_in_few_bytes(tmp_path):
    moments = make((64,), 16, 5000)
    save_moments(moments, tmp_path / "table.safetensors")
    types = {array.dtype for array in load_file(tmp_path / "table.safetensors").values()}
    assert types == {np.dtype(np.uint8)}
    assert (tmp_path / "table.safetensors").stat().st_size < 0.7 * moments.nbytes


def test_damaged_files_are_refused_by_name(tmp_path):
    path = tmp_path / "table.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(TableError, match=message) as caught:
            load_moments(path)
        assert str(path) in str(caught.value)

    refused("no readable table of moments")
    save_counts(Counts.from_dense(torch.ones(2, 2)), path)
    refused("no readable table of moments")
    save_moments(make(), path)
    whole = path.read_bytes()
    for length in (0, 9, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("no readable table of moments")
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    refused("is damaged")


@pytest.mark.parametrize(
    "change",
    [
        {"gaps": [0, 12]},
        {"gaps": [1, 0]},
        {"number": [1, 0]},
        {"number": [1]},
        {"total": [1, 2]},
        {"square": [[1, 1]]},
        {"total": np.zeros((2, 0)), "square": np.zeros((2, 0))},
    ],
    ids=str,
)
def test_sums_with_a_right_checksum_must_still_fit(tmp_path, change):
    path, shape = tmp_path / "table.safetensors", [3, 4]
    arrays = {"gaps": [0, 1], "number": [1, 1], "total": [[1], [2]], "square": [[1], [4]]}
    arrays = {key: np.array(value, np.int64) for key, value in {**arrays, **change}.items()}
    facts = {"shape": shape, "sha256": _checksum(shape, *arrays.values())}
    save_file(arrays, path, metadata={"moments": json.dumps(facts)})
    with pytest.raises(TableError, match="is damaged"):
        load_moments(path)
