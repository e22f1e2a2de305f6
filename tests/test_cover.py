"""Belief propagation between the tokens that cover most of each prior: equal to brute force between
them, and within the promised distance of that of all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import TYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlass_ppl import (
    BP,
    SMC,
    Additive,
    BackOff,
    Counts,
    EngineError,
    Feature,
    Greedy,
    MixingGraph,
    OptionError,
    Soft,
    Table,
    Token,
    balanced,
    chain,
    compile_program,
    joint,
    mix,
    source,
    star,
)
from mlass_ppl.infer.cover import CoverPlan, covering, log_dropped
from mlass_ppl.infer.covered import CoverPosterior
from mlass_ppl.infer.cut import Cutter
from mlass_ppl.testing import Problem, check_engine, random_graph, random_problem
from mlass_ppl.testing._chi_square import chi_square

KINDS = st.sampled_from([Token(), Soft(), Feature(), Token(0.5), Token(2.0), Feature(2.0)])
COVERS = st.sampled_from([0.3, 0.5, 0.9, 0.99, 0.999])
NEVER = float("-inf")


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def trees(draw: Any) -> MixingGraph:
    if draw(st.booleans()):
        return draw(random_graph(5))
    shape = draw(st.sampled_from([chain, balanced, joint, star]))
    return compile_program(shape(draw(st.integers(2, 4)), evidence=draw(KINDS)))


def posterior(here: Problem, engine: BP, dtype: torch.dtype = torch.float64) -> CoverPosterior:
    answer = here.posterior(engine, dtype)
    assert isinstance(answer, CoverPosterior)
    return answer


def peaked(graph: MixingGraph, size: int = 40, m: int = 2, c: int = 5, seed: int = 0) -> Problem:
    """Sources of some forty tokens of which a handful matter, tables of four cells a row, and what
    is heard of tuples that are drawn from the first candidate's priors."""
    g = random(seed)
    tables = {}
    for factor in graph.factors:
        shape = [size] * (1 + len(factor.parents))
        near = sum(torch.meshgrid(*[torch.arange(size)] * len(factor.parents), indexing="ij"))
        counts = torch.zeros(shape, dtype=torch.int64)
        for shift in range(4):
            weight = torch.randint(1, 10, (*near.shape, 1), generator=g)
            counts.scatter_add_(-1, ((near // 2 + 3 * shift) % size)[..., None], weight)
        tables[factor.name] = Table.from_counts(Counts.from_dense(counts))
    log = {
        name: (4 * torch.randn(m, 1, size, generator=g) + torch.randn(m, c, size, generator=g))
        .double()
        .log_softmax(-1)
        for name in graph.sources
    }
    heard = []
    for mixture in range(m):
        tokens = {n: int(p[mixture, 0].exp().multinomial(1, generator=g)) for n, p in log.items()}
        for factor in graph.factors:
            row = tables[factor.name].dense()[tuple(tokens[name] for name in factor.parents)]
            tokens[factor.child] = int(row.multinomial(1, generator=g))
        heard.append(tokens)
    given_ = {name: torch.tensor([tokens[name] for tokens in heard]) for name in graph.observed}
    return Problem(graph, tables, log, given_)


@TYPES
@settings(max_examples=30)
@given(here=random_problem(trees()))
def test_all_possible_tokens_are_exact(dtype: torch.dtype, tolerance: float, here: Problem) -> None:
    """Any tree, mixed alphabets, zeros, soft evidence, features, powers, smoothing."""
    answer = posterior(here, BP(cover=1.0), dtype)
    assert answer.exact
    assert (answer.lost == 0).all()
    wanted = here.posterior(BP(), dtype)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(answer.log_evidence, wanted.log_evidence, **close)
    torch.testing.assert_close(answer.marginals(), wanted.marginals(), **close)
    check_engine(BP(cover=1.0), here, dtype=dtype, tolerance=tolerance)


def restricted(here: Problem, cover: float) -> Problem:
    """With priors of zero for the tokens that are dropped, found one by one."""
    priors = {}
    for name, log in here.log_priors.items():
        priors[name] = torch.full_like(log, NEVER)
        for mixture, rows in enumerate(log):
            kept = set()
            for row in rows.exp():
                missing = cover * float(row.sum())
                last = float("inf")
                for token in row.argsort(descending=True).tolist():
                    if float(row[token]) == 0 or (missing <= 0 and float(row[token]) < last):
                        break
                    last = float(row[token])
                    missing -= last
                    kept.add(token)
            index = torch.tensor(sorted(kept or {0}))
            priors[name][mixture][:, index] = rows[:, index]
    return replace(here, log_priors=priors)


@settings(max_examples=80)
@given(here=random_problem(trees(), max_depth=10), cover=COVERS)
def test_evidence_within_its_bounds_and_answers_of_what_is_kept(
    here: Problem, cover: float
) -> None:
    answer, small = posterior(here, BP(cover=cover)), restricted(here, cover)
    marginals, mode, drawn = answer.marginals(), answer.mode(), answer.sample(random(0))
    tokens, told = answer.topk(3)
    first, last = here.graph.latent[0], here.graph.latent[-1]
    pairs, shared = answer.pairwise(first, last), answer.entropy(first, last)
    for row in here.rows:
        log, lost = float(answer.log_evidence[row]), answer.log_lost[row]
        every = here.brute_force(*row)
        exact = every.log_evidence
        slack = 1e-8 * max(1.0, abs(exact)) if exact > NEVER else 0.0
        above = float(torch.logaddexp(answer.log_evidence[row].double(), lost))
        assert log - slack <= exact <= above + slack
        assert (log == NEVER) == (exact == NEVER)  # no row dies of what was dropped
        # What the kept tokens cannot explain is answered by all of them.
        whole = bool((answer.log_lost[row[0]] == NEVER).all())
        truth = every if whole else small.brute_force(*row)
        assert log == truth.log_evidence or abs(log - truth.log_evidence) <= slack
        if log == NEVER:
            continue
        close = {"rtol": 0.0, "atol": 1e-6}
        for name in here.graph.latent:
            torch.testing.assert_close(marginals[name][row], truth.marginal(name), **close)
        torch.testing.assert_close(pairs[row], truth.pairwise(first, last), **close)
        assert abs(float(shared[row]) - truth.entropy(first, last)) < 1e-4
        torch.testing.assert_close(told[row], truth.topk(3), rtol=0.0, atol=1e-6)
        best = {name: int(values[row]) for name, values in mode.items()}
        assert best == {name: int(values[row][0]) for name, values in tokens.items()} or (
            abs(float(told[row][0] - told[row][1])) < 1e-6
        )
        assert abs(truth.log_probability(best) - float(truth.log_joint.max())) <= slack + 1e-9
        state = {name: int(values[row]) for name, values in drawn.items()}
        assert truth.log_probability(state) > NEVER


@pytest.mark.parametrize("kind", [None, Soft(), Feature(linear=True)], ids=repr)
def test_little_is_lost_where_priors_are_peaked(kind: Any) -> None:
    """And the more is kept, the less."""
    here = peaked(compile_program(chain(3)))
    if isinstance(kind, Soft):
        graph = here.graph.with_evidence({"mixture": kind})
        weights = 3 * torch.randn(2, 40, generator=random(1), dtype=torch.float64)
        weights.scatter_(1, here.evidence["mixture"][:, None], 5.0)  # likelihoods above 1
        here = Problem(graph, here.tables, here.log_priors, {"mixture": weights})
    if isinstance(kind, Feature):
        from linear_problems import problem

        here = problem((30, 20, 25), depth=30.0)
    wanted, last = here.posterior(BP()).log_evidence, torch.full(here.shape, NEVER).double()
    for cover in (0.5, 0.9, 0.99, 0.999):
        answer = posterior(here, BP(cover=cover))
        assert not answer.exact
        assert (answer.lost > 0).all()
        assert cover > 0.5 or all((answer.kept[name] < 20).all() for name in here.graph.sources)
        assert (answer.log_evidence <= wanted + 1e-9).all()
        assert (wanted <= torch.logaddexp(answer.log_evidence, answer.log_lost) + 1e-9).all()
        assert (answer.log_evidence >= last - 1e-9).all()
        last = answer.log_evidence
    assert (wanted - last).max() < 0.05
    if kind is None:
        first = posterior(here, BP(cover=0.5))
        assert (first.log_evidence < wanted - 1e-3).any()
        assert (posterior(here, BP(cover=0.999)).lost <= 1 - 0.999**3 + 1e-9).all()


def test_draws_follow_the_posterior_of_what_is_kept() -> None:
    here = peaked(compile_program(chain(3)), size=16, c=1).select([0], [0] * 20_000)
    answer = posterior(here, BP(cover=0.9))
    assert (answer.lost > 0).all()
    truth = restricted(here.select([0], [0]), 0.9).brute_force(0, 0)
    drawn = answer.sample(random(0))
    for pair in [("source_1", "source_2"), ("source_1", "source_3")]:
        cells = drawn[pair[0]][0] * 16 + drawn[pair[1]][0]
        assert chi_square(cells.bincount(minlength=256).reshape(16, 16), truth.pairwise(*pair)) > (
            1e-3
        )


def test_each_from_its_own_marginal() -> None:
    here = peaked(compile_program(chain(3)), size=16, c=1).select([0], [0] * 20_000)
    engine = BP(draw="marginals", cover=0.9)
    answer = posterior(here, engine)
    assert not answer.exact
    assert not posterior(here, BP(draw="marginals", cover=1.0)).exact
    drawn = answer.sample(random(0))
    for name, values in answer.marginals().items():
        assert chi_square(drawn[name][0].bincount(minlength=16), values[0, 0]) > 1e-3
    cells = drawn["source_1"][0] * 16 + drawn["source_2"][0]
    wanted = answer.pairwise("source_1", "source_2")[0, 0]
    assert chi_square(cells.bincount(minlength=256).reshape(16, 16), wanted) < 1e-3


@TYPES
def test_a_mixture_is_answered_alike_in_any_batch(dtype: torch.dtype, tolerance: float) -> None:
    here, engine = peaked(compile_program(balanced(4)), m=4), BP(cover=0.99)
    together = posterior(here, engine, dtype)
    drawn = together.sample([random(m) for m in range(4)])
    again = posterior(here, engine, dtype).sample([random(m) for m in range(4)])
    for m in (3, 0, 2):
        alone = posterior(here.select([m], range(5)), engine, dtype)
        assert torch.equal(alone.log_evidence[0], together.log_evidence[m])
        assert torch.equal(alone.log_lost[0], together.log_lost[m])
        for name, tokens in alone.sample([random(m)]).items():
            assert torch.equal(tokens[0], drawn[name][m])
            assert torch.equal(again[name][m], drawn[name][m])


def test_candidates_can_branch() -> None:
    here = peaked(compile_program(chain(3)))
    answer = posterior(here, BP(cover=0.9))
    parents, row = torch.tensor([[4, 4, 0], [1, 2, 2]]), torch.arange(2)[:, None]
    branched = answer.of(parents)
    torch.testing.assert_close(branched.log_evidence, answer.log_evidence[row, parents])
    assert torch.equal(branched.log_lost, answer.log_lost[row, parents])
    assert branched.kept["source_1"].tolist() == answer.kept["source_1"].tolist()
    for name, values in branched.marginals().items():
        torch.testing.assert_close(values, answer.marginals()[name][row, parents])
    assert "an approximation" in branched.explain(1, 2)
    assert "exact" in posterior(here, BP(cover=1.0)).explain(0, 0)


def test_what_the_kept_tokens_cannot_explain_is_answered_by_all() -> None:
    """A sum that only unlikely faces make, beside one that likely ones do."""
    die = torch.tensor([0.95, 0.04, 0.01]).log().expand(2, 1, 3)
    total = torch.zeros(3, 3, 5)
    for a, b in torch.cartesian_prod(torch.arange(3), torch.arange(3)):
        total[a, b, a + b] = 1.0
    graph = compile_program(joint(2))
    priors = dict.fromkeys(graph.sources, die)
    here = Problem(
        graph, {"mixture": Table.from_array(total)}, priors, {"mixture": torch.tensor([4, 0])}
    )
    answer, wanted = posterior(here, BP(cover=0.9)), here.posterior(BP())
    torch.testing.assert_close(answer.log_evidence[0], wanted.log_evidence[0])
    assert answer.sample(random(0))["source_1"].tolist() == [[2], [0]]
    assert answer.lost[0].item() == 0.0
    assert answer.lost[1].item() == pytest.approx(1 - 0.95**2)
    assert answer.kept["source_1"].tolist() == [3, 1]
    assert not answer.exact


def test_the_bound_holds_for_what_no_float_holds() -> None:
    """Densities of features, and priors that are far from normalised."""
    from linear_problems import problem

    here = problem((12, 9), depth=20.0)
    priors = {name: log + shift for (name, log), shift in zip(
        here.log_priors.items(), (-2500.0, 900.0), strict=True)}  # fmt: skip
    here = replace(here, log_priors=priors)
    answer, wanted = posterior(here, BP(cover=0.9)), here.posterior(BP()).log_evidence
    assert answer.log_evidence.isfinite().all()
    assert answer.log_lost.isfinite().all()
    assert (answer.log_evidence <= wanted + 1e-8).all()
    assert (wanted <= torch.logaddexp(answer.log_evidence, answer.log_lost) + 1e-8).all()
    assert (answer.lost == 0).all()  # below the smallest float, which `exact` is not fooled by
    assert not answer.exact


@pytest.mark.parametrize(
    ("cover", "wanted"),
    [(0.3, [True, False, False, True]), (0.7, [True, True, True, True]), (1.0, [True] * 4)],
)
def test_tokens_that_cover_a_prior(cover: float, wanted: list[bool]) -> None:
    p = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.1, 0.1, 0.8], [0.0, 0.0, 0.0, 0.0]])
    mask = covering(p.log(), cover)
    assert mask.tolist() == wanted
    assert covering(3 + p.log(), cover).tolist() == wanted  # need not be normalised
    assert covering(p[2:].log(), cover).tolist() == [True, False, False, False]
    dropped = log_dropped({"a": p.log(), "b": p.log()}, {"a": mask, "b": mask}).exp()
    torch.testing.assert_close(dropped, (p.sum(-1) ** 2 - (p * mask).sum(-1) ** 2).double())


