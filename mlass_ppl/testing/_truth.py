"""Every number of an answer that claims to be exact against brute force."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import Tensor

from ..errors import EngineError
from ..infer.base import Posterior
from ._verdict import Case, Row
from .brute import BruteForce

_NEVER = float("-inf")
_K = 4
_T = TypeVar("_T")


def check_truth(case: Case, answer: Posterior) -> None:
    marginals, mode = answer.marginals(), answer.mode()
    names = [name for name in case.problem.graph.latent if name in marginals]
    whole = len(names) == len(case.problem.graph.latent)
    pairs = [(names[0], names[-1]), (names[-1], names[len(names) // 2])]
    shared = {pair: _optional(case, "pairwise", partial(answer.pairwise, *pair)) for pair in pairs}
    alone = _optional(case, "entropy", partial(answer.entropy, names[0]))
    together = _optional(case, "entropy", partial(answer.entropy, *pairs[0]))
    best = _optional(case, "topk", partial(answer.topk, _K)) if whole else None
    for row in case.problem.rows:
        truth = case.truth(*row)
        case.near("log evidence", float(answer.log_evidence[row]), truth.log_evidence, row)
        slack = case.rounding(truth.log_evidence)
        truth = truth.project(*names)
        for name in names:
            case.close(f"p({name})", marginals[name][row], truth.marginal(name), row, slack)
        for pair, values in shared.items():
            if values is not None:
                what = f"pairwise{pair}"
                case.close(what, values[row], truth.pairwise(*pair), row, slack)
        for sites, values in (((names[0],), alone), (pairs[0], together)):
            if values is not None:
                size = max(2, truth.project(*dict.fromkeys(sites)).log_joint.numel())
                wanted, more = truth.entropy(*sites), 20 * size * (slack + case.tolerance)
                case.near(f"entropy{sites}", float(values[row]), wanted, row, more)
        if best is not None:
            _check_topk(case, *best, truth, row, slack)
        if truth.log_evidence > _NEVER:
            peak = float(truth.log_joint.max())
            found = truth.log_probability({name: int(mode[name][row]) for name in names})
            case.near("log probability of the mode", found, peak, row, slack)


def _optional(case: Case, what: str, question: Callable[[], _T]) -> _T | None:
    """An answer that an engine may leave out by EngineError."""
    try:
        return question()
    except EngineError:
        return None
    except Exception as error:
        case.blame(error, f"{what}(...)")


def _check_topk(
    case: Case, tokens: dict[str, Tensor], log: Tensor, truth: BruteForce, row: Row, slack: float
) -> None:
    wanted = truth.topk(_K)
    seen = set()
    for place in range(_K):
        what = f"topk({_K}), place {place}"
        case.near(what, float(log[row][place]), float(wanted[place]), row, slack)
        state = {name: int(tokens[name][row][place]) for name in truth.sites}
        if wanted[place] == _NEVER:
            if set(state.values()) != {-1}:
                case.fail(f"{what},", state, "-1 everywhere: there are fewer assignments", row)
            continue
        if -1 in state.values() or tuple(state.values()) in seen:
            case.fail(f"{what},", state, "an assignment that was not there before", row)
        seen.add(tuple(state.values()))
        found = truth.log_probability(state) - truth.log_evidence
        case.near(f"log probability of {what},", found, float(wanted[place]), row, slack)
