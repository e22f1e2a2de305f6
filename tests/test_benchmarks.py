"""The benchmark's contenders answer alike, and a wrong answer stops it before the clock starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"seconds": 0.0, "least": 1, "most": 1}


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def problem(n: int, k: int, candidates: int, children: float = 3.0) -> Any:
    from benchmarks.problem import Case
    from benchmarks.synthetic import made

    return made(Case(n, k, candidates), children)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("candidates", [1, 5])
def test_all_contenders_agree(n: int, candidates: int) -> None:
    pytest.importorskip("pgmpy")
    from benchmarks.compare import TASKS, compare
    from benchmarks.contenders import CONTENDERS
    from benchmarks.measure import Plan

    rows = list(compare(problem(n, 6, candidates), tuple(CONTENDERS), Plan(**QUICK)))
    assert {(row.task, row.contender) for row in rows} == {
        (task, name) for task in TASKS for name in CONTENDERS
    }
    left_out = {row.contender for row in rows if row.left_out}
    assert left_out == ({"naive_joint"} if n == 4 else set())
    timed = [row for row in rows if not row.left_out]
    assert all(row.median_ms > 0 and row.repeats == 1 and row.ratio > 0 for row in timed)
    one_by_one = {row.asked for row in timed if row.contender.startswith("pgmpy")}
    assert one_by_one == {min(candidates, 4)}  # and their time is scaled up to all candidates


@pytest.mark.parametrize("name", ["naive_dense", "naive_joint", "opt_einsum", "pgmpy", "pyro"])
def test_contenders_draw_from_the_posterior(name: str) -> None:
    """Samples of every contender against its marginals, which agree with the engines'."""
    pytest.importorskip("pgmpy")
    from benchmarks.contenders import CONTENDERS
    from benchmarks.problem import Limits

    rows = 2000
    same = problem(3, 4, 1)
    repeated = {site: log.expand(1, rows, 4) for site, log in same.log_priors.items()}
    case = type(same.case)(3, 4, rows)
    many = type(same)(case, same.graph, same.tables, repeated, same.token)
    contender = CONTENDERS[name](many, Limits(rows=rows))
    drawn, (_, marginals) = contender.sample(), contender.marginals()
    for source in same.sources:
        share = torch.bincount(drawn[source], minlength=4) / rows
        assert torch.allclose(share.double(), marginals[source][0].double(), atol=0.06)


def test_a_wrong_answer_is_told() -> None:
    from benchmarks.compare import Disagreement, check
    from benchmarks.contenders import CONTENDERS, Contender
    from benchmarks.naive import NaiveChain
    from benchmarks.problem import Limits

    given = problem(3, 6, 4, children=1.0)
    right = CONTENDERS["bp"](given, Limits())

    class Deaf(NaiveChain):
        def sample(self) -> dict[str, torch.Tensor]:
            return {name: torch.arange(4) for name in self.problem.sources}

    class Biased(NaiveChain):
        def marginals(self) -> Any:
            evidence, found = super().marginals()
            return evidence, {name: value * 1.001 for name, value in found.items()}

    class Louder(NaiveChain):
        def marginals(self) -> Any:
            evidence, found = super().marginals()
            return evidence + torch.tensor([0.0, 0.0, 0.0, 0.01]), found

    def with_it(kind: type[NaiveChain]) -> Mapping[str, Contender]:
        return {"bp": right, "other": kind(given, Limits())}

    check(given, with_it(NaiveChain))
    with pytest.raises(Disagreement, match="marginals"):
        check(given, with_it(Biased))
    with pytest.raises(Disagreement, match="log evidence"):
        check(given, with_it(Louder))
    with pytest.raises(Disagreement, match="rule out"):
        check(given, with_it(Deaf))


def test_likelihood_of_a_sample_is_that_of_dense_tables() -> None:
    from benchmarks.compare import likelihood

    given = problem(4, 5, 7)
    drawn = {name: torch.randint(5, (7,)) for name in given.sources}
    mixed = torch.nn.functional.one_hot(drawn[given.sources[0]], 5).double()
    for table, source in zip(given.chained, given.sources[1:], strict=True):
        mixed = torch.einsum("ca,cam->cm", mixed, table.dense()[:, drawn[source]].movedim(0, 1))
    assert torch.allclose(likelihood(given, drawn), mixed[:, given.token])


