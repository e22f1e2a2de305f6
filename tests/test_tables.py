"""Tables: p(child | parents) from counts, smoothed or exact, and from arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl.errors import TableError
from mlass_ppl.tables import Additive, BackOff, Counts, Table
from mlass_ppl.tables import table as module

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
    assert table.background is None
    assert table.seen().tolist() == [True, True, True]
    assert Table.from_counts(Counts.from_dense(torch.tensor([[2, 0]]))).seen().tolist() == [
        True,
        False,
    ]


def test_additive_keeps_one_constant_for_each_row():
    counts = Counts.from_dense(torch.tensor([[3, 1, 0], [0, 0, 0]]))
    table = Table.from_counts(counts, Additive(0.5))
    # (c + 0.5) / (n + 1.5)
    assert table.background is not None
    assert table.background.share.tolist() == pytest.approx([3 * 0.5 / 5.5])  # of a third each
    assert table.dense()[0].tolist() == pytest.approx([3.5 / 5.5, 1.5 / 5.5, 0.5 / 5.5])
    assert table.dense()[1].tolist() == pytest.approx([1 / 3] * 3)  # unseen: uniform
    assert len(table.keys) == 2  # stored as sparse as the counts
    assert table.seen().all()


def test_a_smoothed_large_table_stays_sparse():
    shape = (2**11, 2**11, 2**11)  # dense float64 would take 69 GB
    top = torch.tensor([2**11 - 1])
    table = Table.from_counts(Counts.from_tokens([top, top], top, shape), Additive(0.1))
    assert len(table.keys) == 1
    assert table.background is not None
    assert len(table.background.rows) == 1
    back = Table.from_counts(Counts.from_tokens([top, top], top, shape), BackOff(1.0))
    for dense in (table.dense, table.entries, lambda: back.raised(0.5)):
        with pytest.raises(TableError, match=r"dense"):
            dense()
    assert back.seen().sum() == 1


def test_large_counts_keep_their_ratio():
    table = Table.from_counts(Counts((1, 2), torch.tensor([0, 1]), torch.tensor([2**45, 2**44])))
    assert table.dense()[0].tolist() == pytest.approx([2 / 3, 1 / 3], rel=1e-12)


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf")])
def test_smoothing_takes_a_positive_finite_alpha(alpha):
    with pytest.raises(TableError, match=r"positive and finite.*pass None"):
        Additive(alpha)


# --- back-off ------------------------------------------------------------------------------------


def _backed_off(array: Tensor, strength: float) -> Tensor:
    """One cell after the other: (c + s q) / (n + s), q the mean of the one-parent tables."""
    *parents, size = array.shape
    marginal = [float(array[..., m].sum()) for m in range(size)]
    every = sum(marginal)
    overall = [c / every if every else 1 / size for c in marginal]

    def single(axis: int, token: int, m: int) -> float:
        if len(parents) == 1:
            return overall[m]
        piece = array.select(axis, token)
        total = float(piece.sum())
        return float(piece[..., m].sum()) / total if total else overall[m]

    out = torch.zeros(array.shape, dtype=torch.float64)
    for row in np.ndindex(*parents):
        number = float(array[row].sum())
        for m in range(size):
            q = sum(single(axis, token, m) for axis, token in enumerate(row)) / len(parents)
            out[row][m] = (float(array[row][m]) + strength * q) / (number + strength)
    return out


@settings(max_examples=60)
@given(SHAPES, st.floats(1e-3, 100), st.integers(0, 2**31))
def test_back_off_is_its_formula(shape, strength, seed):
    array = _array(shape, seed)
    table = Table.from_counts(Counts.from_dense(array), BackOff(strength))
    dense = table.dense()
    assert torch.allclose(dense, _backed_off(array, strength), rtol=1e-12, atol=1e-15)
    assert torch.allclose(dense.sum(-1), torch.ones(shape[:-1], dtype=torch.float64), rtol=1e-12)
    assert torch.allclose(table.dense(torch.float32), dense.float())
    assert torch.equal(table.seen(), (dense > 0).flatten(0, -2).any(0))
    index, probability = table.entries()
    assert (probability > 0).all()
    rebuilt = torch.zeros(shape, dtype=torch.float64)
    rebuilt[tuple(index)] = probability
    assert torch.equal(rebuilt, dense)
    assert table.density == pytest.approx(float((array > 0).double().mean()))
    assert len(table.keys) == int((array > 0).sum())  # stored as sparse as the counts


def test_back_off_by_hand():
    array = torch.zeros(2, 2, 2, dtype=torch.int64)
    array[0, 0] = torch.tensor([3, 1])
    array[0, 1] = torch.tensor([0, 4])
    array[1, 0] = torch.tensor([2, 0])  # (1, 1) was never seen
    table = Table.from_counts(Counts.from_dense(array), BackOff(2.0)).dense()
    # p(m | a=1) = (1, 0), p(m | b=1) = (0, 1)
    assert table[1, 1].tolist() == pytest.approx([0.5, 0.5])
    # p(m | a=0) = (3, 5) / 8, p(m | b=0) = (5, 1) / 6
    q = (3 / 8 + 5 / 6) / 2
    assert table[0, 0, 0].item() == pytest.approx((3 + 2 * q) / 6)


def test_weak_back_off_is_exact_support_and_a_strong_one_the_single_parents():
    counts = Counts.from_dense(_array((4, 5, 3), 1))
    exact, seen = Table.from_counts(counts).dense(), counts.dense().sum(-1) > 0
    weak = Table.from_counts(counts, BackOff(1e-9)).dense()
    assert torch.allclose(weak[seen], exact[seen], atol=1e-8)
    strong = Table.from_counts(counts, BackOff(1e12)).dense()
    alone = [Table.from_counts(Counts.from_dense(counts.dense().sum(axis))) for axis in (1, 0)]
    mean = (alone[0].dense()[:, None] + alone[1].dense()[None]) / 2
    assert torch.allclose(strong, mean, atol=1e-8)


@pytest.mark.parametrize("strength", [0, -1.0, float("nan"), float("inf")])
def test_back_off_takes_a_positive_finite_strength(strength):
    with pytest.raises(TableError, match=r"positive and finite.*pass None"):
        BackOff(strength)


# --- powers --------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    SHAPES,
    st.one_of(SMOOTHINGS, st.floats(1e-3, 10).map(BackOff)),
    st.integers(0, 2**31),
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
)
def test_powers_of_every_cell(shape, smoothing, seed, power):
    table = Table.from_counts(Counts.from_dense(_array(shape, seed)), smoothing)
    raised = table.raised(power)
    assert torch.allclose(raised.dense(), table.dense() ** power, rtol=1e-10, atol=0)
    assert torch.equal(raised.seen(), table.seen())
    assert (raised.probability >= 0).all()
    if smoothing is None or isinstance(smoothing, Additive):
        assert len(raised.keys) == len(table.keys)  # as sparse as it was


def test_powers_are_positive_and_large_back_off_has_none(monkeypatch):
    counts = Counts.from_dense(_array((3, 3, 3), 0))
    table = Table.from_counts(counts, BackOff(1.0))
    for power in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(TableError, match="power must be positive"):
            table.raised(power)
    with pytest.raises(TableError, match="Lower it"):
        Table.from_counts(counts, Additive(1e-3)).raised(200.0)
    monkeypatch.setattr(module, "_ENTRIES", 26)
    with pytest.raises(TableError, match=r"power 0.5 .* \(3, 3, 3\) dense.*exact support"):
        table.raised(0.5)
    assert Table.from_counts(counts, Additive(1.0)).raised(0.5).background is not None


# --- from arrays ---------------------------------------------------------------------------------


def test_from_array_takes_lists_arrays_and_tensors():
    rows = [[0.25, 0.75], [0.0, 0.0], [1.0, 0.0]]
    for given_rows in (rows, np.array(rows, np.float32), torch.tensor(rows)):
        table = Table.from_array(given_rows)
        assert table.shape == (3, 2)
        assert torch.equal(table.dense(), torch.tensor(rows, dtype=torch.float64))
        assert table.background is None
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
