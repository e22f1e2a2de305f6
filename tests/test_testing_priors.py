"""`check_prior` passes the library's priors and finds what is wrong with broken ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tiny import make_gpt2
from torch import Tensor

from mlass_ppl import NGram, Prior, PriorError
from mlass_ppl.testing import check_prior


@dataclass(frozen=True)
class Echo:
    """A correct prior to break: the running mean of a row's one-hot tokens, softened."""

    alphabet: int = 5
    length: int | None = None

    def start(self, rows: int) -> Any:
        return torch.zeros(rows, self.alphabet)

    def logits(self, state: Tensor) -> Tensor:
        return 2 * state / (1 + state.sum(-1, keepdim=True))

    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        if tokens is not None:
            state = state + torch.nn.functional.one_hot(tokens, self.alphabet)
        return self.logits(state).log_softmax(-1), state

    def reorder(self, state: Any, index: Tensor) -> Any:
        return state[index]


def trained() -> Prior:
    return NGram.fit(torch.randint(6, (40, 9)), 6, order=3, alpha=0.2)


@pytest.mark.parametrize(
    "prior",
    [
        Echo(),
        Echo(length=3),
        Echo(alphabet=1),
        NGram.uniform(4),
        trained(),
        make_gpt2(),
        make_gpt2(alphabet=3, length=4),
    ],
    ids=["echo", "short echo", "one token", "uniform", "trigram", "gpt2", "short gpt2"],
)
def test_the_priors_of_the_library_pass(prior: Prior) -> None:
    check_prior(prior)
    check_prior(prior, rows=1, length=2, seed=3)


def test_impossible_tokens_are_no_fault() -> None:
    table = torch.zeros(4, 3)
    table[:, 1] = 0.5
    table[:, 2] = 0.5
    check_prior(NGram(table.double()))


class NoReorder(Echo):
    reorder = None  # type: ignore[assignment]


class FloatAlphabet(Echo):
    def __init__(self) -> None:
        super().__init__(5.0)  # type: ignore[arg-type]


class NeedsLabels(Echo):
    def start(self, rows: int, labels: Tensor) -> Any:  # type: ignore[override]
        return super().start(rows)


class NeedsTokens(Echo):
    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        return super().step(tokens + 0, state)  # type: ignore[operator]


class ReturnsNoState(Echo):
    def step(self, tokens: Tensor | None, state: Any) -> Any:
        return super().step(tokens, state)[0]


class Logits(Echo):
    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        log, state = super().step(tokens, state)
        return log + 0.1, state


class OneColumnMore(Echo):
    def logits(self, state: Tensor) -> Tensor:
        return torch.nn.functional.pad(super().logits(state), (0, 1))


class HoldsNaN(Echo):
    def logits(self, state: Tensor) -> Tensor:
        return super().logits(state) + torch.where(state.sum() > 8, float("nan"), 0.0)


class Dropout(Echo):
    def logits(self, state: Tensor) -> Tensor:
        return torch.nn.functional.dropout(super().logits(state) + 1, 0.5)


class BatchMean(Echo):
    """Row r reads what the others were fed."""

    def logits(self, state: Tensor) -> Tensor:
        return super().logits(state.mean(0).expand_as(state))


class KnowsItsPlace(Echo):
    """Row r depends on r."""

    def logits(self, state: Tensor) -> Tensor:
        return super().logits(state) + torch.eye(9)[: len(state), : self.alphabet]


