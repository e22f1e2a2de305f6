"""Short lists of promising tuples: equal to brute force where they hold everything, a lower bound
within the promised distance elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engines import TYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_problems import WIDTH, linear, problem, random

from mlass_ppl import (
    BP,
    Exact,
    Feature,
    GaussianTable,
    Truncated,
    compile_program,
    joint,
    mix,
    source,
)
from mlass_ppl.infer import halves as module
from mlass_ppl.infer import tellers
from mlass_ppl.testing import Problem, check_engine, random_problem
from mlass_ppl.testing._chi_square import chi_square

KINDS = st.sampled_from([Feature(), Feature(2.0), Feature(0.3)])


def stereo() -> Any:
    """Left hears three sources, right two of them and not as loud, the third microphone the last
    one alone."""
    a, b, c, d = (source(name) for name in "abcd")
    left = mix("left", a, b, c, evidence=Feature())
    right = mix("right", c, b, evidence=Feature(0.5))
    return left, right, mix("near", d, evidence=Feature())


def solo() -> Any:
    """The other source sounds, but the table is averaged over it: its posterior is its prior."""
    return mix("m", source("a"), hidden=[source("b")], evidence=Feature())


@TYPES
@settings(max_examples=12)
@given(data=st.data())
def test_lists_of_everything_are_exact(dtype: torch.dtype, tolerance: float, data: Any) -> None:
    """Any alphabets, deep priors, zeros, impossible rows, powers."""
    n, kind = data.draw(st.integers(2, 6)), data.draw(KINDS)
    here = data.draw(random_problem(st.just(compile_program(joint(n, evidence=kind)))))
    assert here.posterior(Truncated(), dtype).exact
    check_engine(Truncated(), here, dtype=dtype, tolerance=tolerance)


@settings(max_examples=12)
@pytest.mark.parametrize("program", [stereo, solo])
@given(data=st.data())
def test_several_sites_of_some_of_the_sources(program: Callable[[], Any], data: Any) -> None:
    here = data.draw(random_problem(st.just(compile_program(program))))
    assert here.posterior(Truncated()).exact
    check_engine(Truncated(), here)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("power", [1.0, 0.4])
@pytest.mark.parametrize("sizes", [(5,), (6, 4), (4, 5, 3), (3, 4, 2, 5)], ids=str)
def test_moments_that_add_up(sizes: tuple[int, ...], power: float, diagonal: bool) -> None:
    """The density of every tuple, where Exact() takes the table of all of them."""
    if len(sizes) > 1:
        here = problem(sizes, diagonal=diagonal)
    else:
        graph = compile_program(lambda: mix("mixture", source("source_1"), evidence=Feature()))
        here = problem((5, 5), diagonal=diagonal)
        tables = {"mixture": linear(sizes, diagonal)}
        priors = {"source_1": here.log_priors["source_1"]}
        here = Problem(graph, tables, priors, here.evidence)
    graph = here.graph.with_evidence({"mixture": Feature(power)})
    here = Problem(graph, here.tables, here.log_priors, here.evidence)
    found, wanted = here.posterior(Truncated()), here.posterior(Exact())
    assert found.exact
    close = {"rtol": 0.0, "atol": 1e-8}
    torch.testing.assert_close(found.log_evidence, wanted.log_evidence, **close)
    torch.testing.assert_close(found.marginals(), wanted.marginals(), **close)
    assert all(torch.equal(found.mode()[name], t) for name, t in wanted.mode().items())
    names = graph.sources
    for pair in [(names[0], names[-1]), (names[-1], names[0]), (names[0], names[len(names) // 2])]:
        torch.testing.assert_close(found.pairwise(*pair), wanted.pairwise(*pair), **close)
    torch.testing.assert_close(found.topk(7)[1], wanted.topk(7)[1], **close)
    torch.testing.assert_close(found.covered, torch.ones(here.shape, dtype=torch.float64))


@pytest.mark.parametrize("sizes", [(30, 20, 25), (12, 12, 12, 12), (9, 8, 7, 8, 9)], ids=str)
def test_short_lists_are_a_lower_bound(sizes: tuple[int, ...]) -> None:
    here = problem(sizes)
    wanted = here.posterior(BP()).log_evidence
    last = torch.full_like(wanted, float("-inf"))
    highest = -0.5 * WIDTH * torch.log(torch.tensor(2 * torch.pi * 0.01))
    for keep in (4, 16, 64):
        answer = here.posterior(Truncated(keep=keep))
        assert not answer.exact
        found, covered = answer.log_evidence, answer.covered
        assert (found <= wanted + 1e-4).all()
        assert ((covered > 0) & (covered < 1)).all()
        lost = wanted.exp() - found.exp()
        assert (lost <= (1 - covered) * highest.exp() + 1e-6).all()
        assert found.mean() >= last.mean() - 1e-4
        last = found
        marginals = answer.marginals()
        for name, values in marginals.items():
            assert (values.count_nonzero(-1) <= keep).all(), name
    assert (wanted - last).max() < 0.05
    truth = here.posterior(BP()).marginals()
    for name in here.graph.sources:
        assert (marginals[name] - truth[name]).abs().max() < 0.05


def test_draws_follow_the_posterior_of_the_lists() -> None:
    here = problem((20, 20, 20), c=1).select([0], [0] * 20_000)
    answer = here.posterior(Truncated(keep=40))
    drawn = answer.sample(random(0))
    for first, second in [("source_1", "source_2"), ("source_1", "source_3")]:
        wanted = answer.pairwise(first, second)[0, 0]
        cells = drawn[first][0] * 20 + drawn[second][0]
        assert chi_square(cells.bincount(minlength=400).reshape(20, 20), wanted) > 1e-3
    for name, values in answer.marginals().items():
        assert chi_square(drawn[name][0].bincount(minlength=20), values[0, 0]) > 1e-3


def test_a_mixture_is_answered_alike_in_any_batch() -> None:
    here, engine = problem((20, 15, 20), m=3), Truncated(keep=16)
    together = here.posterior(engine)
    drawn = together.sample([random(m) for m in range(3)])
    for m in (2, 0):
        alone = here.select([m], range(5)).posterior(engine)
        assert torch.equal(alone.log_evidence[0], together.log_evidence[m])
        for name, tokens in alone.sample([random(m)]).items():
            assert torch.equal(tokens[0], drawn[name][m])


@pytest.mark.parametrize("sizes", [(20, 15, 20), (9, 8, 7, 8, 9), (40,) * 4], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixtures_in_parts_or_alone_are_answered_bit_for_bit(
    sizes: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = problem(sizes, m=6, c=8)
    priors = {name: log.to(dtype) for name, log in here.log_priors.items()}
    plan = Truncated(keep=16).plan(here.graph, here.tables)

    def answer(rows: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        cut = {name: log[rows] for name, log in priors.items()}
        found = plan.posterior(cut, {"mixture": here.evidence["mixture"][rows]})
        return found.log_evidence, found.sample([random(m) for m in range(6)[rows]])

    evidence, drawn = answer(slice(None))
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    parts = [slice(None), slice(0, 2), *(slice(m, m + 1) for m in range(6))]
    for rows in parts:
        found, tokens = answer(rows)
        assert torch.equal(found, evidence[rows])
        assert all(torch.equal(tokens[name], drawn[name][rows]) for name in drawn)


@pytest.mark.parametrize("tables", ["listed", "added"])
def test_messages_of_sites_in_parts(tables: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites whose densities are at hand rank tuples mixture by mixture, if memory asks for it."""
    here = problem((12, 12, 12), m=4, diagonal=tables == "added")
    wanted = here.posterior(Truncated(keep=20))
    monkeypatch.setattr(tellers, "_CHUNK_BYTES", 1)
    found = here.posterior(Truncated(keep=20))
    assert torch.equal(found.log_evidence, wanted.log_evidence)
    assert all(torch.equal(found.mode()[name], t) for name, t in wanted.mode().items())


