"""What a plan refuses to read: tokens that no table explains, and malformed tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlass_ppl import (
    BP,
    EngineError,
    Exact,
    Extractor,
    Table,
    UnseenToken,
    compile_program,
    joint,
    star,
)
from mlass_ppl.infer import Engine

ENGINES = [Exact(), BP(), BP(dense_limit=0), BP(draw="marginals"), Extractor()]
EACH = pytest.mark.parametrize("engine", ENGINES, ids=str)


def uniform(graph, size: int, unseen: int = 0) -> dict[str, Table]:
    """Tables whose last `unseen` tokens never occur."""
    seen = size - unseen
    row = torch.tensor([1 / seen] * seen + [0.0] * unseen, dtype=torch.float64)
    return {
        factor.name: Table.from_array(row.expand(*[size] * len(factor.parents), -1))
        for factor in graph.factors
    }


@EACH
def test_tokens_that_no_table_entry_explains(engine: Engine) -> None:
    graph = compile_program(star(2) if engine == Extractor() else joint(2))
    plan = engine.plan(graph, uniform(graph, 4, unseen=1))
    flat = {name: torch.zeros(2, 1, 4) for name in graph.sources}
    name = graph.observed[0]
    for tokens in ([0, 3], [3, 3]):
        evidence = dict.fromkeys(graph.observed, torch.tensor(tokens))
        with pytest.raises(
            UnseenToken,
            match=rf"token 3 of '{name}' never occurs .*seen: 3 of 4.* on_unseen='prior'",
        ):
            plan.posterior(flat, evidence)
    found = plan.posterior(flat, dict.fromkeys(graph.observed, torch.tensor([0, 2])))
    assert torch.isfinite(found.log_evidence).all()


@EACH
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, e: p.pop("source_2"), r"log_priors lacks 'source_2'; given are \['source_1'\]"),
        (lambda p, e: p.update(source_1=torch.zeros(2, 3, 5)), r"must be \[M, C, 4\], got \[2, 3"),
        (lambda p, e: p.update(source_1=torch.zeros(3, 4)), r"'source_1'\] must be \[M, C, 4\]"),
        (lambda p, e: p.update(source_2=torch.zeros(2, 5, 4)), r"has \[2, 5\] rows, others \[2, 3"),
        (lambda p, e: p["source_1"].fill_(float("nan")), "holds NaN or .inf"),
        (lambda p, e: p["source_2"][1, 2].fill_(float("inf")), "'source_2'.* holds NaN or .inf"),
        (lambda p, e: e.clear(), r"evidence lacks 'mixture_1'; given are \[\]"),
        (lambda p, e: e.update(mixture_1=torch.tensor([1])), "must be 2 integer tokens"),
        (lambda p, e: e.update(mixture_1=torch.tensor([0.0, 1.0])), "must be 2 integer tokens"),
        (
            lambda p, e: e.update(mixture_1=torch.tensor([0, 4])),
            r"must lie in \[0, 4\), got \[0, 4",
        ),
        (lambda p, e: e.update(mixture_1=torch.tensor([-1, 2])), r"must lie in \[0, 4\), got \[-1"),
    ],
)
def test_malformed_input_is_refused(
    engine: Engine, change: Callable[[dict, dict], object], message: str
) -> None:
    graph = compile_program(star(2))
    plan = engine.plan(graph, uniform(graph, 4))
    priors = {name: torch.zeros(2, 3, 4) for name in graph.sources}
    evidence = {name: torch.tensor([1, 2]) for name in graph.observed}
    change(priors, evidence)
    with pytest.raises(EngineError, match=message):
        plan.posterior(priors, evidence)