@pytest.mark.parametrize("smoothing", [None, Additive(0.1), BackOff(2.0)], ids=repr)
@pytest.mark.parametrize("density", [0.02, 0.5])
@pytest.mark.parametrize("given_", [True, False])
def test_cut_tables_hold_the_cells_between_the_tokens(
    given_: bool, density: float, smoothing: Any
) -> None:
    """Few cells and many, by parents and by an observed child; nothing but zeros is left out."""
    g = random(int(100 * density))

    def program() -> Any:
        m = mix("m", *(source(n, alphabet=k) for n, k in zip("abc", (7, 9, 8), strict=True)))
        return mix("n", m, source("d", alphabet=3), evidence=Token() if given_ else Soft())

    graph = compile_program(program)
    sizes = {"a": 7, "b": 9, "c": 8, "m": 11, "d": 3, "n": 12}
    tables = {}
    for factor in graph.factors:
        shape = [sizes[name] for name in (*factor.parents, factor.child)]
        counts = torch.randint(1, 9, shape, generator=g) * (
            torch.rand(shape, generator=g) < density
        )
        counts.view(-1)[-1] += 1
        tables[factor.name] = Table.from_counts(Counts.from_dense(counts), smoothing)
    cutter = Cutter(graph, tables)
    for _ in range(10):
        share = torch.rand((), generator=g)
        allowed = {name: torch.rand(k, generator=g) < share for name, k in sizes.items()}
        for mask in allowed.values():
            mask[torch.randint(len(mask), (), generator=g)] = True
        if given_:
            allowed["n"] = torch.arange(12) == torch.randint(12, (), generator=g)
        before = {name: mask.clone() for name, mask in allowed.items()}
        kept, small = cutter.cut(allowed)
        assert all(torch.equal(allowed[name], mask) for name, mask in before.items())
        whole = _product(tables, {name: mask.nonzero()[:, 0] for name, mask in allowed.items()})
        torch.testing.assert_close(_product(small), whole)
        for name, mask in allowed.items():
            assert len(kept[name]) == 1 or mask[kept[name]].all()
        for factor in graph.factors:
            index = [kept[name] for name in (*factor.parents, factor.child)]
            grid = torch.meshgrid(*index, indexing="ij")
            inside = torch.stack([allowed[name][t] for name, t in zip(
                (*factor.parents, factor.child), grid, strict=True)]).all(0)  # fmt: skip
            found = small[factor.name].dense()
            torch.testing.assert_close(found[inside], tables[factor.name].dense()[grid][inside])
            assert (small[factor.name].keys.diff() > 0).all()