def test_a_list_of_one_source_is_as_long_as_asked() -> None:
    here = problem((300, 300), m=1, c=2, depth=0.1)
    marginals = here.posterior(Truncated(keep=200)).marginals()
    assert all((values > 0).sum() > 128 for values in marginals.values())


def test_candidates_can_branch() -> None:
    here = problem((20, 15, 20))
    answer = here.posterior(Truncated(keep=16))
    parents = torch.tensor([[4, 4, 0], [1, 2, 2]])
    row = torch.arange(2)[:, None]
    branched = answer.of(parents)
    assert torch.equal(branched.log_evidence, answer.log_evidence[row, parents])
    assert torch.equal(branched.covered, answer.covered[row, parents])
    for name, values in branched.marginals().items():
        torch.testing.assert_close(values, answer.marginals()[name][row, parents])
    uniform = torch.rand(2, 3, 3, generator=random(0))
    spread = torch.zeros(2, 5, 3).double()
    spread[row, parents] = uniform.double()  # of children of one parent, the last one's numbers
    drawn, wanted = branched.sample(uniform), answer.sample(spread)
    for name in here.graph.sources:
        assert torch.equal(drawn[name][:, -1], wanted[name][row, parents][:, -1])
    assert "source_1" in branched.explain(1, 2)
    assert "an approximation" in branched.explain(1, 2)


