"""The kernel over seen cells against sums over the dense table."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl.infer.kernels import DenseKernel, SeenCells
from mlass_ppl.infer.kernels import cells as module
from mlass_ppl.infer.kernels import layout as layouts
from mlass_ppl.tables import Counts, Table

CPU = torch.device("cpu")
SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple)


def make_table(shape: tuple[int, ...], share: float, seed: int) -> Table:
    random = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 9, shape, generator=random)
    return Table.from_counts(
        Counts.from_dense(counts * (torch.rand(shape, generator=random) < share))
    )


def brute(table: Table, to: int, incoming: dict[int, Tensor], known: dict[int, Tensor]) -> Tensor:
    """Row by row over the dense table, in 64 bits."""
    rows = len(next(iter((incoming or known).values())))
    out = []
    for row in range(rows):
        values = table.dense().movedim(-1, 0)
        for axis in sorted({**incoming, **known}, reverse=True):
            if axis in known:
                values = values.select(axis, int(known[axis][row]))
            else:
                values = values.movedim(axis, -1) @ incoming[axis][row].double()
        out.append(values)
    return torch.stack(out)


def subsets(axes: list[int]) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))


def ask(
    table: Table, rows: int, seed: int, few: bool = False
) -> list[tuple[int, dict[int, Tensor], dict[int, Tensor]]]:
    """Every question that a kernel can be asked; few: the given tokens take two values."""
    random = torch.Generator().manual_seed(seed)
    shape = (table.shape[-1], *table.shape[:-1])
    out = []
    for to in range(len(shape)):
        others = [axis for axis in range(len(shape)) if axis != to]
        for fixed in subsets(others):
            known = {
                axis: torch.randint(min(shape[axis], 2 if few else 9), (rows,), generator=random)
                for axis in fixed
            }
            incoming = {
                axis: torch.rand(rows, shape[axis], generator=random)
                * (torch.rand(rows, shape[axis], generator=random) < 0.7)
                for axis in others
                if axis not in fixed
            }
            out.append((to, incoming, known))
    return out


@given(SHAPES, st.sampled_from([0.0, 0.1, 0.4, 0.9]), st.integers(1, 30), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_message_is_that_of_the_dense_table(
    shape: tuple[int, ...], share: float, rows: int, few: bool, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 999))
    table = make_table(shape, share, seed)
    for dtype, close in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        kernel = SeenCells(table, dtype, CPU)
        for to, incoming, known in ask(table, rows, seed, few):
            incoming = {axis: message.to(dtype) for axis, message in incoming.items()}
            found = kernel.message(to, incoming, known)
            assert found.dtype == dtype
            torch.testing.assert_close(
                found.double(), brute(table, to, incoming, known), rtol=close, atol=close
            )


@pytest.mark.parametrize("share", [0.03, 0.7])
@pytest.mark.parametrize("few", [False, True])
def test_small_blocks_change_nothing(
    share: float, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of rows and of cells are cut where the memory ends, in all ways."""
    table = make_table((9, 8, 7), share, 1)
    questions = ask(table, 70, 2, few)
    whole = [SeenCells(table, torch.float32, CPU).message(*question) for question in questions]
    monkeypatch.setattr(layouts, "_PART", 20)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 300)
    monkeypatch.setattr(module, "_FEW", 3)
    monkeypatch.setattr(module, "_ROWS", 5)
    kernel = SeenCells(table, torch.float32, CPU)
    for expected, question in zip(whole, questions, strict=True):
        torch.testing.assert_close(kernel.message(*question), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("complete", [True, False])
def test_rows_do_not_know_each_other(
    dtype: torch.dtype, complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not complete:
        monkeypatch.setattr(layouts, "_MOST", 0)
    table = make_table((20, 30, 25), 0.05, 3)
    kernel = SeenCells(table, dtype, CPU)
    for to, incoming, known in [*ask(table, 40, 4), *ask(table, 40, 5, few=True)]:
        incoming = {axis: message.to(dtype) for axis, message in incoming.items()}
        together = kernel.message(to, incoming, known)
        for row in (0, 17, 39):
            alone = kernel.message(
                to,
                {axis: message[row : row + 1] for axis, message in incoming.items()},
                {axis: tokens[row : row + 1] for axis, tokens in known.items()},
            )
            assert torch.equal(alone[0], together[row])


def test_a_large_table_is_never_dense() -> None:
    size = 2048
    random = torch.Generator().manual_seed(0)
    keys = torch.randint(size**3, (20_000,), generator=random).unique()
    table = Table((size, size, size), keys, torch.rand(len(keys), generator=random).double())
    kernel = SeenCells(table, torch.float32, CPU)
    incoming = {axis: torch.rand(2, size, generator=random) for axis in (0, 2)}
    found = kernel.message(1, incoming, {})
    first, second, child = torch.unravel_index(keys, table.shape)
    for row in range(2):
        cell = table.probability * incoming[0][row, child] * incoming[2][row, second]
        expected = torch.zeros(size, dtype=torch.float64).index_add_(0, first, cell)
        torch.testing.assert_close(found[row].double(), expected, rtol=1e-5, atol=1e-6)


def test_any_factor_can_be_contracted() -> None:
    """Not only tables whose rows are normalised."""
    table = make_table((4, 5, 6), 0.5, 5)
    kernel = SeenCells.of(table.keys, 3 * table.probability, table.shape, torch.float64)
    dense = DenseKernel(table, torch.float64, CPU)
    incoming = {axis: torch.rand(7, kernel.shape[axis], dtype=torch.float64) for axis in (0, 1)}
    torch.testing.assert_close(
        kernel.message(2, incoming, {}), 3 * dense.message(2, incoming, {}), rtol=1e-12, atol=0
    )
