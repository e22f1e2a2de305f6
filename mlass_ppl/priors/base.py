"""What a prior is: an autoregressive model over one source's tokens."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import PriorError

State = Any


@runtime_checkable
class Prior(Protocol):
    """p(z_t | z_{<t}) over an alphabet of K tokens, for many rows at once.

    Rows are independent: row r of the output depends on the tokens fed to row r alone. A state is
    opaque and never changed in place from the caller's point of view: use the one returned last.
    """

    @property
    def alphabet(self) -> int: ...

    @property
    def length(self) -> int | None:
        """Longest sequence that the prior knows, or None when there is no limit."""
        ...

    def start(self, rows: int, labels: Tensor | None = None) -> State:
        """State of `rows` empty sequences.

        labels: the class of each row, int64 [rows], -1 for none; None where no row has one. They
        are only given where a program declares `source(..., label=...)`: a prior without classes
        may leave the argument out, or refuse it with a PriorError.
        """
        ...

    def step(self, tokens: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Append `tokens` int64 [rows] (None at the first step) and return log p of the next
        token in nats, float [rows, K], each row normalised, with the new state."""
        ...

    def reorder(self, state: State, index: Tensor) -> State:
        """State whose row r is row `index[r]` of `state` (int64 [rows'])."""
        ...


def check_tokens(tokens: Tensor, rows: int, alphabet: int) -> None:
    """Raise PriorError unless `tokens` are one of [0, alphabet) for each of the state's rows."""
    if tuple(tokens.shape) != (rows,):
        raise PriorError(f"expected {rows} tokens, one a row, got {list(tokens.shape)}.")
    if rows and not 0 <= int(tokens.min()) <= int(tokens.max()) < alphabet:
        raise PriorError(
            f"tokens must lie in [0, {alphabet}), got [{int(tokens.min())}, {int(tokens.max())}]. "
            "Was this prior trained on another codec?"
        )


def check_labels(labels: Tensor, rows: int, classes: int) -> None:
    """Raise PriorError unless `labels` are one of [-1, classes) for each row."""
    if tuple(labels.shape) != (rows,) or labels.is_floating_point():
        raise PriorError(
            f"expected {rows} integer labels, one a row, got {labels.dtype} {list(labels.shape)}."
        )
    if rows and not -1 <= int(labels.min()) <= int(labels.max()) < classes:
        raise PriorError(
            f"this prior knows the classes {'none' if not classes else f'0 to {classes - 1}'}, got "
            f"labels in [{int(labels.min())}, {int(labels.max())}]. "
            + (
                "Declare source(..., label=...) with one of them."
                if classes
                else "Leave label=... out, or teach it classes: mlass_ppl.train.add_labels."
            )
        )


@torch.no_grad()
def score(prior: Prior, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
    """log p of each token of `tokens` int64 [B, T] under `prior`, in nats, float [B, T].

    labels: the class of each row, int64 [B], for a class-conditional prior.
    """
    rows = len(tokens)
    state = prior.start(rows) if labels is None else prior.start(rows, labels)
    fed, out = None, []
    for column in tokens.unbind(1):
        log_probs, state = prior.step(fed, state)
        out.append(log_probs.gather(1, column[:, None])[:, 0])
        fed = column
    return torch.stack(out, 1)
