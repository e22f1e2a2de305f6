"""Contractions of a likelihood that differs from mixture to mixture, against sums of all terms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlass_ppl.infer.algebra import Algebra, Linear, Logarithmic
from mlass_ppl.infer.exponential import exponential
from mlass_ppl.infer.kernels import LikelihoodKernel
from mlass_ppl.infer.kernels import likelihood as module

LETTERS = "abc"
SIZES = [(4,), (4, 3), (3, 4, 2)]
ROWS = {
    "regular": [0, 0, 1, 1, 2, 2],
    "shuffled": [2, 0, 1, 0, 2, 1],
    "uneven": [0, 1, 1, 1, 2],
    "some": [1, 1],
    "none": [],
}


def problem(sizes: tuple[int, ...], rows: list[int]) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """Log likelihoods of three mixtures, the mixture of each row, and a message to each axis."""
    random = torch.Generator().manual_seed(sum(sizes))
    log = 5 * torch.randn(3, *sizes, generator=random, dtype=torch.float64) - 300
    log[1].flatten()[0] = float("-inf")
    messages = {
        axis: torch.rand(len(rows), size, generator=random, dtype=torch.float64)
        for axis, size in enumerate(sizes, 1)
    }
    return log, torch.tensor(rows, dtype=torch.int64), messages


def truth(log: Tensor, mixture: Tensor, messages: dict[int, Tensor], to: int) -> Tensor:
    """The sums, each row's likelihoods from 0 to 1."""
    top = log.flatten(1).amax(1).reshape(-1, *[1] * (log.ndim - 1))
    letters = LETTERS[: log.ndim - 1]
    others = [axis for axis in messages if axis != to]
    terms = ",".join([f"z{letters}", *(f"z{LETTERS[axis - 1]}" for axis in others)])
    operands = [(log - top).exp()[mixture], *(messages[axis] for axis in others)]
    return torch.einsum(f"{terms}->z{LETTERS[to - 1]}", *operands)


@pytest.mark.parametrize("algebra", [Linear(), Logarithmic()], ids=["linear", "logarithmic"])
@pytest.mark.parametrize("chunk", [64, 1 << 27])
@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_messages_are_sums(
    sizes: tuple[int, ...],
    rows: list[int],
    chunk: int,
    algebra: Algebra,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows in order or not, all at once or in parts."""
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk)
    log, mixture, messages = problem(sizes, rows)
    kernel = LikelihoodKernel(log, mixture, algebra)
    linear = isinstance(algebra, Linear)
    top = log.flatten(1).amax(1)[mixture]
    for to in messages:
        incoming = {axis: m if linear else m.log() for axis, m in messages.items() if axis != to}
        found = kernel.message(to, incoming, {})
        wanted = truth(log, mixture, messages, to)
        if linear:
            torch.testing.assert_close(kernel.scale, top)
        else:
            found = (found - top[:, None]).exp()
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("sizes", SIZES[1:], ids=str)
def test_slices_of_known_parents(sizes: tuple[int, ...]) -> None:
    log, mixture, messages = problem(sizes, ROWS["shuffled"])
    kernel = LikelihoodKernel(log, mixture, Linear())
    known = torch.randint(sizes[0], (len(mixture),), generator=torch.Generator().manual_seed(1))
    fixed = {**messages, 1: torch.nn.functional.one_hot(known, sizes[0]).double()}
    for to in range(2, len(sizes) + 1):
        incoming = {axis: m for axis, m in messages.items() if axis not in (1, to)}
        found = kernel.message(to, incoming, {1: known})
        torch.testing.assert_close(found, truth(log, mixture, fixed, to))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mixture_is_summed_alike_in_any_batch(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    log = 30 * torch.randn(5, 70, 60, generator=random).to(dtype)
    weights = torch.rand(5 * 8, 60, generator=random).to(dtype)
    mixture = torch.arange(5).repeat_interleave(8)
    every = LikelihoodKernel(log, mixture, Linear()).message(1, {2: weights}, {})
    for number in range(5):
        rows = slice(8 * number, 8 * number + 8)
        alone = LikelihoodKernel(log[number : number + 1], mixture[:8], Linear())
        assert torch.equal(alone.message(1, {2: weights[rows]}, {}), every[rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponentials_are_cut_where_floats_end(dtype: torch.dtype) -> None:
    """Nothing that counts beside 1 is lost, and what is impossible stays so."""
    log = -torch.linspace(0, 2000, 20_001, dtype=dtype)
    log[-1] = float("-inf")
    wanted = log.exp()
    found = exponential(log.clone())
    torch.testing.assert_close(found, wanted, atol=torch.finfo(dtype).tiny ** 0.95, rtol=1e-6)
    assert found[-1] == 0
    assert (found[found > 0] >= torch.finfo(dtype).tiny).all()
    assert found.count_nonzero() >= 0.95 * (wanted >= torch.finfo(dtype).tiny).sum()
