"""Counts: exact accumulation, merging, storage order and coverage."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl.errors import TableError
from mlass_ppl.tables import Counts

SHAPES = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple)


def _columns(shape: tuple[int, ...], number: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(size, (number,), generator=generator) for size in shape]


def _count(shape: tuple[int, ...], number: int, seed: int) -> Counts:
    *parents, child = _columns(shape, number, seed)
    return Counts.from_tokens(parents, child, shape)


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 200), st.integers(0, 2**31))
def test_counts_equal_numpy_with_duplicates(shape, number, seed):
    columns = _columns(shape, number, seed)
    counts = Counts.from_tokens(columns[:-1], columns[-1], shape)
    flat = np.ravel_multi_index([column.numpy() for column in columns], shape)
    expected = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
    assert np.array_equal(counts.dense().numpy(), expected)
    assert counts.total == number
    assert counts.keys.dtype == counts.values.dtype == torch.int64
    assert (counts.keys.diff() > 0).all()
    assert (counts.values > 0).all()
    assert counts.shape == shape
    assert counts.alphabet == shape[-1]


def test_one_cell_hit_many_times_keeps_every_hit():
    ones = torch.ones(1000, dtype=torch.int64)
    counts = Counts.from_tokens([ones, ones], ones, (2, 2, 2))
    assert counts.dense()[1, 1, 1] == 1000  # sums[a, b, m] += 1 gives 1
    assert counts.total == 1000


def test_tokens_of_any_integer_type_and_shape():
    a = torch.tensor([[0, 1], [1, 1]])
    m = torch.tensor([[2, 0], [0, 0]])
    expected = torch.tensor([[0, 0, 1], [3, 0, 0]])
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        counts = Counts.from_tokens([a.to(dtype)], m.to(dtype), (2, 3))
        assert torch.equal(counts.dense(), expected)


@settings(max_examples=30)
@given(SHAPES, st.lists(st.integers(0, 60), min_size=3, max_size=3), st.integers(0, 2**20))
def test_merging_is_exact_in_any_order_and_grouping(shape, numbers, seed):
    parts = [_count(shape, number, seed + place) for place, number in enumerate(numbers)]
    columns = [_columns(shape, number, seed + place) for place, number in enumerate(numbers)]
    together = [torch.cat(axis) for axis in zip(*columns, strict=True)]
    whole = Counts.from_tokens(together[:-1], together[-1], shape)
    for a, b, c in permutations(parts):
        assert (a + b) + c == a + (b + c) == Counts.merge([a, b, c]) == whole
    assert parts[0] + Counts.empty(shape) == parts[0]


def test_counts_beyond_32_bits_add_up():
    huge = 2**40 + 1
    counts = Counts((2, 2), torch.tensor([3]), torch.tensor([huge]))
    assert (counts + counts).dense()[1, 1] == 2 * huge
    assert (counts + counts).total == 2 * huge


def test_a_large_sparse_table_is_never_made_dense():
    shape = (2**20, 2**20, 2**20)
    top = torch.tensor([2**20 - 1, 2**20 - 1, 0])
    counts = Counts.from_tokens([top, top], top, shape)
    assert counts.keys.tolist() == [0, 2**60 - 1]
    assert counts.values.tolist() == [1, 2]
    assert counts.index()[:, 1].tolist() == [2**20 - 1] * 3


@settings(max_examples=30)
@given(SHAPES, st.integers(0, 80), st.integers(0, 2**20))
def test_dense_and_sparse_round_trip(shape, number, seed):
    counts = _count(shape, number, seed)
    assert Counts.from_dense(counts.dense()) == counts
    rebuilt = torch.zeros(shape, dtype=torch.int64)
    rebuilt[tuple(counts.index())] = counts.values
    assert torch.equal(rebuilt, counts.dense())


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 60), st.integers(0, 2**20))
def test_symmetrised_counts_are_seen_in_every_order(arity, parent, number, seed):
    counts = _count((*[parent] * arity, 3), number, seed)
    dense = counts.dense()
    expected = sum(dense.permute(*order, arity) for order in permutations(range(arity)))
    both = counts.symmetrised()
    assert torch.equal(both.dense(), expected)
    assert both == Counts.from_dense(expected)
    assert both.total == counts.total * len(list(permutations(range(arity))))


def test_equality_is_by_value():
    counts = Counts.from_dense(torch.tensor([[1, 0], [0, 2]]))
    assert counts == Counts.from_dense(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    assert counts != Counts.from_dense(torch.tensor([[1, 0], [0, 3]]))
    assert counts != Counts.from_dense(torch.tensor([[1, 0, 0], [0, 2, 0]]))
    assert counts != "counts"


def test_coverage_by_hand():
    # rows seen: 2 of 4; child tokens seen: 0 and 2 of 3; cells: 3 of 12
    array = torch.zeros(2, 2, 3, dtype=torch.int64)
    array[0, 0, 0], array[0, 0, 2], array[1, 0, 2] = 5, 1, 4
    coverage = Counts.from_dense(array).coverage()
    assert coverage.rows == pytest.approx(2 / 4)
    assert coverage.child == pytest.approx(2 / 3)
    assert coverage.cells == pytest.approx(3 / 12)
    assert coverage.total == 10
    told = str(coverage)
    assert "10 tuples" in told
    assert "50.0 % of parent configurations" in told
    assert "33.3 % of child tokens never seen" in told
    assert told.endswith("25 % of cells filled")
    full = Counts.from_dense(torch.ones(2, 3, dtype=torch.int64)).coverage()
    assert str(full).endswith("100 % of cells filled")
    empty = Counts.empty((2, 3)).coverage()
    assert (empty.rows, empty.child, empty.cells, empty.total) == (0, 0, 0, 0)


TWO = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Counts.from_tokens([TWO], torch.tensor([0, 3]), (2, 3)),
            r"\[0, 3\), got \[0, 3\]",
        ),
        (lambda: Counts.from_tokens([TWO - 1], TWO, (2, 3)), r"\[0, 2\), got \[-1, 0\]"),
        (lambda: Counts.from_tokens([TWO, TWO], TWO, (2, 2)), "expected 1 parents .* got 2"),
        (lambda: Counts.from_tokens([TWO[:1]], TWO, (2, 2)), r"differ in shape: \[\[1\], \[2\]\]"),
        (lambda: Counts.from_tokens([TWO / 2], TWO, (2, 2)), "integers, got torch.float32"),
        (lambda: Counts.from_tokens([], TWO, (2,)), "expected .parents..., child. sizes"),
        (lambda: Counts.empty((3,)), "sizes of at least 1"),
        (lambda: Counts.empty((3, 0)), r"got \(3, 0\)"),
        (lambda: Counts.empty((256,) * 9), "more than can be numbered.*chain"),
        (lambda: Counts.from_tokens([TWO] * 8, TWO, (256,) * 9), "more than can be numbered"),
        (lambda: Counts.from_dense(torch.tensor([[1, -1]])), "not negative"),
        (lambda: Counts.from_dense(torch.tensor([[0.5, 1.0]])), "whole numbers"),
        (lambda: Counts.empty((2, 3)) + Counts.empty((3, 2)), r"\(2, 3\) and \(3, 2\)"),
        (lambda: Counts.merge([]), "one or more"),
        (lambda: Counts.empty((2, 3, 2)).symmetrised(), r"\(2, 3\) are not exchangeable"),
    ],
)
def test_malformed_counts_are_refused(make, message):
    with pytest.raises(TableError, match=message):
        make()