def _product(tables: dict[str, Table], tokens: dict[str, Tensor] | None = None) -> Tensor:
    """The sum of the product of both tables over all tokens, or between some."""
    first, second = tables["m"].dense(), tables["n"].dense()
    if tokens is not None:
        first = first[torch.meshgrid(*[tokens[n] for n in "abcm"], indexing="ij")]
        second = second[torch.meshgrid(*[tokens[n] for n in "mdn"], indexing="ij")]
    return torch.einsum("abcm,mdn->", first, second)


def test_what_is_left_is_small() -> None:
    here = peaked(compile_program(chain(3)), size=64)
    answer = posterior(here, BP(cover=0.9))
    for part in answer._parts:
        assert all(table.size < 64**3 / 50 for table in part.answer._plan.tables.values())
        assert all((part.kept[name].diff() > 0).all() for name in here.graph.latent)


@pytest.mark.parametrize("cover", [0.0, -0.5, 1.5, 99, float("nan"), True, "0.9"])
def test_a_share_that_is_none_is_refused(cover: Any) -> None:
    with pytest.raises(OptionError, match=r"BP\(cover=...\) is the share .* above 0 and at most 1"):
        BP(cover=cover)


def test_what_the_engine_says_of_itself() -> None:
    graph = compile_program(chain(3))
    for engine in (BP(), BP(cover=0.99), BP(draw="marginals", dense_limit=0, cover=1)):
        assert eval(repr(engine)) == engine
    assert "cover" not in repr(BP())
    assert BP().is_exact(graph)
    assert not BP(cover=1.0).is_exact(graph)
    here = peaked(graph)
    plan = BP(cover=0.99).plan(graph, here.tables)
    assert isinstance(plan, CoverPlan)
    for words in ("cover=0.99", "lower bound", "0.99 of", "mix_2"):
        assert words in str(plan)
    assert plan.cost.operations == BP().plan(graph, here.tables).cost.operations
    with pytest.raises(EngineError, match="cycle"):
        BP(cover=0.9).plan(compile_program(_diamond), here.tables)
    with pytest.raises(OptionError, match="at least 1"):
        posterior(here, BP(cover=0.9)).topk(0)
    with pytest.raises(EngineError, match="no latent site"):
        posterior(here, BP(cover=0.9)).pairwise("source_1", "mixture")


def _diamond() -> Any:
    a, b, c = source("a"), source("b"), source("c")
    return mix("all", mix("ab", a, b), mix("bc", b, c))


@pytest.mark.parametrize("search", [SMC(5), Greedy()], ids=repr)
def test_searches_take_its_steps(search: Any) -> None:
    """Tokens and weights as with all tokens where nothing is dropped."""
    here = peaked(compile_program(chain(3)), c=search.candidates)
    weights = torch.zeros(here.shape, dtype=torch.float64)
    steps = [
        search.step(here.posterior(engine), [random(m) for m in range(2)], weights)
        for engine in (BP(), BP(cover=1.0), BP(cover=0.999))
    ]
    torch.testing.assert_close(steps[0].weights, steps[1].weights)
    for name in here.graph.sources:
        assert torch.equal(steps[0].tokens[name], steps[1].tokens[name])
        assert (steps[2].tokens[name] >= 0).all()
