"""Tables: p(child | parents) from counts, smoothed or exact, and from arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl.errors import TableError
from mlass_ppl.tables import Additive, Counts, Table

SHAPES = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple)
SMOOTHINGS = st.one_of(st.none(), st.floats(1e-3, 10).map(Additive))


def _array(shape: tuple[int, ...], seed: int) -> Tensor:
    """Counts with many zeros and, mostly, rows that were never seen."""
    random = np.random.default_rng(seed)
    array = random.integers(0, 9, shape) * (random.random(shape) < 0.4)
    return torch.from_numpy(array).long()


@settings(max_examples=60)
@given(SHAPES, SMOOTHINGS, st.integers(0, 2**31))
def test_a_table_is_the_dense_formula_normalised_over_the_child(shape, smoothing, seed):
    array = _array(shape, seed)
    table = Table.from_counts(Counts.from_dense(array), smoothing)
    total = array.sum(-1, keepdim=True).double()
    if smoothing is None:
        expected = torch.where(total > 0, array / total.clamp_min(1), 0.0)
    else:
        expected = (array.double() + smoothing.alpha) / (total + smoothing.alpha * shape[-1])
    assert torch.allclose(table.dense(), expected, rtol=1e-12, atol=0)
    rows = table.dense().sum(-1)
    if smoothing is None:  # a row is a distribution or was never seen: no hidden epsilon
        assert torch.equal(rows == 0, array.sum(-1) == 0)
        assert torch.allclose(rows[rows > 0], torch.ones_like(rows[rows > 0]), rtol=1e-12)
    else:
        assert torch.allclose(rows, torch.ones_like(rows), rtol=1e-12)
    assert table.shape == shape
    assert table.alphabet == shape[-1]
    assert table.size == array.numel()
    assert table.density == pytest.approx(float((array > 0).double().mean()))


@settings(max_examples=40)
@given(SHAPES, SMOOTHINGS, st.integers(0, 2**31))
def test_entries_are_the_positive_cells(shape, smoothing, seed):
    table = Table.from_counts(Counts.from_dense(_array(shape, seed)), smoothing)
    index, probability = table.entries()
    assert index.shape == (len(shape), len(probability))
    assert (probability > 0).all()
    rebuilt = torch.zeros(shape, dtype=torch.float64)
    rebuilt[tuple(index)] = probability
    assert torch.equal(rebuilt, table.dense())
    assert torch.equal(table.seen(), (table.dense() > 0).flatten(0, -2).any(0))


def test_exact_support_is_exact():
    counts = Counts.from_dense(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 7]]))
    table = Table.from_counts(counts)
    expected = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.equal(table.dense(torch.float32), expected)
    assert table.floor is None
    assert table.seen().tolist() == [True, True, True]
    assert Table.from_counts(Counts.from_dense(torch.tensor([[2, 0]]))).seen().tolist() == [
        True,
        False,
    ]


def test_additive_keeps_one_constant_for_each_row():
    counts = Counts.from_dense(torch.tensor([[3, 1, 0], [0, 0, 0]]))
    table = Table.from_counts(counts, Additive(0.5))
    # (c + 0.5) / (n + 1.5)
    assert table.floor is not None
    assert table.floor.tolist() == pytest.approx([0.5 / 5.5, 0.5 / 1.5])
    assert table.dense()[0].tolist() == pytest.approx([3.5 / 5.5, 1.5 / 5.5, 0.5 / 5.5])
    assert table.dense()[1].tolist() == pytest.approx([1 / 3] * 3)  # unseen: uniform
    assert len(table.keys) == 2  # stored as sparse as the counts
    assert table.seen().all()


def test_a_smoothed_large_table_stays_sparse():
    shape = (2**11, 2**11, 2**11)  # dense float64 would take 69 GB
    top = torch.tensor([2**11 - 1])
    table = Table.from_counts(Counts.from_tokens([top, top], top, shape), Additive(0.1))
    assert len(table.keys) == 1
    assert table.floor is not None
    assert table.floor.numel() == 2**22


def test_large_counts_keep_their_ratio():
    table = Table.from_counts(Counts((1, 2), torch.tensor([0, 1]), torch.tensor([2**45, 2**44])))
    assert table.dense()[0].tolist() == pytest.approx([2 / 3, 1 / 3], rel=1e-12)


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf")])
def test_smoothing_takes_a_positive_finite_alpha(alpha):
    with pytest.raises(TableError, match=r"positive and finite.*pass None"):
        Additive(alpha)


# --- from arrays ---------------------------------------------------------------------------------


def test_from_array_takes_lists_arrays_and_tensors():
    rows = [[0.25, 0.75], [0.0, 0.0], [1.0, 0.0]]
    for given_rows in (rows, np.array(rows, np.float32), torch.tensor(rows)):
        table = Table.from_array(given_rows)
        assert table.shape == (3, 2)
        assert torch.equal(table.dense(), torch.tensor(rows, dtype=torch.float64))
        assert table.floor is None
    assert Table.from_array(rows).keys.tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[0.5, 0.4], [1.0, 0.0]], r"sum to 1 over the last axis .*\[0.9, 1\]"),
        ([[2, 3], [1, 0]], "For counts use Table.from_counts"),
        ([[0.5, 0.5], [1.5, -0.5]], "finite and not negative"),
        ([[0.5, 0.5], [float("nan"), 1.0]], "finite and not negative"),
        ([[float("inf"), 0.0]], "finite and not negative"),
        ([0.5, 0.5], r"got shape \[2\]"),
        (torch.zeros(3, 0), r"got shape \[3, 0\]"),
        ([[0.5, 0.5], [1.0]], "expected an array"),
        ("rows", "expected an array"),
        (None, "expected an array"),
    ],
)
def test_from_array_refuses_what_is_no_table(array, message):
    with pytest.raises(TableError, match=message):
        Table.from_array(array)
