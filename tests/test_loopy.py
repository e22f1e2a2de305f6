"""Loopy belief propagation: exact on trees, near where loops are weak, honest everywhere."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from mlass_ppl import (
    BP,
    ConvergenceWarning,
    Exact,
    Feature,
    LoopyBP,
    MixingGraph,
    OptionError,
    Soft,
    Table,
    Token,
    balanced,
    chain,
    compile_program,
    mix,
    source,
)
from mlass_ppl.infer.messages.sweeps import sweep
from mlass_ppl.infer.random import Draws
from mlass_ppl.tables.gaussian import GaussianTable
from mlass_ppl.testing import Problem, check_engine, random_graph, random_problem

NEVER = float("-inf")


def stereo(first=Soft(), second=Soft()):
    """Two microphones hear the same two sources: the shortest cycle."""

    def program():
        a, b = source("a"), source("b")
        return mix("left", a, b, evidence=first), mix("right", a, b, evidence=second)

    return compile_program(program)


def ring():
    """Three sources, each pair of them observed, and one latent partial mixture on the way."""
    a, b, c = source("a"), source("b"), source("c")
    partial = mix("partial", a, b)
    return mix("m", partial, c), mix("n", b, c), mix("o", a, c)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=random, dtype=torch.float64)


def problem(graph: MixingGraph, size: int = 4, strength: float = 0.5, shape=(2, 3)) -> Problem:
    """Tables whose entries vary by `strength` nats, and priors that vary by two."""
    tables: dict[str, Table | GaussianTable] = {}
    for place, factor in enumerate(graph.factors):
        values = strength * uniform(*[size] * len(factor.scope), seed=place)
        if factor.feature:
            std = torch.ones_like(values[..., :2])
            tables[factor.name] = GaussianTable.from_arrays(values[..., :2], std)
        else:
            tables[factor.name] = Table.from_array(values.softmax(-1))
    log_priors = {
        name: (2 * uniform(*shape, size, seed=place + 50)).log_softmax(-1)
        for place, name in enumerate(graph.sources)
    }
    evidence = {}
    for place, name in enumerate(graph.observed):
        if name in graph.known:
            evidence[name] = torch.arange(shape[0]) % size
        elif name in graph.soft:
            evidence[name] = 2 * uniform(shape[0], size, seed=place + 90)
        else:
            evidence[name] = uniform(shape[0], 2, seed=place + 90)
    return Problem(graph, tables, log_priors, evidence)


def shift(graph: MixingGraph, size: int) -> dict[str, Table]:
    """Every mixture is the sum of its parents modulo `size`: nothing but zeros and ones."""
    tables = {}
    for factor in graph.factors:
        total = torch.zeros([size] * len(factor.parents), dtype=torch.long)
        for axis in range(total.ndim):
            total = total + torch.arange(size).view([-1] + [1] * axis) * (axis + 1)
        tables[factor.name] = Table.from_array(torch.nn.functional.one_hot(total % size, size))
    return tables


def differences(here: Problem, engine: LoopyBP) -> Iterator[tuple[float, float]]:
    """Of each row: |log evidence - truth|, and the largest difference of a marginal."""
    posterior = here.posterior(engine)
    marginals = posterior.marginals()
    for row in product(*map(range, here.shape)):
        truth = here.brute_force(*row)
        gaps = [(marginals[name][row] - truth.marginal(name)).abs().max() for name in truth.sites]
        yield abs(float(posterior.log_evidence[row]) - truth.log_evidence), float(max(gaps))


@settings(max_examples=8)
@given(problem=random_problem(random_graph(max_sources=5), max_states=1024))
def test_trees_are_exact(problem: Problem) -> None:
    assert LoopyBP().is_exact(problem.graph)
    check_engine(LoopyBP(), problem)


@settings(max_examples=5)
@given(problem=random_problem(random_graph(max_sources=4, tree=False), max_states=512))
def test_any_graph_gets_a_sound_answer(problem: Problem) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        check_engine(LoopyBP(), problem)


@pytest.mark.parametrize("engine", [LoopyBP(), LoopyBP(dense_limit=0)], ids=["dense", "sparse"])
@pytest.mark.parametrize("shape", [chain(4), balanced(4)], ids=["chain", "balanced"])
def test_one_sweep_of_a_tree_says_what_bp_says(shape: object, engine: LoopyBP) -> None:
    here = problem(compile_program(shape), strength=5)
    posterior, wanted = here.posterior(engine), here.posterior(BP())
    assert posterior.exact
    assert posterior.converged.all()
    assert (posterior.steps == 1).all()
    torch.testing.assert_close(posterior.log_evidence, wanted.log_evidence)
    messages = posterior.messages()
    assert messages.keys() == wanted.messages().keys()
    for key, message in wanted.messages().items():
        torch.testing.assert_close(messages[key], message)
    for name, marginal in wanted.marginals().items():
        torch.testing.assert_close(posterior.marginals()[name], marginal)
    torch.testing.assert_close(posterior.mode(), wanted.mode())


def test_any_declared_order_of_a_tree_takes_one_sweep() -> None:
    """A path through the factors first, third, second, fourth, which no order of names follows."""

    def program():
        a, b, c, d = (source(name) for name in "abcd")
        return mix("p", a, b), mix("q", c, d), mix("r", b, c), mix("s", d, source("e"))

    here = problem(compile_program(program), strength=5)
    for evidence, marginal in differences(here, LoopyBP()):
        assert evidence < 1e-9
        assert marginal < 1e-9


@pytest.mark.parametrize("engine", [LoopyBP(), LoopyBP(dense_limit=0)], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    "graph",
    [
        compile_program(ring),
        stereo(),
        stereo(Soft(), Feature()),
        stereo(Feature(), Feature(power=0.5)),
    ],
    ids=["tokens", "soft", "soft-feature", "features"],
)
def test_weak_loops_are_nearly_exact(graph: MixingGraph, engine: LoopyBP) -> None:
    assert not graph.is_tree
    here = problem(graph, strength=0.5)
    posterior = here.posterior(engine)
    assert posterior.converged.all()
    assert not posterior.exact
    for evidence, marginal in differences(here, engine):
        assert evidence < 2e-3
        assert marginal < 2e-3


def test_answers_about_several_sites_are_near_too() -> None:
    here = problem(stereo(), strength=1.0, shape=(1, 2))
    posterior, wanted = here.posterior(LoopyBP()), here.posterior(Exact())
    pair = posterior.pairwise("a", "right")
    torch.testing.assert_close(pair.sum((-1, -2)), torch.ones(1, 2, dtype=torch.float64))
    torch.testing.assert_close(pair, wanted.pairwise("a", "right"), atol=2e-3, rtol=0)
    entropy = wanted.entropy("a", "b")
    torch.testing.assert_close(posterior.entropy("a", "b"), entropy, atol=1e-2, rtol=0)
    (tokens, log), (best, wanted_log) = posterior.topk(3), wanted.topk(3)
    torch.testing.assert_close(tokens, best)
    torch.testing.assert_close(log, wanted_log, atol=1e-2, rtol=0)
    torch.testing.assert_close(posterior.mode(), {name: t[..., 0] for name, t in best.items()})


def frustrated() -> Problem:
    """Strong couplings around the ring that no assignment satisfies together, and flat priors."""
    here = problem(compile_program(ring), strength=12)
    flat = {name: torch.zeros_like(log) for name, log in here.log_priors.items()}
    return Problem(here.graph, here.tables, flat, here.evidence)


def test_rows_that_do_not_settle_are_told_once() -> None:
    engine = LoopyBP(damping=0.0, max_steps=2)
    with pytest.warns(ConvergenceWarning) as caught:
        posterior = frustrated().posterior(engine)
    assert len(caught) == 1
    text = str(caught[0].message)
    count = int((~posterior.converged).sum())
    assert re.search(rf"\b{count} of 6 rows did not settle within 2 steps", text)
    assert f"{float(posterior.change.max()):.2g}" in text
    assert "LoopyBP(damping=0.5, ...)" in text
    assert "Exact()" in text
    assert posterior.converged.shape == posterior.steps.shape == (2, 3)
    assert posterior.steps.dtype == torch.int64
    assert count
    assert (posterior.steps[~posterior.converged] == 2).all()
    row = tuple(int(i) for i in (~posterior.converged).nonzero()[0])
    assert "not converged" in posterior.explain(*row)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior.mode(), posterior.marginals(), posterior.pairwise("a", "b"), posterior.topk(2)
        posterior.sample(torch.Generator().manual_seed(0))


def test_settled_rows_are_at_a_fixed_point() -> None:
    """More steps and a smaller tolerance change nothing by more than the tolerance allows."""
    here = frustrated()
    rough, fine = LoopyBP(tolerance=1e-4), LoopyBP(tolerance=1e-10, max_steps=2000)
    first, second = here.posterior(rough), here.posterior(fine)
    assert first.converged.all()
    assert second.converged.all()
    assert (first.steps < second.steps).all()
    assert (first.change < 1e-4).all()
    for key, message in second.messages().items():
        torch.testing.assert_close(first.messages()[key], message, atol=1e-2, rtol=0)


def test_damping_moves_no_fixed_point() -> None:
    here = problem(compile_program(ring), strength=3)
    slow = here.posterior(LoopyBP(damping=0.9, tolerance=1e-9, max_steps=5000))
    fast = here.posterior(LoopyBP(damping=0.0, tolerance=1e-9))
    assert slow.converged.all()
    assert fast.converged.all()
    assert (slow.steps > fast.steps).all()
    torch.testing.assert_close(slow.log_evidence, fast.log_evidence)


def test_rows_share_nothing() -> None:
    """Rows that settle at different steps, some of them impossible, alone and together."""
    here = problem(compile_program(ring), size=3, strength=4, shape=(2, 4))
    here.log_priors["a"][0, 1] = NEVER
    engine = LoopyBP(max_steps=25)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = here.posterior(engine)
        assert len(whole.steps.unique()) > 2
        numbers = uniform(2, 4, len(here.graph.latent), seed=9)
        drawn = whole.sample(numbers)
        for m, c in product(range(2), range(4)):
            alone = here.select([m], [c]).posterior(engine)
            assert alone.steps.item() == whole.steps[m, c]
            assert alone.converged.item() == whole.converged[m, c]
            torch.testing.assert_close(alone.log_evidence[0, 0], whole.log_evidence[m, c])
            for name, tokens in alone.sample(numbers[m : m + 1, c : c + 1]).items():
                assert tokens.item() == drawn[name][m, c]
                torch.testing.assert_close(
                    alone.marginals()[name][0, 0], whole.marginals()[name][m, c]
                )


def test_samples_follow_the_joint_posterior_on_a_weak_loop() -> None:
    """Of two sites that the one side ties strongly, and the other weakly."""
    here = problem(stereo(Token()), 3, 0.5, (1, 1))
    sums = shift(here.graph, 3)["left"].dense()
    here = replace(here, tables={**here.tables, "left": Table.from_array(0.8 * sums + 0.2 / 3)})
    truth = here.brute_force(0, 0)
    ((_, beliefs),) = differences(here, LoopyBP())
    assert beliefs < 0.01  # the accuracy that the beliefs have here
    draws, seed = 20_000, torch.Generator().manual_seed(1)
    drawn = here.select([0], [0] * draws).posterior(LoopyBP()).sample(seed)
    share = torch.zeros_like(truth.joint)
    ones = torch.full((draws,), 1 / draws, dtype=torch.float64)
    share.index_put_(tuple(drawn[name][0] for name in truth.sites), ones, accumulate=True)
    allowed = 5 * (truth.joint / draws).sqrt() + 0.02 * truth.joint
    assert ((share - truth.joint).abs() < allowed).all()
    apart = truth.marginal("a")[:, None] * truth.marginal("b")
    together = truth.project("a", "b").joint
    assert (apart - together).abs().max() > 0.1  # no product of marginals passes


@pytest.mark.parametrize("engine", [LoopyBP(), LoopyBP(dense_limit=0)], ids=["dense", "sparse"])
def test_samples_of_sums_are_possible(engine: LoopyBP) -> None:
    """Both sides hear one sum: beliefs are flat, also where the sides contradict each other."""
    graph, size = stereo(Token(), Token()), 5
    flat = {name: torch.zeros(2, 50, size, dtype=torch.float64) for name in graph.sources}
    heard = {"left": torch.tensor([3, 3]), "right": torch.tensor([3, 4])}
    here = Problem(graph, shift(graph, size), flat, heard)
    impossible = torch.tensor([False, True])
    assert [here.brute_force(m, 0).log_evidence == NEVER for m in range(2)] == [False, True]
    posterior = here.posterior(engine)
    assert ((posterior.log_evidence == NEVER) == impossible[:, None]).all()
    truth = here.brute_force(0, 0)
    for tokens in (posterior.sample(torch.Generator().manual_seed(0)), posterior.mode()):
        for m, c in product(range(2), range(50)):
            state = {name: int(values[m, c]) for name, values in tokens.items()}
            if m:
                assert set(state.values()) == {-1}
            else:
                assert truth.log_probability(state) > NEVER


def test_zeros_are_kept_by_damping() -> None:
    """Also those that come with a later step, when there was something to damp."""
    graph = stereo(Token(), Token())
    tables = {}
    for place, name in enumerate(graph.observed):
        dense = uniform(8, 8, 8, seed=place + 10) * (uniform(8, 8, 8, seed=place) < 0.25)
        total = dense.sum(-1, keepdim=True)
        tables[name] = Table.from_array(dense / torch.where(total > 0, total, 1.0))
    here = replace(problem(graph, 8, shape=(4, 1)), tables=tables)

    def supports(engine: LoopyBP) -> list[list[bool]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            marginals = here.posterior(engine).marginals()
        return [(marginals[name] > 0).flatten().tolist() for name in ("a", "b")]

    assert supports(LoopyBP(damping=0.9)) == supports(LoopyBP(damping=0.0))
    assert supports(LoopyBP(damping=0.0)) != supports(LoopyBP(max_steps=1))


def test_depths_that_underflow_are_mended() -> None:
    """Priors hundreds of nats deep, in 32 bits, where only the deepest tokens agree."""
    graph = compile_program(ring)
    here = problem(graph, strength=6, shape=(1, 2))
    for place, name in enumerate(graph.sources):
        here.log_priors[name][0, 1] = -90.0 * (torch.arange(4).double() - place).abs()
    single, double = here.posterior(LoopyBP(), torch.float32), here.posterior(LoopyBP())
    torch.testing.assert_close(
        single.log_evidence, double.log_evidence.float(), atol=1e-3, rtol=1e-5
    )
    for name, marginal in double.marginals().items():
        torch.testing.assert_close(single.marginals()[name], marginal.float(), atol=1e-4, rtol=0)
    assert single.messages().keys() == double.messages().keys()


def test_impossible_rows_say_so() -> None:
    here = problem(compile_program(ring), shape=(1, 2))
    here.log_priors["c"][0, 1] = NEVER
    posterior = here.posterior(LoopyBP())
    assert posterior.log_evidence[0, 1] == NEVER
    assert posterior.converged.all()
    assert all((message[0, 1] == 0).all() for message in posterior.messages().values())
    tokens, log = posterior.topk(2)
    assert (log[0, 1] == NEVER).all()
    assert all((t[0, 1] == -1).all() for t in tokens.values())
    assert "impossible" in posterior.explain(0, 1)


def test_what_is_left_of_a_uniform_number_is_uniform_and_independent() -> None:
    weights = torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64).expand(40_000, -1)
    draws = Draws(["s"], uniform(40_000, 1))
    rows = torch.arange(40_000)
    first, second = draws("s", rows, weights), draws("s", rows, weights)
    table = torch.bincount(3 * first + second, minlength=9).reshape(3, 3) / 40_000
    wanted = weights[0][:, None] * weights[0]
    assert ((table - wanted).abs() < 5 * (wanted / 40_000).sqrt()).all()


def test_sweeps_know_which_messages_lie_on_cycles() -> None:
    graph = compile_program(ring)
    whole = sweep(graph.factors, graph.latent)
    assert whole.cut in ("b", "c", "a")
    assert ("m", "partial") in whole.cyclic
    left = [name for name in graph.latent if name != whole.cut]
    assert len(sweep(graph.factors, left).steps) < len(whole.steps)
    tree = compile_program(chain(5))
    assert sweep(tree.factors, tree.latent).cut is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"damping": 1.0}, r"damping=\.\.\.\) lies in \[0, 1\), got 1.0"),
        ({"damping": float("nan")}, "damping"),
        ({"tolerance": 0}, r"tolerance=\.\.\.\) lies in \(0, 1\), got 0"),
        ({"max_steps": 0}, "max_steps=...\\) is a whole number, at least 1, got 0"),
        ({"max_steps": 2.5}, "max_steps"),
    ],
)
def test_options_are_checked(options: dict, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        LoopyBP(**options)


def test_it_prints_itself_and_its_plan() -> None:
    engine = LoopyBP(damping=0.3)
    assert eval(repr(engine)) == engine
    here = problem(compile_program(ring))
    text = str(engine.plan(here.graph, here.tables))
    assert repr(engine) in text
    assert "at most 200 steps" in text
    assert "operations" in text
