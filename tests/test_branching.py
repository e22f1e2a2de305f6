"""The posterior of other candidates is that of their rows, which a search that branches needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engines import ENGINES
from hypothesis import given, settings
from hypothesis import strategies as st

from mlass_ppl import BP, chain, compile_program, mix, source
from mlass_ppl.infer import Engine
from mlass_ppl.testing import Problem, random_problem


def ring() -> Any:
    a, b, c = source("a"), source("b"), source("c")
    return mix("ab", a, b), mix("bc", b, c), mix("ca", c, a)


GRAPHS = [compile_program(program) for program in (chain(2), chain(3), chain(4), ring)]


@pytest.mark.parametrize(
    "engine",
    [ENGINES[name] for name in ("exact", "dense", "sparse", "loopy", "auto", "auto-loopy")],
    ids=repr,
)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_rows_of_a_posterior_are_those_of_their_priors(engine: Engine, data: st.DataObject) -> None:
    graphs = [graph for graph in GRAPHS if graph.is_tree or not isinstance(engine, BP)]
    problem: Problem = data.draw(random_problem(st.sampled_from(graphs)))
    seed, count = data.draw(st.integers(0, 99)), data.draw(st.integers(1, 5))
    random = torch.Generator().manual_seed(seed)
    m, c = problem.shape
    parents = torch.randint(c, (m, count), generator=random)
    plan = engine.plan(problem.graph, problem.tables)
    found = plan.posterior(problem.log_priors, problem.evidence)
    found.sample(torch.rand(m, c, len(problem.graph.latent), generator=random))  # asked before
    found = found.of(parents)
    moved = {
        name: log.gather(1, parents[..., None].expand(m, count, log.shape[2]))
        for name, log in problem.log_priors.items()
    }
    expected = plan.posterior(moved, problem.evidence)
    torch.testing.assert_close(found.log_evidence, expected.log_evidence, rtol=1e-12, atol=1e-12)
    uniform = torch.rand(m, count, len(problem.graph.latent), generator=random).double()
    for ask in ("marginals", "mode", "sample"):
        given_ = (uniform,) if ask == "sample" else ()
        one, other = getattr(found, ask)(*given_), getattr(expected, ask)(*given_)
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-12, atol=1e-12)
    if found.converged is not None:
        assert torch.equal(found.converged, expected.converged)