@pytest.mark.parametrize("keep", [8, 4096])
def test_impossible_and_certain_rows(keep: int) -> None:
    """No mass, a single token, and priors that the evidence contradicts beyond 32 bits."""
    here = problem((12, 12, 12), c=4)
    priors = {name: log.clone() for name, log in here.log_priors.items()}
    priors["source_2"][:, 0] = float("-inf")
    for log in priors.values():
        log[0, 1], log[0, 1, 3] = float("-inf"), 0.0
        log[:, 2] *= 60
    far = {"mixture": here.evidence["mixture"] + torch.tensor([[0.0], [300.0]])}
    here = Problem(here.graph, here.tables, priors, far)
    answer = here.posterior(Truncated(keep=keep))
    assert (answer.log_evidence[:, 0] == float("-inf")).all()
    assert answer.log_evidence[:, 2:].isfinite().all()
    for tokens in (answer.sample(random(0)), answer.mode()):
        for values in tokens.values():
            assert torch.equal(values == -1, answer.log_evidence == float("-inf"))
            assert answer.log_evidence[0, 1] == float("-inf") or values[0, 1] == 3
    marginals = answer.marginals()
    for values in marginals.values():
        possible = (answer.log_evidence > float("-inf")).double()
        torch.testing.assert_close(values.sum(-1), possible)
    assert not answer.covered.isnan().any()
    assert (answer.pairwise("source_1", "source_3")[:, 0] == 0).all()
    assert not answer.entropy("source_1", "source_2").isnan().any()
    if keep == 4096:
        wanted = here.posterior(Exact())
        torch.testing.assert_close(answer.log_evidence, wanted.log_evidence)


def test_a_configuration_that_no_table_allows() -> None:
    graph = compile_program(joint(2, evidence=Feature()))
    possible = torch.tensor([[True, False], [True, False]])
    table = GaussianTable.from_arrays(torch.zeros(2, 2, 1), torch.ones(2, 2, 1), possible)
    priors = {name: torch.zeros(1, 1, 2) for name in graph.sources}
    priors["source_2"][..., 0] = float("-inf")
    plan = Truncated(keep=2).plan(graph, {"mixture": table})
    answer = plan.posterior(priors, {"mixture": torch.zeros(1, 1)})
    assert answer.log_evidence.item() == float("-inf")
    assert answer.sample(random(0)) == {name: torch.tensor([[-1]]) for name in graph.sources}


def test_no_mixtures() -> None:
    here = problem((4, 4))
    none = Truncated().plan(here.graph, here.tables)
    priors = {name: log[:0] for name, log in here.log_priors.items()}
    answer = none.posterior(priors, {"mixture": here.evidence["mixture"][:0]})
    assert answer.log_evidence.shape == (0, 5)
    for tokens in (answer.sample(random(0)), answer.mode()):
        assert all(values.shape == (0, 5) for values in tokens.values())
