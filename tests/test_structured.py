"""The structured kernel: smoothed tables contracted without ever being dense."""

from __future__ import annotations

import time
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl.errors import TableError
from mlass_ppl.infer.kernels import DenseKernel, StructuredKernel
from mlass_ppl.infer.kernels import largest as search
from mlass_ppl.infer.kernels import shares as sharing
from mlass_ppl.tables import Additive, BackOff, Counts, Table

CPU = torch.device("cpu")
SMOOTHINGS = st.one_of(
    st.floats(1e-3, 10).map(Additive), st.sampled_from([1e-6, 0.1, 2.0, 50.0]).map(BackOff)
)
SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple)
KINDS = pytest.mark.parametrize("largest", [False, True], ids=["sum", "max"])


def make_table(shape: tuple[int, ...], smoothing: Additive | BackOff, seed: int) -> Table:
    """From counts of all sizes, with rows, parents and children that were never seen."""
    random = torch.Generator().manual_seed(seed)
    seen = torch.rand(shape, generator=random) < 0.3
    counts = (10 ** (4 * torch.rand(shape, generator=random))).long() * seen
    for axis, size in enumerate(shape):
        if size > 2:
            counts.select(axis, size - 1).zero_()
    return Table.from_counts(Counts.from_dense(counts), smoothing)


def make_message(rows: int, size: int, random: torch.Generator, depth: float) -> Tensor:
    """Log weights of very different sizes, with zeros; one row may be all zeros."""
    log = -depth * torch.rand(rows, size, generator=random, dtype=torch.float64)
    return log.masked_fill(torch.rand(rows, size, generator=random) < 0.25, float("-inf"))


def brute(
    table: Table, to: int, incoming: dict[int, Tensor], given: dict[int, Tensor], largest: bool
) -> Tensor:
    """One row after the other over the dense logarithms."""
    dense = table.dense().movedim(-1, 0).log()
    rows = len(next(iter((incoming or given).values())))
    out = []
    for row in range(rows):
        values = dense
        for axis in sorted({**incoming, **given}, reverse=True):
            if axis in given:
                values = values.select(axis, int(given[axis][row]))
                continue
            shape = [1] * values.ndim
            # axes after it were reduced away already, and `to` moves when those before it are not
            shape[axis] = -1
            values = values + incoming[axis][row].reshape(shape)
            values = values.amax(axis) if largest else values.logsumexp(axis)
        out.append(values)
    return torch.stack(out)


