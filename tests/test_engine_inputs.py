"""What a plan refuses to read: tokens that no table explains, and malformed tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engines import ENGINES, each

from mlass_ppl import (
    EngineError,
    Extractor,
    Feature,
    GaussianTable,
    Soft,
    Table,
    TableError,
    Token,
    UnseenToken,
    chain,
    compile_program,
    joint,
    posterior,
    star,
)
from mlass_ppl.infer import Engine


def uniform(graph, size: int, unseen: int = 0) -> dict[str, Table]:
    """Tables whose last `unseen` tokens never occur."""
    seen = size - unseen
    row = torch.tensor([1 / seen] * seen + [0.0] * unseen, dtype=torch.float64)
    return {
        factor.name: Table.from_array(row.expand(*[size] * len(factor.parents), -1))
        for factor in graph.factors
    }


@each()
def test_tokens_that_no_table_entry_explains(engine: Engine) -> None:
    graph = compile_program(star(2) if engine == ENGINES["extractor"] else joint(2))
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


@each()
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, e: p.pop("source_2"), r"log_priors lacks 'source_2'; given are \['source_1'\]"),
        (lambda p, e: p.update(source_1=torch.zeros(2, 3, 5)), r"must be \[M, C, 4\], got \[2, 3"),
        (lambda p, e: p.update(source_1=torch.zeros(3, 4)), r"'source_1'\] must be \[M, C, 4\]"),
        (lambda p, e: p.update(source_2=torch.zeros(2, 5, 4)), r"has \[2, 5\] rows, others \[2, 3"),
        (lambda p, e: p["source_1"].fill_(float("nan")), "holds NaN or .inf"),
        (lambda p, e: p["source_2"][1, 2].fill_(float("inf")), "'source_2'.* holds NaN or .inf"),
        (lambda p, e: p["source_2"][1, 2, 3].fill_(float("nan")), "'source_2'.* holds NaN or .inf"),
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


@each()
@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (
            Soft(),
            [1, 2],
            r"must be log weights over its tokens, .*floats \[2, 4\]; got torch.int64",
        ),
        (Soft(), [[0.0] * 3] * 2, r"floats \[2, 4\]; got torch.float32 \[2, 3\]"),
        (Soft(), [[0.0] * 4] * 3, r"floats \[2, 4\]; got torch.float32 \[3, 4\]"),
        (Soft(), [[float("nan")] * 4] * 2, "'mixture_1'.* holds NaN or .inf"),
        (Soft(), [[float("inf"), 0, 0, 0]] * 2, "'mixture_1'.* holds NaN or .inf"),
        (Feature(), [1, 2], r"must be a feature, .*floats \[2, 3\]; got torch.int64 \[2\]"),
        (Feature(), [[0.0] * 4] * 2, r"floats \[2, 3\]; got torch.float32 \[2, 4\]"),
        (Feature(), [[float("nan")] * 3] * 2, "'mixture_1'.* (finite|NaN)"),
        (Feature(), [[float("-inf")] * 3] * 2, "'mixture_1'.* must be finite"),
        (Token(), [[0.0] * 4] * 2, r"2 integer tokens, one a mixture.*evidence=Soft\(\)"),
    ],
)
def test_evidence_of_another_kind_is_refused(
    engine: Engine, kind: Soft | Feature | Token, given: list, message: str
) -> None:
    """Also of an engine that reads features by itself."""
    graph = compile_program(star(2, evidence=kind))
    tables = uniform(graph, 4)
    if isinstance(kind, Feature):
        mean = torch.randn(4, 3)
        tables = dict.fromkeys(tables, GaussianTable.from_arrays(mean, torch.ones(4, 3)))
    priors = {name: torch.zeros(2, 3, 4) for name in graph.sources}
    good = {Soft(): torch.zeros(2, 4), Feature(): torch.zeros(2, 3), Token(): torch.tensor([1, 2])}
    plan = engine.plan(graph, tables)
    plan.posterior(priors, dict.fromkeys(graph.observed, good[kind]))
    evidence = {"mixture_1": torch.tensor(given), "mixture_2": good[kind]}
    with pytest.raises(EngineError, match=message):
        plan.posterior(priors, evidence)


@each()
def test_tables_of_another_kind_are_refused(engine: Engine) -> None:
    graph = compile_program(star(2))
    gaussian = GaussianTable.from_arrays(torch.zeros(4, 2), torch.ones(4, 2))
    with pytest.raises(TableError, match="is Gaussian, but its site has a token: declare"):
        engine.plan(graph, dict.fromkeys(graph.observed, gaussian))
    features = compile_program(star(2, evidence=Feature()))
    with pytest.raises(
        TableError, match=r"must be a GaussianTable, as from .* got a Table of tokens"
    ):
        engine.plan(features, uniform(graph, 4))
    with pytest.raises(TableError, match=r"has 3 axes .*; expected 2: source_1, and last"):
        engine.plan(graph, dict.fromkeys(graph.observed, Table.from_array(torch.ones(2, 2, 1))))
    with pytest.raises(TableError, match=r"needs a table for 'mixture_1'"):
        engine.plan(graph, {})


def test_a_toy_prior_of_another_length_is_told_in_its_own_words() -> None:
    table = torch.full((3, 3, 2), 0.5)
    message = r"priors\['source_2'\] has 2 probabilities, but in the tables .* has 3 tokens"
    with pytest.raises(EngineError, match=message):
        posterior(chain(2), {"mixture": table}, {"source_1": [1, 0, 0], "source_2": [1, 0]},
                  {"mixture": 0})  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2,)])
def test_a_feature_of_another_width_is_refused_by_extractors_of_any_graph(shape) -> None:
    graph = compile_program(joint(2, evidence=Feature()))
    engine = Extractor()
    tables = {
        factor.name: GaussianTable.from_arrays(torch.zeros(2, 2), torch.ones(2, 2))
        for factor in engine.factors(graph)
    }
    flat = {name: torch.zeros(2, 1, 2) for name in graph.sources}
    with pytest.raises(EngineError, match=r"must be a feature, Feature\(\): floats \[2, 2\]"):
        engine.plan(graph, tables).posterior(flat, {"mixture": torch.zeros(shape)})