class KeepsItAll(Echo):
    """The past lives in the prior, so that all batches share it."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "past", {})

    def start(self, rows: int) -> Any:
        self.past["state"] = super().start(rows)  # type: ignore[attr-defined]

    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        past = self.past["state"]  # type: ignore[attr-defined]
        log, self.past["state"] = super().step(tokens, past)  # type: ignore[attr-defined]
        return log, None

    def reorder(self, state: Any, index: Tensor) -> Any:
        self.past["state"] = super().reorder(self.past["state"], index)  # type: ignore[attr-defined]


class KeepsOrder(Echo):
    """`reorder` that does nothing but count."""

    def reorder(self, state: Any, index: Tensor) -> Any:
        return state[: len(index)] if len(index) <= len(state) else state.repeat(2, 1)


class SharesRows(Echo):
    """Duplicates are views of one row, which `step` then writes into."""

    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        rows, index = state
        if tokens is not None:
            for row, token in zip(index.tolist(), tokens.tolist(), strict=True):
                rows[row, token] += 1
        return self.logits(rows[index]).log_softmax(-1), (rows, index)

    def start(self, rows: int) -> Any:
        return super().start(rows), torch.arange(rows)

    def reorder(self, state: Any, index: Tensor) -> Any:
        return state[0], state[1][index]


class ForgetsTheCount(Echo):
    """A part of the state that `reorder` leaves as it was: the position, counted by row."""

    def start(self, rows: int) -> Any:
        return super().start(rows), super().start(rows)

    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        log, first = super().step(tokens, state[0])
        more, second = super().step(tokens, state[1])
        return (log + more).log_softmax(-1), (first, second)

    def reorder(self, state: Any, index: Tensor) -> Any:
        size = len(index)
        return state[0][index], state[1].repeat(2, 1)[:size]


class WritesTokens(Echo):
    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        out = super().step(tokens, state)
        if tokens is not None:
            tokens.fill_(0)
        return out


class EndsEarly(Echo):
    def __init__(self) -> None:
        super().__init__(5, 12)

    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        if int(state.sum(-1).max()) >= 9:
            raise IndexError("position 10")
        return super().step(tokens, state)


class EndsInAnIndexError(EndsEarly):
    def __init__(self) -> None:
        Echo.__init__(self, 5, 10)


class Classes(Echo):
    """Class-conditional, right: each class has a token that it likes."""

    labels = 3

    def start(self, rows: int, labels: Tensor | None = None) -> Any:
        own = torch.full((rows,), -1) if labels is None else labels
        return super().start(rows), own

    def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        log, past = super().step(tokens, state[0])
        liked = torch.nn.functional.one_hot(state[1] + 1, self.alphabet)
        return (log + liked * (state[1] >= 0)[:, None]).log_softmax(-1), (past, state[1])

    def reorder(self, state: Any, index: Tensor) -> Any:
        return state[0][index], state[1][index]


class LosesLabels(Classes):
    def reorder(self, state: Any, index: Tensor) -> Any:
        return state[0][index], state[1].repeat(2)[: len(index)]


class OneLabelForAll(Classes):
    def start(self, rows: int, labels: Tensor | None = None) -> Any:
        past, own = super().start(rows, labels)
        return past, own.amax().expand(rows)


class NoLabelIsZero(Classes):
    def start(self, rows: int, labels: Tensor | None = None) -> Any:
        past, own = super().start(rows, labels)
        return past, own if labels is None else own.clamp_min(0)


BROKEN: list[tuple[type[Echo], str]] = [
    (NoReorder, "has no method reorder"),
    (FloatAlphabet, "alphabet is 5.0. It is the number of tokens"),
    (NeedsLabels, r"start\(4\) raised TypeError .*Labels are optional"),
    (NeedsTokens, r"step\(None, state\), position 0, raised TypeError.*The first step takes None"),
    (ReturnsNoState, r"gave a Tensor. Return \(log_probs, new state\)"),
    (Logits, r"is not normalised \(logsumexp 0.1, expected 0\)"),
    (OneColumnMore, r"gave torch.float32 \[4, 6\]. Return log probabilities"),
    (HoldsNaN, "gave NaN or .inf"),
    (Dropout, "the same tokens read again: log p.* Turn dropout off"),
    (BatchMean, "Row r depends on the tokens fed to row r alone"),
    (KnowsItsPlace, "the rows in another order"),
    (KeepsItAll, "two batches read in turn: .* keep the past in the state"),
    (KeepsOrder, r"after reorder by \[3, 0, 0, 0\]: .* expected .*copy of row index\[r\]"),
    (SharesRows, "after reorder by .* is a copy of row"),
    (ForgetsTheCount, "after reorder by .* all its past"),
    (WritesTokens, "changed the tokens"),
    (EndsEarly, "position 10, raised IndexError"),
    (EndsInAnIndexError, "step 11 raised IndexError .*raise PriorError beyond it"),
    (LosesLabels, "after reorder by"),
    (OneLabelForAll, "with its label: .*its own label alone"),
    (NoLabelIsZero, "labels of -1: .*no class"),
]


@pytest.mark.parametrize(
    ("kind", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_is_wrong_is_said(kind: type[Echo], message: str) -> None:
    with pytest.raises(AssertionError, match=rf"(?s)^{kind.__name__}: .*{message}"):
        check_prior(kind())


def test_class_conditional_priors_pass() -> None:
    check_prior(Classes())
    check_prior(Classes(), rows=6, length=5)


def test_a_prior_may_refuse_what_lies_beyond_its_length() -> None:
    class Polite(EndsInAnIndexError):
        def step(self, tokens: Tensor | None, state: Any) -> tuple[Tensor, Any]:
            try:
                return super().step(tokens, state)
            except IndexError as error:
                raise PriorError("this prior knows 10 tokens.") from error

    check_prior(Polite())
