"""Samples that follow the posterior, and rows that share nothing."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from ..infer.base import Posterior
from ..infer.random import Random
from ._chi_square import chi_square
from ._sound import check_tokens
from ._verdict import Case, Row
from .brute import BruteForce

_NEVER = float("-inf")
_DRAWS = (400, 4000)


def check_sampling(case: Case, answer: Posterior, exact: bool) -> None:
    """Tokens in range and reproducible and, of an exact engine, possible and distributed as they
    should be, the latter in the first row that is possible."""
    drawn = _draw(case, answer, _seed(0))
    impossible = answer.log_evidence == _NEVER
    check_tokens(case, "sample()", drawn, impossible, set(answer.marginals()))
    again = _draw(case, case.posterior(case.problem), _seed(0))
    for name, tokens in drawn.items():
        for m, c in (tokens != again[name]).nonzero().tolist():
            hint = "The same seed was given twice: draw from the given generators alone."
            found, wanted = int(again[name][m, c]), int(tokens[m, c])
            case.fail(f"sample()['{name}']", found, wanted, (m, c), hint)
    tested = not exact
    for row in case.problem.rows:
        if not exact or impossible[row]:
            continue
        truth = case.truth(*row)
        slack = case.rounding(truth.log_evidence)
        truth = truth.project(*drawn)
        state = {name: int(tokens[row]) for name, tokens in drawn.items()}
        if truth.log_probability(state) == _NEVER:
            case.fail(f"the probability of the sample {state}", 0, "positive", row)
        if not tested and slack < 1e-3:  # else rounding alone would show
            tested = True
            _check_distribution(case, truth, row)


def _check_distribution(case: Case, truth: BruteForce, row: Row) -> None:
    """Chi-square in two stages: what looks odd is drawn again, ten times as often."""
    sites = truth.sites
    groups = [sites, (sites[0], sites[-1]), (sites[len(sites) // 2], sites[-1])]
    for seed, draws in enumerate(_DRAWS, 1):
        many = case.problem.select([row[0]], [row[1]] * draws)
        drawn = _draw(case, case.posterior(many), _seed(seed))
        for name, tokens in drawn.items():
            if (tokens < 0).any():
                case.fail(f"sample()['{name}'] of many candidates like it", -1, "a token", row)
        for group in dict.fromkeys(tuple(dict.fromkeys(group)) for group in groups):
            wanted = truth.project(*group).joint
            index = tuple(drawn[name][0].cpu() for name in group)
            ones = torch.ones(draws, dtype=torch.float64)
            counts = torch.zeros_like(wanted).index_put_(index, ones, accumulate=True)
            p = chi_square(counts, wanted)
            if p < 1e-3 and draws < _DRAWS[-1]:
                break
            if p < 1e-4:
                hint = (
                    f"Chi-square of {draws} draws: p = {p:.1e}. Samples are draws from the joint "
                    "posterior, not from each site's own marginal."
                )
                what = f"the share of draws of {', '.join(group)}"
                case.fail(what, counts / draws, wanted, row, hint)
        else:
            return


def check_rows(case: Case, answer: Posterior) -> None:
    """Rows in another order, without some of their neighbours, and with generators of their own."""
    m, c = case.problem.shape
    every = list(range(c))
    for mixtures, candidates in ((list(range(m))[::-1], every[::2][::-1]), ([m - 1], every)):
        other = case.posterior(case.problem.select(mixtures, candidates))
        _compare(case, answer, other, mixtures, candidates)
    together = _draw(case, answer, [_seed(7 + place) for place in range(m)])
    if case.dtype != torch.float64:  # there, rounding may tip a draw
        return
    for mixture in range(m):
        alone = case.posterior(case.problem.select([mixture], every))
        drawn = _draw(case, alone, [_seed(7 + mixture)])
        for name, tokens in drawn.items():
            for (candidate,) in (tokens[0] != together[name][mixture]).nonzero().tolist():
                hint = "One generator was given for each mixture; the mixture alone draws another."
                found, wanted = together[name][mixture, candidate], tokens[0, candidate]
                row = (mixture, candidate)
                case.fail(f"sample()['{name}']", int(found), int(wanted), row, hint)


def _compare(
    case: Case, all_rows: Posterior, some: Posterior, mixtures: list[int], candidates: list[int]
) -> None:
    whole, part = all_rows.marginals(), some.marginals()
    hint = "Only other rows of the batch were dropped or moved: rows must share nothing."
    for (i, mixture), (j, candidate) in product(enumerate(mixtures), enumerate(candidates)):
        row = (mixture, candidate)
        if all_rows.converged is not None and not all_rows.converged[row]:
            continue  # what has not settled depends on rounding
        before, after = float(all_rows.log_evidence[row]), float(some.log_evidence[i, j])
        slack = case.rounding(before) + max(case.tolerance, 1e-6)
        if before != after and not abs(before - after) <= slack * max(1.0, abs(before)):
            case.fail("log evidence", after, before, row, hint)
        for name, values in whole.items():
            if not bool(((values[row] - part[name][i, j]).abs() <= slack).all()):
                case.fail(f"p({name})", part[name][i, j], values[row], row, hint)


def _draw(case: Case, answer: Posterior, random: Random) -> dict[str, Tensor]:
    return case.ask("sample(random)", lambda: answer.sample(random))


def _seed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
