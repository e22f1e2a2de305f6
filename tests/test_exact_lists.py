"""The lists that variable elimination works on: joins, slices of tables, reductions, the report."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlass_ppl import Additive, BackOff, Counts, Factor, GaussianTable, Table
from mlass_ppl.infer.elimination.cells import ListedCells, SmoothedCells, cells_of
from mlass_ppl.infer.elimination.segments import Segments
from mlass_ppl.infer.elimination.support import Support, group, join, join_all, matches, sort_keys
from mlass_ppl.infer.report import Row, number, report, size

NEVER = float("-inf")
SIZES = {"a": 2, "b": 3, "c": 4, "d": 2}


def anything(*_: object) -> None:
    """Allows any size."""


@st.composite
def supports(draw, name: str = "") -> Support:
    """A random list over some of four sites; `name`: an input that each state has a place in."""
    sites = tuple(draw(st.permutations("abcd"))[: draw(st.integers(0, 3))])
    states = list(product(*(range(SIZES[site]) for site in sites)))
    chosen = draw(st.lists(st.sampled_from(states), unique=True, max_size=8))
    index = torch.tensor(chosen, dtype=torch.int64).reshape(len(chosen), len(sites)).T
    log = torch.arange(len(chosen), dtype=torch.float64) + 1
    return Support(sites, index, log, {name: torch.arange(len(chosen)) + 10} if name else {})


def as_dict(support: Support) -> dict[frozenset[tuple[str, int]], float]:
    out = {}
    for column, log in zip(support.index.T.tolist(), support.log.tolist(), strict=True):
        state = frozenset(zip(support.sites, column, strict=True))
        assert state not in out, "a state is listed twice"
        out[state] = log
    return out


def joined(left: Support, right: Support) -> dict[frozenset[tuple[str, int]], float]:
    out = {}
    for (one, a), (other, b) in product(as_dict(left).items(), as_dict(right).items()):
        state = dict(one)
        if all(state.get(site, token) == token for site, token in other):
            out[one | other] = a + b
    return out


# --- joins --------------------------------------------------------------------------------------


@given(supports("left"), supports("right"))
def test_a_natural_join(left, right):
    told = []
    out = join(left, right, SIZES, lambda states, sites: told.append((states, sites)))
    assert as_dict(out) == joined(left, right)
    assert told == [(out.states, out.sites)]
    for part, name in ((left, "left"), (right, "right")):
        columns = out.index[[out.sites.index(site) for site in part.sites]]
        assert torch.equal(part.index[:, out.places[name] - 10], columns)
    agree = matches(left, right, SIZES)
    mates = {frozenset((s, t) for s, t in state if s in left.sites) for state in as_dict(out)}
    assert {state for state, ok in zip(as_dict(left), agree.tolist(), strict=True) if ok} == mates


@given(st.lists(supports(), min_size=1, max_size=4))
def test_the_order_of_joins_does_not_matter(parts):
    out = join_all(parts, SIZES)
    wanted = parts[0]
    for part in parts[1:]:
        wanted = join(wanted, part, SIZES)
    assert as_dict(out) == pytest.approx(as_dict(wanted))


def test_a_join_is_refused_before_it_is_made():
    def refuse(states: float, sites: tuple[str, ...]) -> None:
        raise MemoryError(f"{states:.0e} of {sites}")

    left, right = Support.every("a", 10**5), Support.every("b", 10**5)
    with pytest.raises(MemoryError, match=r"1e\+10 of \('a', 'b'\)"):
        join(left, right, {}, refuse)


def test_keys_of_many_large_alphabets_do_not_overflow():
    big = 2**31
    columns = torch.tensor([[1, 0, 1, big - 1], [5, 5, 4, 0], [big - 1, 7, 7, 0]])
    keys = sort_keys(columns, [big, big, big])
    rows = columns.T.tolist()
    assert keys.argsort().tolist() == sorted(range(4), key=rows.__getitem__)


@given(supports(), st.integers(0, 3))
def test_states_are_grouped_by_separator_and_then_by_the_site(support, count):
    by = support.sites[:count]
    order, lengths = group(support, by, SIZES)
    rest = [site for site in support.sites if site not in by]
    rows = [support.sites.index(site) for site in (*by, *rest)]
    sorted_rows = support.index[rows][:, order].T.tolist()
    assert sorted_rows == sorted(sorted_rows)
    runs = [tuple(row[: len(by)]) for row in sorted_rows]
    assert lengths.tolist() == [runs.count(run) for run in dict.fromkeys(runs)]


# --- cells of one factor ------------------------------------------------------------------------


FACTOR = Factor("m", ("a", "b"), "m")


def table(smoothing: Additive | BackOff | None, power: float = 1.0) -> Table:
    random = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 9, (3, 4, 5), generator=random)
    counts = counts * (torch.rand(3, 4, 5, generator=random) < 0.4)
    counts[1] = 0  # a parent that was never seen
    counts[..., 3] = 0  # nor was this child, so that backing off leaves it impossible
    return Table.from_counts(Counts.from_dense(counts), smoothing).raised(power)


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("smoothing", [None, Additive(0.1), BackOff(2.0)], ids=str)
@pytest.mark.parametrize("known", [(), ("m",), ("a",), ("a", "m"), ("a", "b", "m")], ids=str)
def test_cells_are_the_positive_entries_that_agree(known, smoothing, power):
    here = table(smoothing, power)
    cells = cells_of(FACTOR, here, known, anything)
    sliced = here.background is not None and "m" in known
    assert isinstance(cells, SmoothedCells if sliced else ListedCells)
    assert set(cells.given) == set(known)
    dense = here.dense()
    for tokens in product(*(range({"a": 3, "b": 4, "m": 5}[name]) for name in known)):
        evidence = dict(zip(known, tokens, strict=True))
        found = cells.where(evidence)
        wanted = dense[tuple(evidence.get(name, slice(None)) for name in ("a", "b", "m"))]
        array = torch.zeros_like(wanted)
        free = tuple(name for name in ("a", "b", "m") if name not in known)
        assert found.sites == free
        array.view(-1)[sort_keys(found.index, wanted.shape)] = found.log.exp()
        torch.testing.assert_close(array, wanted)
        assert found.states == int((wanted > 0).sum())


def test_cells_of_a_likelihood_say_where_its_values_are():
    possible = torch.tensor([[True, False, True], [True, True, False]])
    gaussian = GaussianTable.from_arrays(torch.zeros(2, 3, 1), torch.ones(2, 3, 1), possible)
    factor = Factor("x", ("a", "b"), "x", feature=True)
    free = cells_of(factor, gaussian, (), anything).where({})
    assert free.index.tolist() == [[0, 0, 1, 1], [0, 2, 0, 1]]
    assert free.places["x"].tolist() == [0, 2, 3, 4]
    given_b = cells_of(factor, gaussian, ("b",), anything)
    assert given_b.where({"b": 0}).places["x"].tolist() == [0, 3]
    assert given_b.where({"b": 2}).index.tolist() == [[0]]


def test_cells_are_refused_before_they_are_listed():
    def refuse(states: float, sites: tuple[str, ...]) -> None:
        raise MemoryError(f"{states} of {sites}")

    empty = Table.from_counts(Counts.empty((9, 9, 9)), Additive(1.0))
    with pytest.raises(MemoryError, match=r"729 of \('a', 'b', 'm'\)"):
        cells_of(FACTOR, empty, (), refuse)
    sliced = cells_of(FACTOR, empty, ("m",), refuse)
    with pytest.raises(MemoryError, match=r"81 of \('a', 'b'\)"):
        sliced.where({"m": 1})


# --- reductions ---------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 5), max_size=6),
    width=st.sampled_from([1, 3, 16, 40]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_segments_are_reduced_one_by_one(lengths, width, dtype, seed):
    """Narrow or wide, empty ones among them, all -inf or 1000 nats apart."""
    random = torch.Generator().manual_seed(seed)
    values = 1000 * torch.randn(sum(lengths), width, generator=random, dtype=dtype)
    values[torch.rand(values.shape, generator=random) < 0.3] = NEVER
    segments = Segments(torch.tensor(lengths, dtype=torch.int64))
    nothing = torch.full((width,), NEVER, dtype=dtype)
    parts = [*(values.split(lengths) if lengths else []), nothing[None][:0]]
    sums = torch.stack([part.logsumexp(0) if len(part) else nothing for part in parts])
    tops = torch.stack([part.amax(0) if len(part) else nothing for part in parts])
    torch.testing.assert_close(segments.log_sum(values), sums)
    torch.testing.assert_close(segments.max(values), tops)
    plain = torch.stack([part.exp().sum(0) for part in (values / 1000).split(lengths)] or [nothing])
    if lengths:
        torch.testing.assert_close(segments.sum((values / 1000).exp())[:-1], plain)
        place = torch.randint(4, (sum(lengths),), generator=random)
        weights = torch.rand(sum(lengths), generator=random, dtype=dtype)
        few = torch.rand(4, width, generator=random, dtype=dtype)
        wanted = segments.sum(weights[:, None] * few[place])
        torch.testing.assert_close(segments.matrix(weights, place, 4) @ few, wanted)


# --- the report ---------------------------------------------------------------------------------


def test_a_report_is_aligned():
    rows = [
        Row("1", ("a", "b"), ("a", "b", "c"), 12, 1e7, 24, 2e6, 12, "p(c | a, b)"),
        Row("2", ("c",), ("c",), 1234, 5678, 0, 0, 1500, ""),
    ]
    assert (
        report("title", rows, ["a note"])
        == """\
title
  step  sums out  leaves  states  if all  operations    holds     needs  how
     1  a, b      c           12   1.0e7          24     2 MB  12 bytes  p(c | a, b)
     2  c         -        1,234   5,678           0  0 bytes    1.5 kB
        total              1,246   1.0e7          24     2 MB   1.51 kB
  a note"""
    )
    assert "total" not in report("title", rows[:1])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999999, "999,999"), (1e6, "1.0e6"), (1.26e12, "1.3e12")],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12 bytes"), (1500, "1.5 kB"), (2e7, "20 MB"), (4e9, "4 GB")]
)
def test_sizes(value, text):
    assert size(value) == text