def test_made_tables_are_to_the_measure_of_real_ones() -> None:
    from benchmarks.synthetic import chain_table

    table = chain_table(128)
    dense = table.dense()
    pairs = (dense > 0).sum(-1).flatten()
    assert pairs.float().mean() == pytest.approx(6.1, abs=0.3)
    assert (pairs > 0).float().mean() == pytest.approx(0.95, abs=0.01)
    total = dense.sum(-1)[(dense > 0).any(-1)]
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)
    assert (table.keys.diff() > 0).all()
    log = problem(2, 128, 8).log_priors["source_1"][0]
    assert -(log.exp() * log).sum(-1).mean() == pytest.approx(1.1, abs=0.15)


@pytest.mark.parametrize("n", [2, 3])
def test_nothing_dense_is_made_of_a_large_alphabet(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """K^3 floats would be 512 MB here: nobody asks for them, and who would need them is left out
    with the reason."""
    from benchmarks.compare import compare
    from benchmarks.contenders import CONTENDERS
    from benchmarks.measure import Plan
    from benchmarks.problem import Limits
    from mlass_ppl import Table

    def refuse(self: Table, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        raise AssertionError("a table of a large alphabet was made dense")

    monkeypatch.setattr(Table, "dense", refuse)
    given, limits = problem(n, 512, 2), Limits(bytes=3e8)
    rows = list(compare(given, tuple(CONTENDERS), Plan(**QUICK), limits, ("sample",)))
    assert {row.contender for row in rows if not row.left_out} >= {"bp"}
    reasons = {row.contender: row.left_out for row in rows if row.left_out}
    assert "GB, more than 0.3 GB" in reasons["naive_dense"]
    assert {"naive_joint", "opt_einsum", "pyro"} <= reasons.keys()


def test_memory_is_of_a_process_of_its_own() -> None:
    from benchmarks.memory import peak

    row = peak(32, 3, 4)
    assert row["ms"] > 0
    assert 50 < row["tables_mb"] <= row["peak_mb"] < 2000
    assert "n=1" in peak(32, 1, 4)["left_out"]  # what ended it is told


def test_calls_are_made_in_turn() -> None:
    from benchmarks.measure import Plan, times

    made: list[str] = []
    calls = {name: (lambda name=name: made.append(name)) for name in "ab"}
    found = times(calls, Plan(seconds=9.0, least=1, most=3))
    assert "".join(made) == "ab" + "ababab"
    assert [len(value) for value in found.values()] == [3, 3]
    slow = times(calls, Plan(seconds=0.0, least=5, most=3, slow=0.0))
    assert [len(value) for value in slow.values()] == [1, 1]  # the first call is the measurement


def test_report_holds_ratios_rows_and_reasons() -> None:
    from benchmarks.compare import Row
    from benchmarks.report import HEADLINE, markdown, to_json

    case = {key: value for key, value in HEADLINE.items() if key != "task"}
    rows = [
        Row(case, "sample", "bp", median_ms=2.0, asked=256, repeats=3, ratio=1.0, peak_mb=1.0),
        Row(case, "sample", "pgmpy", median_ms=9.0, asked=4, repeats=3, ratio=4.5, peak_mb=None),
        Row(case, "sample", "pyro", left_out="dense: 9 GB, more than 3 GB"),
        Row({**case, "n": 2}, "sample", "bp", median_ms=1.0, asked=256, repeats=3, ratio=1.0),
        Row({**case, "n": 2}, "sample", "pgmpy", median_ms=7.0, asked=256, repeats=3, ratio=7.0),
    ]
    listed = [row.to_json() for row in rows] + [{"part": "skipped", "what": "gpu", "reason": "x"}]
    content = json.loads(to_json(listed, {"quick": True}))
    assert content["ratios"] == {"pgmpy": 4.5}  # of the headline case alone
    assert content["run"] == {"quick": True}
    assert content["rows"][0]["part"] == "token"
    assert content["rows"][0]["candidates"] == 256
    text = markdown(listed)
    assert "| tables | n | K | C | bp ms | exact / bp |" in text
    assert "| mnist | 3 | 256 | 256 | 2 |" in text
    assert "4.5*" in text  # its time is scaled up
    assert "`pyro` left out: dense: 9 GB, more than 3 GB: n=3 K=256 C=256" in text
    assert "**Not run**" in text
