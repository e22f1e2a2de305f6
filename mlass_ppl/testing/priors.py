"""Any prior against its protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from ..errors import PriorError
from ..priors.base import Prior

_T = TypeVar("_T")
_LONG = 256


def check_prior(
    prior: Prior, *, rows: int = 4, length: int = 8, tolerance: float = 1e-4, seed: int = 0
) -> None:
    """Hold a prior to its protocol: on `rows` sequences of up to `length` tokens that it draws
    itself, with labels as well where it says that it has some (`prior.labels` classes).

    Each row of log probabilities must be normalised and depend on its own past alone, also after
    `reorder` duplicated and dropped rows; states must not share what changes; the first step takes
    None, and as many steps work as `prior.length` says. tolerance: absolute, of log probabilities
    above -30 nats. Raises AssertionError that says what to mend.
    """
    check = _Check(prior, tolerance, torch.Generator().manual_seed(seed))
    check.members()
    steps = length if prior.length is None else min(length, prior.length)
    with torch.no_grad():
        tokens, drawn = check.draw(rows, steps)
        check.rows(tokens, drawn)
        check.states(tokens)
        check.reordering(tokens, None)
        classes = getattr(prior, "labels", 0)
        if isinstance(classes, int) and classes > 0:
            check.labels(tokens, drawn, classes)
        if prior.length is not None and prior.length <= _LONG:
            check.limit(prior.length)


class _Check:
    def __init__(self, prior: Prior, tolerance: float, random: torch.Generator) -> None:
        self.prior, self.tolerance, self.random = prior, tolerance, random

    def fail(self, what: str, mend: str) -> NoReturn:
        raise AssertionError(f"{type(self.prior).__name__}: {what}. {mend}")

    def ask(self, what: str, question: Callable[[], _T], mend: str) -> _T:
        try:
            return question()
        except Exception as error:
            raise AssertionError(
                f"{type(self.prior).__name__}: {what} raised {type(error).__name__} ({error}). "
                f"{mend}"
            ) from error

    def members(self) -> None:
        prior = self.prior
        mend = (
            "A prior has alphabet, length, start(rows), step(tokens, state), reorder(state, index)."
        )
        for name in ("start", "step", "reorder"):
            if not callable(getattr(prior, name, None)):
                self.fail(f"it has no method {name}", mend)
        for name in ("alphabet", "length"):
            if not hasattr(prior, name):
                self.fail(f"it has no {name}", mend)
        if type(prior.alphabet) is not int or prior.alphabet < 1:
            self.fail(f"alphabet is {prior.alphabet!r}", "It is the number of tokens, an int.")
        if prior.length is not None and (type(prior.length) is not int or prior.length < 1):
            mend = "It is the longest sequence that the prior knows, or None without a limit."
            self.fail(f"length is {prior.length!r}", mend)

    def start(self, rows: int, labels: Tensor | None = None) -> Any:
        if labels is None:
            mend = "Labels are optional: start(rows) alone has to work."
            return self.ask(f"start({rows})", lambda: self.prior.start(rows), mend)
        mend = "It has classes, so start takes their labels, int64 [rows], -1 for none."
        return self.ask("start(rows, labels)", lambda: self.prior.start(rows, labels), mend)

    def step(self, tokens: Tensor | None, state: Any, rows: int, place: int) -> tuple[Tensor, Any]:
        fed = None if tokens is None else tokens.clone()
        what = f"step({'None' if tokens is None else 'tokens'}, state), position {place},"
        mend = "The first step takes None, every other one the tokens int64 [rows] drawn before it."
        out = self.ask(what, lambda: self.prior.step(fed, state), mend)
        if not isinstance(out, tuple) or len(out) != 2 or not isinstance(out[0], Tensor):
            self.fail(f"{what} gave a {type(out).__name__}", "Return (log_probs, new state).")
        log = out[0]
        if tuple(log.shape) != (rows, self.prior.alphabet) or not log.is_floating_point():
            mend = f"Return log probabilities, floats [rows, K] = {[rows, self.prior.alphabet]}."
            self.fail(f"{what} gave {log.dtype} {list(log.shape)}", mend)
        if torch.isnan(log).any() or (log == float("inf")).any():
            self.fail(f"{what} gave NaN or +inf", "Impossible tokens are -inf; nothing is NaN.")
        total = log.double().logsumexp(-1)
        if (total.abs() > max(1e-3, self.tolerance)).any():
            worst = float(total[total.abs().argmax()])
            mend = "Return log_softmax(logits, -1): each row of probabilities sums to 1."
            self.fail(f"{what} is not normalised (logsumexp {worst:.4g}, expected 0)", mend)
        if fed is not None and tokens is not None and not torch.equal(fed, tokens):
            self.fail(f"{what} changed the tokens that it was given", "Copy before writing.")
        return out

    def draw(self, rows: int, steps: int) -> tuple[Tensor, Tensor]:
        """Sequences [rows, steps] drawn from the prior, and all its log p [rows, steps, K]."""
        state, fed = self.start(rows), None
        tokens, logs = [], []
        for place in range(steps):
            log, state = self.step(fed, state, rows, place)
            fed = torch.multinomial(log.double().exp().cpu(), 1, generator=self.random)[:, 0]
            tokens.append(fed)
            logs.append(log.clone())
        return torch.stack(tokens, 1), torch.stack(logs, 1)

    def read(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p of every token at each position of given sequences [rows, T]: [rows, T, K]."""
        state, logs = self.start(len(tokens), labels), []
        for place in range(tokens.shape[1]):
            fed = tokens[:, place - 1] if place else None
            log, state = self.step(fed, state, len(tokens), place)
            logs.append(log.clone())
        return torch.stack(logs, 1)

    def same(self, found: Tensor, wanted: Tensor, what: str, mend: str) -> None:
        """Log probabilities [rows, T, K]; very small ones may differ."""
        wrong = (found.clamp_min(-30) - wanted.clamp_min(-30)).abs() > self.tolerance
        if wrong.any():
            row, place, token = (int(axis) for axis in wrong.nonzero()[0])
            values = (
                f"{float(found[row, place, token]):.5g}, {float(wanted[row, place, token]):.5g}"
            )
            self.fail(
                f"{what}: log p(token {token}) at position {place} of row {row} is "
                f"{values.replace(', ', ', expected ')}",
                mend,
            )

    def rows(self, tokens: Tensor, drawn: Tensor) -> None:
        mend = "Turn dropout off (eval()), and keep what was read in the state, not in the prior."
        self.same(self.read(tokens), drawn, "the same tokens read again", mend)
        mend = "Row r depends on the tokens fed to row r alone: no mean, norm or index over rows."
        flipped = self.read(tokens.flip(0)).flip(0)
        self.same(flipped, drawn, "the rows in another order", mend)
        self.same(self.read(tokens[:1]), drawn[:1], "the first row without the others", mend)

    def states(self, tokens: Tensor) -> None:
        """Two batches read turn by turn, as those of two mixtures are."""
        other = tokens.flip(0).roll(1, 1)
        wanted = self.read(tokens), self.read(other)
        states = [self.start(len(tokens)), self.start(len(tokens))]
        logs: list[list[Tensor]] = [[], []]
        for place in range(tokens.shape[1]):
            for side, batch in enumerate((tokens, other)):
                fed = batch[:, place - 1] if place else None
                log, states[side] = self.step(fed, states[side], len(tokens), place)
                logs[side].append(log.clone())
        mend = "Two states share what changes: keep the past in the state that start(rows) makes."
        for found, expected in zip(logs, wanted, strict=True):
            self.same(torch.stack(found, 1), expected, "two batches read in turn", mend)

    def reordering(self, tokens: Tensor, labels: Tensor | None) -> None:
        """Duplicate, drop and swap rows half way; the duplicates then go different ways."""
        rows, steps = tokens.shape
        half = steps // 2
        for index in (
            torch.tensor([rows - 1] + [0] * (rows - 1)),
            torch.arange(rows).repeat(2).flip(0),
            torch.tensor([rows - 1]),
        ):
            new = tokens[index].clone()
            new[:, half:] = tokens.flip(0)[torch.arange(len(index)) % rows, half:]
            own = None if labels is None else labels[index]
            wanted = self.read(new, own)
            state, found = self.start(rows, labels), []
            for place in range(steps):
                now = tokens if place <= half else new
                size = rows if place <= half else len(index)
                fed = now[:, place - 1] if place else None
                log, state = self.step(fed, state, size, place)
                found.append(log[index] if place <= half else log)
                if place == half:
                    call, old = f"reorder(state, {index.tolist()})", state
                    mend = "It takes the rows index[r], int64 [rows'], with repetitions."
                    state = self.ask(call, lambda s=old, i=index: self.prior.reorder(s, i), mend)  # type: ignore[misc]
            mend = "Row r of the new state is a copy of row index[r] of the old one, all its past."
            self.same(torch.stack(found, 1), wanted, f"after reorder by {index.tolist()}", mend)

    def labels(self, tokens: Tensor, drawn: Tensor, classes: int) -> None:
        rows = len(tokens)
        mend = "Label -1 stands for no class, like no labels at all."
        none = torch.full((rows,), -1)
        self.same(self.read(tokens, none), drawn, "labels of -1", mend)
        labels = torch.arange(rows) % (classes + 1) - 1
        found = self.read(tokens, labels)
        mend = "Row r depends on its own label alone."
        for row in range(rows):
            alone = self.read(tokens[row : row + 1], labels[row : row + 1])
            self.same(alone, found[row : row + 1], f"row {row} with its label", mend)
        self.reordering(tokens, labels)

    def limit(self, length: int) -> None:
        """All steps that `length` promises, and one more."""
        state, fed = self.start(1), None
        for place in range(length):
            log, state = self.step(fed, state, 1, place)
            fed = torch.multinomial(log.double().exp().cpu(), 1, generator=self.random)[:, 0]
        try:
            self.prior.step(fed, state)
        except PriorError:
            return
        except Exception as error:
            mend = (
                f"length is {length}: raise PriorError beyond it, or say how many steps it knows."
            )
            raise AssertionError(
                f"{type(self.prior).__name__}: step {length + 1} raised {type(error).__name__} "
                f"({error}). {mend}"
            ) from error
