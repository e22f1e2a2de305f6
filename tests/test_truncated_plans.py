"""What `Truncated` refuses, what its plan says, and where `Auto` takes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_problems import WIDTH, linear, problem

from mlass_ppl import (
    BP,
    Auto,
    EngineError,
    Exact,
    Feature,
    LoopyBP,
    OptionError,
    Soft,
    TableError,
    Token,
    Truncated,
    chain,
    compile_program,
    joint,
    mix,
    source,
    star,
)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (chain(3, evidence=Feature()), "'mix_2' is a partial mixture, which is not observed"),
        (joint(3, evidence=Token()), r"'mixture' is observed as Token\(power=1.0\)"),
        (joint(3, evidence=Soft()), r"'mixture' is observed as Soft\(temperature=1.0\)"),
    ],
    ids=["chain", "token", "soft"],
)
def test_other_graphs_are_refused(program: Any, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        Truncated().plan(compile_program(program), {})
    assert "joint(n, evidence=Feature(linear=True))" in str(caught.value)
    assert "Use BP() or Auto()." in str(caught.value)


def test_inputs_are_checked() -> None:
    for keep in (0, 2.5, "many"):
        with pytest.raises(OptionError, match="whole number"):
            Truncated(keep=keep)  # type: ignore[arg-type]
    here = problem((4, 4))
    with pytest.raises(TableError, match="needs a table for 'mixture'"):
        Truncated().plan(here.graph, {})
    plan = Truncated().plan(here.graph, here.tables)
    for feature in (torch.zeros(2, WIDTH + 1), torch.full((2, WIDTH), float("nan"))):
        with pytest.raises(EngineError, match=r"evidence\['mixture'\]"):
            plan.posterior(here.log_priors, {"mixture": feature})
    with pytest.raises(OptionError, match="at least 1"):
        here.posterior(Truncated()).topk(0)
    with pytest.raises(EngineError, match="no latent site"):
        here.posterior(Truncated()).pairwise("source_1", "mixture")


def test_the_plan_says_what_it_will_do() -> None:
    plan = Truncated(keep=50).plan(problem((10, 9, 8)).graph, {"mixture": linear((10, 9, 8))})
    assert str(plan) == (
        "Truncated(keep=50) on joint(3): pairs of short lists, a lower bound\n"
        "    step  sums out                      leaves              states  if all  operations  "
        "    holds      needs  how\n"
        "  list 1  -                             source_1, source_2      50      90          50  "
        "800 bytes     1.2 kB  the 50 most promising of each mixture\n"
        "  list 2  -                             source_3                 8       8           8  "
        " 64 bytes  192 bytes  every one\n"
        "   pairs  source_1, source_2, source_3  -                      400     720         400  "
        "   6.4 kB    0 bytes  p(mixture | source_1, source_2, source_3)\n"
        "          total                                                458     818         458  "
        "  7.26 kB    1.39 kB\n"
        "  lists and densities of pairs are held for each mixture, all candidates together\n"
        "  memory: 2.59 kB held, 9.38 kB for one candidate of one mixture; "
        "64 x 64 take 12.6 MB together"
    )
    assert str(plan.cost) == "400 operations, 400 states a token"
    assert "exact" in str(Truncated().plan(plan.graph, plan.tables)).splitlines()[0]
    assert eval(repr(plan.engine)) == Truncated(keep=50)


def test_auto_takes_it_where_everything_is_too_much() -> None:
    three = compile_program(joint(3, evidence=Feature()))
    choice = Auto().select(three)
    assert choice.engine == Truncated()
    assert choice.reason == (
        "Truncated(), since 'joint(3)' has 3 sources directly under features, of whose 1.7e7 joint "
        "states it takes the promising ones."
    )
    assert not Auto().is_exact(three)
    small = problem((6, 6, 6))
    assert Auto().select(three, small.tables).engine == BP()
    assert small.posterior(Auto()).exact
    assert Auto().select(three, {"mixture": linear((256, 256, 256))}).engine == Truncated()
    assert Auto().select(compile_program(joint(2, evidence=Feature()))).engine == BP()
    assert Auto().select(compile_program(joint(3))).engine == BP()
    assert Auto().is_exact(compile_program(star(3, evidence=Feature())))
    assert isinstance(Auto().select(compile_program(chain(3, evidence=Feature()))).engine, BP)


def test_auto_takes_it_where_a_cycle_is_too_much() -> None:
    def twice() -> Any:
        a, b = source("a", alphabet=40), source("b", alphabet=40)
        return mix("l", a, b, evidence=Feature()), mix("r", a, b, evidence=Feature())

    graph = compile_program(twice)
    assert isinstance(Auto().select(graph).engine, Exact)
    choice = Auto(operations_limit=5).select(graph)
    assert choice.engine == Truncated()
    assert "and Exact() would need" in choice.reason
    tokens = graph.with_evidence({"l": Token()})
    assert Auto(operations_limit=5).select(tokens).engine == LoopyBP()


def test_describe_counts_its_operations() -> None:
    text = compile_program(joint(3, evidence=Feature())).describe(alphabet=256)
    assert "  Truncated  1.3e5 operations, 1.3e5 states a token (the promising tuples)" in text
    assert "Truncated" not in compile_program(joint(3)).describe(alphabet=256)
