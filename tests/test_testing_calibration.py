"""Simulation-based calibration (Talts et al., 2018): engines' samplers are flat on three programs,
and wrong samplers are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from engines import ENGINES, SAMPLERS
from torch import Tensor

from mlass_ppl import (
    BackOff,
    Counts,
    Feature,
    GaussianTable,
    OptionError,
    Soft,
    Table,
    Token,
    chain,
    compile_program,
    joint,
    mix,
    source,
)
from mlass_ppl.infer import Engine
from mlass_ppl.testing import rank_histogram

Parts = tuple[Any, dict[str, Any], dict[str, Tensor]]


def dice() -> Parts:
    """Two dice, one of them loaded, and their sum."""
    total = torch.arange(6)[:, None] + torch.arange(6)
    table = Table.from_array(torch.nn.functional.one_hot(total, 11))
    loaded = torch.tensor([1.0, 1, 1, 1, 1, 5], dtype=torch.float64) / 10
    fair = torch.full((6,), 1 / 6, dtype=torch.float64)
    return joint(2), {"mixture": table}, {"source_1": fair.log(), "source_2": loaded.log()}


def backed_off() -> Parts:
    """A chain of three with counted tables, most of whose pairs were never seen."""
    random = torch.Generator().manual_seed(0)
    graph = compile_program(chain(3))
    tables, sizes = {}, {"source_1": 4, "source_2": 3, "source_3": 5, "mix_2": 4, "mixture": 6}
    for factor in graph.factors:
        shape = [sizes[name] for name in (*factor.parents, factor.child)]
        counts = torch.randint(0, 40, shape, generator=random)
        counts *= torch.rand(shape[:-1], generator=random)[..., None] < 0.4
        tables[factor.name] = Table.from_counts(Counts.from_dense(counts), BackOff(3.0))
    priors = {
        name: torch.randn(sizes[name], generator=random, dtype=torch.float64).log_softmax(0)
        for name in graph.sources
    }
    return graph, tables, priors


def stereo() -> Parts:
    """Two channels of two sources: a token and a feature that leans to the other side."""

    def program() -> Any:
        a, b = source("a"), source("b")
        right = mix("right", a, b, weights=(0.2, 0.8), evidence=Feature())
        return mix("left", a, b, weights=(0.7, 0.3)), right

    level = torch.arange(4, dtype=torch.float64)
    heard = (0.7 * level[:, None] + 0.3 * level).round().long()
    noisy = 0.7 * torch.nn.functional.one_hot(heard, 4) + 0.3 / 4
    mean = (0.2 * level[:, None] + 0.8 * level)[..., None] * torch.tensor([1.0, -0.5])
    std = torch.full_like(mean, 1.5)
    tables = {"left": Table.from_array(noisy), "right": GaussianTable.from_arrays(mean, std)}
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    return program, tables, {"a": prior, "b": prior.flip(0)}


def in_sum(tokens: Mapping[str, Tensor]) -> Tensor:
    """A number that all sites share in: of dice, it is given."""
    return sum(place * tokens[name] for place, name in enumerate(sorted(tokens), 1))


def last(tokens: Mapping[str, Tensor]) -> Tensor:
    return tokens[max(tokens)]


PROGRAMS = pytest.mark.parametrize("program", [dice, backed_off, stereo])
STATISTICS = pytest.mark.parametrize("statistic", [in_sum, last])


PAIRS = [
    pytest.param(program, ENGINES[name], id=f"{program.__name__}-{name}")
    for program in (dice, backed_off, stereo)
    for name in (("exact", "auto") if program is stereo else SAMPLERS)  # stereo is a cycle
]


@pytest.mark.parametrize(("program", "engine"), PAIRS)
@STATISTICS
def test_ranks_are_flat(
    statistic: Callable[..., Tensor], program: Callable[[], Parts], engine: Engine
) -> None:
    graph, tables, priors = program()
    found = rank_histogram(engine, graph, tables, priors, statistic)
    assert int(found.counts.sum()) == 2000
    assert found.p_value > 1e-3, str(found)


# --- samplers that are wrong ----------------------------------------------------------------------


def test_products_of_marginals_are_not_calibrated() -> None:
    """Of two dice and their sum, each die alone is right; together they do not make the sum."""
    graph, tables, priors = dice()

    def total(tokens: Mapping[str, Tensor]) -> Tensor:
        return tokens["source_1"] + tokens["source_2"]

    wrong = ENGINES["marginals"]
    assert rank_histogram(wrong, graph, tables, priors, last).p_value > 1e-3
    assert rank_histogram(wrong, graph, tables, priors, total).p_value < 1e-9
    assert rank_histogram(ENGINES["dense"], graph, tables, priors, total).p_value > 1e-3


class Flattened(Engine):
    """Reads a prior that is not the one that made the tokens."""

    def plan(self, graph: Any, tables: Any) -> Any:
        plan = ENGINES["exact"].plan(graph, tables)
        asked = plan.posterior
        plan.posterior = lambda priors, evidence: asked(  # type: ignore[method-assign]
            {name: (0.5 * log).log_softmax(-1) for name, log in priors.items()}, evidence
        )
        return plan


class Delayed(Engine):
    """Answers each mixture with the evidence of the one before it."""

    def plan(self, graph: Any, tables: Any) -> Any:
        plan = ENGINES["exact"].plan(graph, tables)
        asked = plan.posterior
        plan.posterior = lambda priors, evidence: asked(  # type: ignore[method-assign]
            priors, {name: given.roll(1, 0) for name, given in evidence.items()}
        )
        return plan


@PROGRAMS
def test_a_wrong_prior_is_not_calibrated(program: Callable[[], Parts]) -> None:
    found = rank_histogram(Flattened(), *program(), last)
    assert found.p_value < 1e-6, str(found)


def test_the_evidence_of_others_is_not_calibrated() -> None:
    found = rank_histogram(Delayed(), *dice(), last)
    assert found.p_value < 1e-6, str(found)


def test_a_histogram_shows_itself() -> None:
    found = rank_histogram(ENGINES["exact"], *dice(), last, simulations=64, draws=3)
    assert found.counts.shape == (4,)
    assert str(found).endswith(f"(p = {found.p_value:.2g})")
    again = rank_histogram(ENGINES["exact"], *dice(), last, simulations=64, draws=3)
    other = rank_histogram(ENGINES["exact"], *dice(), last, simulations=64, draws=3, seed=1)
    assert torch.equal(again.counts, found.counts)
    assert not torch.equal(other.counts, found.counts)


@pytest.mark.parametrize("kind", [Soft(), Token(0.5)])
def test_what_no_program_simulates_is_refused(kind: Any) -> None:
    graph = compile_program(joint(2)).with_evidence({"mixture": kind})
    _, tables, priors = dice()
    with pytest.raises(OptionError, match=r"'mixture' is observed by .*calibrate with Token\(\)"):
        rank_histogram(ENGINES["exact"], graph, tables, priors, last)