def agree(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert not torch.isnan(found).any()
    assert torch.equal(found == float("-inf"), expected == float("-inf"))
    finite = expected > float("-inf")
    assert torch.allclose(found[finite], expected[finite].to(found.dtype), rtol=0, atol=tolerance)


def check_message(
    table: Table, pattern: tuple[str, ...], largest: bool, seed: int, depth: float, **options
) -> None:
    """Every pattern names, axis by axis, the target and which axes come in or are given."""
    random = torch.Generator().manual_seed(seed)
    dtype, tolerance = options.get("dtype", torch.float64), options.get("tolerance", 1e-9)
    kernel = StructuredKernel(table, dtype, CPU, largest)
    rows, incoming, tokens = 4, {}, {}
    for axis, role in enumerate(pattern):
        if role == "in":
            incoming[axis] = make_message(rows, kernel.shape[axis], random, depth).to(dtype)
        elif role == "given":
            tokens[axis] = torch.randint(kernel.shape[axis], (rows,), generator=random)
    to = pattern.index("to")
    found = kernel.message(to, incoming, tokens)
    assert found.dtype == dtype
    assert found.shape == (rows, kernel.shape[to])
    wide = {axis: message.double() for axis, message in incoming.items()}
    agree(found, brute(table, to, wide, tokens, largest), tolerance)


def patterns(axes: int) -> list[tuple[str, ...]]:
    roles = product(("to", "in", "given"), repeat=axes)
    return [role for role in roles if role.count("to") == 1]


@KINDS
@settings(max_examples=60)
@given(st.data(), SHAPES, SMOOTHINGS, st.integers(0, 2**31), st.sampled_from([1.0, 30.0, 900.0]))
def test_messages_are_those_of_the_dense_table(largest, data, shape, smoothing, seed, depth):
    table = make_table(shape, smoothing, seed)
    pattern = data.draw(st.sampled_from(patterns(len(shape))))
    check_message(table, pattern, largest, seed, depth)


@KINDS
@pytest.mark.parametrize("smoothing", [Additive(0.3), BackOff(1.0)], ids=repr)
@pytest.mark.parametrize("shape", [(5, 4), (4, 5, 6), (3, 4, 2, 5)], ids=str)
def test_every_pattern_of_axes(largest, smoothing, shape):
    table = make_table(shape, smoothing, 7)
    for pattern in patterns(len(shape)):
        check_message(table, pattern, largest, 3, 60.0)
        check_message(table, pattern, largest, 3, 8.0, dtype=torch.float32, tolerance=1e-4)


@KINDS
@pytest.mark.parametrize("smoothing", [Additive(0.3), BackOff(0.01)], ids=repr)
def test_many_parents_keep_only_the_rows_that_were_seen(monkeypatch, largest, smoothing):
    """Above a limit the shares are no array either; small blocks leave nothing out."""
    monkeypatch.setattr(sharing, "_DENSE_ROWS", 1)
    monkeypatch.setattr(search, "_CELLS", 3)
    for shape in [(4, 5, 6), (3, 4, 2, 5)]:
        table = make_table(shape, smoothing, 11)
        for pattern in patterns(len(shape)):
            check_message(table, pattern, largest, 5, 40.0, tolerance=1e-8)


@KINDS
@pytest.mark.parametrize("smoothing", [Additive(0.1), BackOff(2.0)], ids=repr)
def test_a_table_of_nothing_is_its_background(monkeypatch, largest, smoothing):
    table = Table.from_counts(Counts.empty((3, 4, 5)), smoothing)
    for limit in (100, 1):
        monkeypatch.setattr(sharing, "_DENSE_ROWS", limit)
        for pattern in patterns(3):
            check_message(table, pattern, largest, 1, 20.0)


def test_linear_products_agree_with_the_dense_kernel():
    table = make_table((12, 9, 10), BackOff(1.0), 5)
    random = torch.Generator().manual_seed(0)
    structured = StructuredKernel(table, torch.float64, CPU)
    dense = DenseKernel(table, torch.float64, CPU)
    messages = {a: make_message(6, s, random, 3.0) for a, s in enumerate(dense.shape)}
    for to in range(3):
        some = {axis: message for axis, message in messages.items() if axis != to}
        linear = dense.message(to, {axis: message.exp() for axis, message in some.items()}, {})
        agree(structured.message(to, some, {}), linear.log(), 1e-10)


def test_what_underflows_in_float32_is_summed_in_logarithms():
    """A child that only parents of a weight of e^-300 lead to."""
    counts = torch.zeros(2, 2, 3, dtype=torch.int64)
    counts[0, 0, 0], counts[1, 1, 2] = 9, 4
    table = Table.from_counts(Counts.from_dense(counts), BackOff(1.0))
    kernel = StructuredKernel(table, torch.float32, CPU)
    message = torch.tensor([[0.0, -300.0]])
    found = kernel.message(0, {1: message, 2: message}, {})
    expected = brute(table, 0, {1: message.double(), 2: message.double()}, {}, False)
    assert expected[0, 2] == pytest.approx(-300)
    agree(found, expected, 1e-3)


def test_a_raised_additive_table_stays_structured():
    table = make_table((4, 5, 6), Additive(0.2), 2).raised(0.7)
    assert table.background is not None
    for pattern in patterns(3):
        for largest in (False, True):
            check_message(table, pattern, largest, 2, 10.0)


@pytest.mark.parametrize("smoothing", [Additive(1e-3), BackOff(1.0)], ids=repr)
def test_two_thousand_tokens_are_never_dense(smoothing):
    """K = 2048: 8.6e9 cells. The largest cell of a peaked message, and sums, in seconds."""
    size, number = 2048, 20_000
    random = torch.Generator().manual_seed(0)
    parents = [torch.randint(size, (number,), generator=random).square() // size for _ in "ab"]
    child = (parents[0] + parents[1]) // 2
    table = Table.from_counts(Counts.from_tokens(parents, child, (size,) * 3), smoothing)
    messages = {
        axis: (-40 * torch.rand(2, size, generator=random)).log_softmax(-1) for axis in range(3)
    }
    began = time.perf_counter()
    total = StructuredKernel(table, torch.float32, CPU)
    best = StructuredKernel(table, torch.float32, CPU, largest=True)
    for to in range(3):
        some = {axis: message for axis, message in messages.items() if axis != to}
        assert torch.equal(torch.isfinite(total.message(to, some, {})[0]), table.seen() | (to > 0))
        tokens = {0: child[:2]} if to else {1: parents[0][:2]}
        rest = {axis: message for axis, message in some.items() if axis not in tokens}
        sums, tops = (kernel.message(to, rest, tokens) for kernel in (total, best))
        assert (tops <= sums + 1e-4).all()
    assert time.perf_counter() - began < 60


def test_exact_support_is_another_kernels():
    with pytest.raises(TableError, match="SparseKernel"):
        StructuredKernel(Table.from_array([[1.0, 0.0]]), torch.float32, CPU)
