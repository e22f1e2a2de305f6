"""Variable elimination: orders, conformance where lists are cut small, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlass_ppl import (
    BackOff,
    Counts,
    Exact,
    Feature,
    GaussianTable,
    MixingGraph,
    Soft,
    Table,
    balanced,
    chain,
    compile_program,
    joint,
    mix,
    source,
)
from mlass_ppl.infer.elimination import passes
from mlass_ppl.infer.elimination.order import buckets, elimination_order
from mlass_ppl.testing import random_graph, random_problem

GRAPHS = st.one_of(random_graph(), random_graph(tree=False))


def wheel(n: int):
    """A hub that is mixed with each source of a rim, and the rim closed."""

    def program():
        hub = source("hub")
        rim = [source(f"rim_{i}") for i in range(n)]
        spokes = [mix(f"spoke_{i}", hub, part) for i, part in enumerate(rim)]
        arcs = [mix(f"arc_{i}", rim[i], rim[(i + 1) % n]) for i in range(n)]
        return *spokes, *arcs

    return compile_program(program)


def random_tables(graph: MixingGraph, size: int, seed: int = 0) -> dict[str, Table]:
    random = torch.Generator().manual_seed(seed)
    out = {}
    for factor in graph.factors:
        shape = [size] * len(factor.scope)
        counts = torch.randint(0, 4, shape, generator=random)
        out[factor.name] = Table.from_counts(Counts.from_dense(counts))
    return out


# --- the order of elimination -------------------------------------------------------------------


@settings(max_examples=100)
@given(GRAPHS, st.integers(1, 5))
def test_buckets_use_everything_once(graph, seed):
    """Every site and factor has one bucket, every message one reader, and nothing is forgotten."""
    random = torch.Generator().manual_seed(seed)
    sizes = {name: int(torch.randint(1, 9, (), generator=random)) for name in graph.latent}
    steps = buckets(graph, sizes)
    assert sorted(step.site for step in steps) == sorted(graph.latent)
    used = [name for step in steps for name in step.factors]
    read = [child for step in steps for child in step.children]
    latent = set(graph.latent)
    assert sorted(used) == sorted(f.name for f in graph.factors if latent & set(f.tokens))
    assert sorted(read) == [number for number, step in enumerate(steps) if step.separator]
    gone: set[str] = set()
    factors = {factor.name: factor for factor in graph.factors}
    for number, step in enumerate(steps):
        gone.add(step.site)
        assert not gone & set(step.separator), "a message over a site that was summed out"
        scopes = [latent & set(factors[name].tokens) for name in step.factors]
        scopes += [set(steps[child].separator) for child in step.children]
        assert all(step.site in scope for scope in scopes)
        assert all(child < number for child in step.children)
        assert set(step.clique) == {step.site}.union(*scopes)


@pytest.mark.parametrize(
    ("graph", "width"),
    [
        *((compile_program(chain(n)), 3) for n in (2, 5, 12)),
        *((compile_program(balanced(n)), 3) for n in (4, 16)),
        (compile_program(joint(5)), 5),
        (wheel(3), 4),
        (wheel(8), 4),
        (wheel(20), 4),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_cliques_are_as_small_as_they_can_be(graph, width):
    """Treewidth plus one: 3 on chains, where no site is in a larger factor, 4 on wheels. The hub
    goes late: first, it would tie the whole rim together."""
    sizes = dict.fromkeys(graph.latent, 10)
    assert max(len(step.clique) for step in buckets(graph, sizes)) <= width


def test_small_alphabets_steer_the_order():
    """On a square a - b - c - d either pair of opposite corners can be left: the smaller one."""
    scopes = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]
    for big in (("a", "c"), ("b", "d")):
        sizes = {name: 100 if name in big else 2 for name in "abcd"}
        assert set(elimination_order(("a", "b", "c", "d"), scopes, sizes)[:2]) == set(big)


@pytest.mark.slow
def test_the_order_is_the_same_in_every_process():
    """It must not follow the order of a set of strings, which changes with the hash seed."""
    code = (
        "from mlass_ppl.infer.elimination.order import elimination_order as order; import random;"
        "random.seed(0); names = tuple(f's{i}' for i in range(30));"
        "scopes = [tuple(random.sample(names, 3)) for _ in range(40)];"
        "print(order(names, scopes, {}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


# --- conformance --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "columns", "keep"),
    [(1, 1, 0), (64, 2, 0), (512, 64, 1 << 10)],
    ids=["row by row", "few", "some kept"],
)
@settings(max_examples=15)
@given(problem=random_problem(GRAPHS), seed=st.integers(0, 99))
def test_answers_do_not_depend_on_how_rows_are_cut(step, columns, keep, problem, seed):
    """Lists in pieces of a few states, candidates in ones and twos, and nothing kept between the
    steps, so that messages are made again whenever they are asked for."""

    def ask() -> list[dict[str, torch.Tensor]]:
        answer = problem.posterior(Exact())
        drawn = answer.sample(torch.Generator().manual_seed(seed))
        return [{"": answer.log_evidence}, answer.marginals(), drawn, answer.mode()]

    whole = ask()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "_STEP_BYTES", {"cpu": step})
        patch.setattr(passes, "_COLUMNS", columns)
        patch.setattr(passes, "_KEEP_BYTES", keep)
        for found, wanted in zip(ask(), whole, strict=True):
            for name, values in wanted.items():
                torch.testing.assert_close(found[name], values)


@pytest.mark.parametrize("kind", ["linear", "sum"])
def test_wide_batches_take_other_paths_to_the_same_numbers(kind):
    """From 16 candidates on sums are made in another way; bit for bit they are those of a few."""
    graph = wheel(4)
    plan = Exact().plan(graph, random_tables(graph, 5))
    random = torch.Generator().manual_seed(1)
    evidence = {name: torch.randint(5, (3,), generator=random) for name in graph.observed}
    priors = {
        name: torch.randn(3, 40, 5, generator=random).double().log_softmax(-1)
        for name in graph.sources
    }
    few = {name: log[:, 7:10] for name, log in priors.items()}
    many = plan.run(plan.position(priors, evidence), kind)
    some = plan.run(plan.position(few, evidence), kind)
    torch.testing.assert_close(
        many.log_evidence.reshape(3, 40)[:, 7:10], some.log_evidence.reshape(3, 3)
    )
    found, wanted = many.marginals(), some.marginals()
    for name, values in wanted.items():
        part = found[name].reshape(3, 40, 5)[:, 7:10]
        torch.testing.assert_close(part, values.reshape(3, 3, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_a_mixture_alone_has_the_same_bits(dtype):
    """Whatever else is in the batch: other observations, deeper priors, impossible rows."""
    graph = compile_program(chain(3))
    plan = Exact().plan(graph, random_tables(graph, 6))
    random = torch.Generator().manual_seed(2)
    evidence = {"mixture": torch.arange(6)}
    depth = torch.tensor([1.0, 30, 400, 1, 5, 1e4])[:, None, None]
    priors = {
        name: (depth * torch.rand(6, 20, 6, generator=random)).log_softmax(-1).to(dtype)
        for name in graph.sources
    }
    priors["source_2"][3, ::2] = float("-inf")
    numbers = torch.rand(6, 20, len(graph.latent), generator=random, dtype=torch.float64)
    whole = plan.posterior(priors, evidence)
    for m in range(6):
        alone = plan.posterior(
            {name: log[m : m + 1] for name, log in priors.items()}, {"mixture": torch.tensor([m])}
        )
        assert torch.equal(alone.log_evidence[0], whole.log_evidence[m])
        drawn = alone.sample(numbers[m : m + 1])
        for name, tokens in whole.sample(numbers).items():
            assert torch.equal(drawn[name][0], tokens[m])
        for name, values in whole.marginals().items():
            assert torch.equal(alone.marginals()[name][0], values[m])


def test_no_mixtures_are_no_answers():
    graph = compile_program(joint(2))
    plan = Exact().plan(graph, random_tables(graph, 3))
    priors = {name: torch.zeros(0, 4, 3) for name in graph.sources}
    found = plan.posterior(priors, {"mixture": torch.zeros(0, dtype=torch.int64)})
    assert found.log_evidence.shape == (0, 4)
    assert found.marginals()["source_1"].shape == (0, 4, 3)
    assert found.sample(torch.Generator())["source_1"].shape == (0, 4)


def test_priors_that_carry_gradients_are_answered():
    graph = compile_program(joint(2))
    priors = {name: torch.zeros(1, 20, 3, requires_grad=True) for name in graph.sources}
    found = (
        Exact()
        .plan(graph, random_tables(graph, 3))
        .posterior(priors, {"mixture": torch.tensor([1])})
    )
    assert not found.log_evidence.requires_grad
    assert torch.isfinite(found.log_evidence).all()


# --- what it costs ------------------------------------------------------------------------------


def test_draws_are_two_level():
    """A draw weighs the tokens of one site given what is drawn already, never all joint states."""
    graph = compile_program(joint(3))
    plan = Exact().plan(graph, random_tables(graph, 8))
    priors = {name: torch.zeros(2, 5, 8) for name in graph.sources}
    run = plan.run(plan.position(priors, {"mixture": torch.tensor([1, 2])}), "linear")
    widths = []

    def first(weights: torch.Tensor) -> torch.Tensor:
        widths.append(weights.shape)
        return (weights > 0).int().argmax(1)

    run.descend(first)
    assert widths == [(10, 8)] * 3


def test_lists_that_no_observation_changes_are_made_once():
    graph = compile_program(chain(3))
    plan = Exact().plan(graph, random_tables(graph, 6))
    cpu = torch.device("cpu")
    first, second = ([plan._cliques.states(n, (t,), cpu) for n in range(4)] for t in (1, 2))
    same = [a is b for a, b in zip(first, second, strict=True)]
    assert [step.site for step in plan.buckets] == ["source_1", "source_2", "source_3", "mix_2"]
    assert same == [True, True, False, False]


def test_lists_are_kept_within_the_limit():
    """And made again beyond it, with the same answers."""
    graph = compile_program(joint(2))
    counts = Counts.from_dense(torch.arange(12**3).reshape(12, 12, 12) % 5)
    tables = {"mixture": Table.from_counts(counts, BackOff(1.0))}
    roomy, tight = (Exact(memory_limit=size).plan(graph, tables) for size in (4e9, 8e3))
    priors = {name: torch.zeros(12, 3, 12) for name in graph.sources}
    evidence = {"mixture": torch.arange(12)}
    answers = [plan.posterior(priors, evidence) for plan in (roomy, tight)]
    assert torch.equal(*(answer.log_evidence for answer in answers))
    assert torch.equal(*(answer.marginals()["source_1"] for answer in answers))
    kept = [sum(x.bytes for x in plan._cliques._kept.values()) for plan in (roomy, tight)]
    assert kept[1] <= 8e3 < kept[0]


def test_the_frequent_observation_is_one_that_can_be():
    """Each ear's most frequent token is impossible beside the other's."""

    def stereo():
        a = source("a")
        return mix("left", a), mix("right", a)

    left = torch.eye(4)[[0, 0, 0, 1, 2, 2]]
    right = torch.eye(4)[[1, 2, 3, 0, 0, 0]]
    tables = {"left": Table.from_array(left), "right": Table.from_array(right)}
    plan = Exact().plan(compile_program(stereo), tables)
    assert plan._cliques.frequent == (0, 1)
    assert plan.cost.states == 1


def test_a_graph_of_all_kinds_is_planned_and_printed():
    def program():
        a, b, c = source("a"), source("b"), source("c")
        return (
            mix("left", a, b),
            mix("right", b, c, evidence=Soft()),
            mix("tone", a, c, evidence=Feature()),
            mix("echo", b, evidence=Feature()),
        )

    graph = compile_program(program)
    counts = Counts.from_dense(
        torch.randint(0, 3, (5, 5, 5), generator=torch.Generator().manual_seed(0))
    )
    tables = dict.fromkeys(("left", "right"), Table.from_counts(counts, BackOff(1.0)))
    tables["tone"] = GaussianTable.from_arrays(torch.zeros(5, 5, 2), torch.ones(5, 5, 2))
    tables["echo"] = GaussianTable.from_arrays(torch.zeros(5, 2), torch.ones(5, 2))
    text = str(Exact().plan(graph, tables))
    for words in ("p(tone | a, c)", "p(echo | b)", "p(right | b, c)", "tokens, left="):
        assert words in text


def test_a_source_that_no_table_mentions_is_known_by_its_prior():
    def program():
        return mix("m", source("a"), hidden=[source("b")])

    graph = compile_program(program)
    plan = Exact().plan(graph, {"m": Table.from_array(torch.eye(3))})
    assert "the alphabet of b is not known before its prior" in str(plan)
    priors = {"a": torch.zeros(1, 1, 3), "b": torch.randn(1, 1, 7).log_softmax(-1)}
    found = plan.posterior(priors, {"m": torch.tensor([2])})
    torch.testing.assert_close(found.marginals()["b"], priors["b"].exp())
    assert "b         -" in str(plan)
    assert "its prior alone" in str(plan)
