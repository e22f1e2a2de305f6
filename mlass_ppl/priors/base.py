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

    def start(self, rows: int) -> State:
        """State of `rows` empty sequences."""
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


@torch.no_grad()
def score(prior: Prior, tokens: Tensor) -> Tensor:
    """log p of each token of `tokens` int64 [B, T] under `prior`, in nats, float [B, T]."""
    state = prior.start(tokens.shape[0])
    fed, out = None, []
    for column in tokens.unbind(1):
        log_probs, state = prior.step(fed, state)
        out.append(log_probs.gather(1, column[:, None])[:, 0])
        fed = column
    return torch.stack(out, 1)
