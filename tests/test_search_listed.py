"""Beams over engines that list their best answers: equal to those that run, exact over lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_problems import problem
from test_search_beam import Toy, observe, tokens_of, toy, truth
from torch import Tensor

from mlass_ppl import (
    BP,
    Beam,
    EngineError,
    Feature,
    Posterior,
    Truncated,
    compile_program,
    joint,
    separate,
)
from mlass_ppl.infer.joint import JointPosterior
from mlass_ppl.search._continue import Continuations, Expander
from mlass_ppl.search._listed import Lister
from mlass_ppl.testing import random_problem
from mlass_ppl.testing._draws import Draws


class Weighing(JointPosterior):
    """A posterior that lists, and takes more weights."""

    def weighted(self, weights: Mapping[str, Tensor]) -> Posterior:
        flat = {name: log.flatten(0, 1) for name, log in weights.items()}
        return self._of(self.position.weighted(flat))


def keys(found: Continuations) -> list[tuple[int, ...]]:
    return [(int(row), *own) for row, own in zip(found.row, found.tokens.tolist(), strict=True)]


@settings(max_examples=30)
@given(
    random_problem(st.sampled_from([compile_program(joint(n)) for n in (2, 3)])),
    st.integers(1, 30),
    st.integers(0, 99),
)
def test_lists_and_runs_find_the_same(problem, most, seed):
    """Any alphabets, with zeros, of candidates of any weights, some of which are not continued."""
    m, c = problem.shape
    draws, plan = Draws(seed), problem.posterior(BP()).plan
    posterior = Weighing(plan, problem.posterior(BP()).position)
    weights = draws.log_weights((m * c,), 5.0, 0.3)
    rows = (weights > -torch.inf).nonzero()[:, 0]
    if not len(rows):
        return
    counts = 1 + (draws.uniform(m) * most).long()
    size = problem.sizes[problem.graph.sources[0]]
    for penalty in ({}, {problem.graph.sources[0]: 3 * draws.uniform(m, size)}):
        runs = Expander(plan, posterior.position).best(rows, weights, counts, penalty)
        lists = Lister(posterior).best(rows, weights, counts, penalty)
        assert torch.equal(runs.row // c, lists.row // c)
        order = [torch.argsort(own.score, stable=True) for own in (runs, lists)]
        torch.testing.assert_close(
            runs.score[order[0]], lists.score[order[1]], atol=1e-5, rtol=1e-5
        )
        assert len(set(keys(lists))) == len(keys(lists))
        exact = dict(zip(keys(runs), runs.score.tolist(), strict=True))
        for key, score in zip(keys(lists), lists.score.tolist(), strict=True):
            if key in exact:  # of equally good ones either may be last
                assert score == pytest.approx(exact[key], abs=1e-5)


def test_short_lists_are_searched_exactly():
    """Every pair of listed tuples of every candidate, by its joint probability."""
    here = problem((7, 6, 5), m=2, c=4)
    posterior = here.posterior(Truncated(6))
    assert not posterior.exact
    weights = Draws(1).log_weights((8,), 3.0, 0.2)
    rows = (weights > -torch.inf).nonzero()[:, 0]
    found = Lister(posterior).best(rows, weights, torch.tensor([9, 4]), {})
    listed, told = posterior.topk(7 * 6 * 5)
    assert (told > -torch.inf).sum(2).max() <= 6 * 6
    for mixture, count in enumerate((9, 4)):
        scores = {}
        for row in rows[rows // 4 == mixture].tolist():
            log_joint = here.brute_force(mixture, row % 4).log_joint
            tuples = torch.stack([listed[name][mixture, row % 4] for name in here.graph.sources])
            for own in tuples.T[told[mixture, row % 4] > -torch.inf].tolist():
                scores[row, *own] = float(log_joint[tuple(own)] + weights[row])
        mine = found.of(found.row // 4 == mixture)
        assert mine.score.tolist() == pytest.approx(
            sorted(scores.values(), reverse=True)[:count], abs=1e-3
        )
        for key, score in zip(keys(mine), mine.score.tolist(), strict=True):
            assert scores[key] == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("n", [2, 3])
def test_a_beam_over_whole_lists_is_that_over_runs(n):
    graph = compile_program(joint(n)).with_evidence({"mixture": Feature()})
    for seed in range(3):
        used = toy(graph, seed, 3 if n == 2 else 2, 2, 0.7)
        observed = observe(graph, 3, 2, seed)
        for width in (1, 5, 81):
            options: dict[str, Any] = {"search": Beam(width), "on_unseen": "prior"}
            runs = separate(observed, graph, used, infer=BP(), **options)
            lists = separate(observed, graph, used, infer=Truncated(), **options)
            torch.testing.assert_close(runs.log_weights, lists.log_weights, atol=1e-5, rtol=1e-5)
            for row in range(3):
                expected = truth(used, graph, observed, row)
                for c in (lists.log_weights[row] > -torch.inf).nonzero()[:, 0].tolist():
                    told = float(lists.log_weights[row, c])
                    key = tokens_of(lists, row, c)
                    assert not expected or told == pytest.approx(expected[key], abs=1e-5)


def test_neighbours_in_the_batch_change_nothing():
    graph = compile_program(joint(3)).with_evidence({"mixture": Feature()})
    used = toy(graph, 1, 3, 2, 0.8)
    observed = observe(graph, 4, 2, 1)
    options: dict[str, Any] = {"infer": Truncated(4), "search": Beam(6), "on_unseen": "prior"}
    whole = separate(observed, graph, used, **options)
    for row in range(4):
        one = {name: given[row : row + 1] for name, given in observed.items()}
        alone = separate(one, graph, used, **options)
        for name, own in alone.candidate_tokens.items():
            assert torch.equal(own[0], whole.candidate_tokens[name][row])


def test_groups_over_lists_that_cannot_be_weighed_are_refused():
    graph = compile_program(joint(2)).with_evidence({"mixture": Feature()})
    used: Toy = toy(graph, 1, 3, 2, 1.0)
    observed = observe(graph, 1, 2, 1)
    with pytest.raises(EngineError, match=r"Truncated\(.*\) cannot weigh tokens anew.*groups=1"):
        separate(observed, graph, used, infer=Truncated(), search=Beam(4, groups=2))
