"""A count-based n-gram prior: small enough for toys, tests and teaching."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PriorError
from .base import check_tokens


@dataclass(frozen=True)
class NGram:
    """p(z_t | z_{t-1}, ..., z_{t-order+1}) from a dense table.

    table: probabilities [K + 1, ..., K + 1, K] with order - 1 context axes, oldest first; index K
    of a context axis stands for "before the beginning". `order=1` is a unigram, table [K].
    """

    table: Tensor
    length: int | None = None

    def __post_init__(self) -> None:
        if not self.table.ndim:
            raise PriorError("expected a table [..., K], got a single number.")
        k = self.table.shape[-1]
        if any(size != k + 1 for size in self.table.shape[:-1]):
            raise PriorError(
                f"expected context axes of {k + 1} (alphabet {k} and the beginning), "
                f"got a table of shape {list(self.table.shape)}."
            )
        total = self.table.sum(-1)
        if (self.table < 0).any() or not torch.allclose(total, torch.ones_like(total), atol=1e-4):
            raise PriorError("each row of an n-gram table must be a probability vector.")

    @classmethod
    def fit(cls, tokens: Tensor, alphabet: int, order: int = 2, alpha: float = 1.0) -> NGram:
        """Count n-grams in `tokens` int64 [N, T]; `alpha` is added to every count, and must be
        positive, since contexts that never occurred would have no distribution."""
        if not alpha > 0 or order < 1:
            raise PriorError(
                f"alpha must be positive and order at least 1, got {alpha} and {order}."
            )
        if tokens.ndim != 2:
            raise PriorError(f"expected tokens [N, T], got {list(tokens.shape)}.")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < alphabet:
            raise PriorError(f"tokens must lie in [0, {alphabet}).")
        padded = torch.nn.functional.pad(tokens, (order - 1, 0), value=alphabet)
        windows = padded.unfold(1, order, 1).reshape(-1, order)
        shape = (alphabet + 1,) * (order - 1) + (alphabet,)
        key = torch.zeros(len(windows), dtype=torch.long)
        for axis, size in enumerate(shape):
            key = key * size + windows[:, axis]
        counts = torch.bincount(key, minlength=int(torch.tensor(shape).prod())).reshape(shape)
        table = counts.double() + alpha
        return cls(table / table.sum(-1, keepdim=True), None)

    @classmethod
    def uniform(cls, alphabet: int) -> NGram:
        """Every token equally likely, whatever came before."""
        return cls(torch.full((alphabet,), 1 / alphabet, dtype=torch.float64))

    @property
    def alphabet(self) -> int:
        return self.table.shape[-1]

    def start(self, rows: int, labels: Tensor | None = None) -> Tensor:
        if labels is not None:
            raise PriorError(
                "an n-gram prior knows no classes. Fit one NGram for each class and name them as "
                "priors, source(..., prior='three'), or use a CausalLM with labels."
            )
        return torch.full((rows, self.table.ndim - 1), self.alphabet, device=self.table.device)

    def step(self, tokens: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        if tokens is not None:
            check_tokens(tokens, len(state), self.alphabet)
        if tokens is not None and state.shape[1]:
            state = torch.cat([state[:, 1:], tokens[:, None]], 1)
        rows = self.table[tuple(state.unbind(1))].expand(len(state), -1)
        return rows.log(), state

    def reorder(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]
