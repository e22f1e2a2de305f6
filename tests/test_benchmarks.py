"""The benchmark's contenders answer alike, and a wrong answer stops it before the clock starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"seconds": 0.0, "least": 1, "most": 1}


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("candidates", [1, 5])
def test_all_contenders_agree(n: int, candidates: int) -> None:
    pytest.importorskip("pgmpy")
    from benchmarks.compare import TASKS, compare
    from benchmarks.contenders import CONTENDERS
    from benchmarks.measure import Plan
    from benchmarks.problem import Case

    rows = list(compare(Case(n, 6, candidates), tuple(CONTENDERS), Plan(**QUICK)))
    assert {(row.task, row.contender) for row in rows} == {
        (task, name) for task in TASKS for name in CONTENDERS
    }
    assert all(row.median_ms > 0 and row.repeats == 1 for row in rows)


def test_a_wrong_answer_is_told() -> None:
    from benchmarks.compare import Disagreement, check
    from benchmarks.contenders import CONTENDERS, Contender
    from benchmarks.naive import NaiveChain
    from benchmarks.problem import Case, Problem

    problem = Problem.make(Case(3, 6, 4))
    right = CONTENDERS["bp"](problem)

    class Deaf(NaiveChain):
        def sample(self) -> dict[str, torch.Tensor]:
            return {name: torch.randint(6, (4,)) for name in self.problem.sources}

    class Biased(NaiveChain):
        def marginals(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            evidence, found = super().marginals()
            return evidence, {name: value * 1.001 for name, value in found.items()}

    class Louder(NaiveChain):
        def marginals(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            evidence, found = super().marginals()
            return evidence + 0.01, found

    def with_it(contender: Contender) -> dict[str, Contender]:
        return {"bp": right, "other": contender}

    check(problem, with_it(NaiveChain(problem)))
    with pytest.raises(Disagreement, match="marginals"):
        check(problem, with_it(Biased(problem)))
    with pytest.raises(Disagreement, match="log evidence"):
        check(problem, with_it(Louder(problem)))
    torch.manual_seed(0)
    problem.tables["mixture"] = sparse(problem.tables["mixture"])
    deaf = {"bp": CONTENDERS["bp"](problem), "other": Deaf(problem)}
    with pytest.raises(Disagreement, match="rule out"):
        check(problem, deaf)


def sparse(table: object) -> object:
    """Each pair of parents with one child alone."""
    from mlass_ppl import Table

    first = table.dense().argmax(-1)  # type: ignore[attr-defined]
    return Table.from_array(torch.nn.functional.one_hot(first, 6).double())


def test_report_holds_ratios_and_rows() -> None:
    from benchmarks.compare import compare
    from benchmarks.measure import Plan
    from benchmarks.problem import Case
    from benchmarks.report import markdown, to_json

    rows = list(compare(Case(2, 6, 1), ("bp", "naive"), Plan(**QUICK)))
    content = json.loads(to_json(rows, {"quick": True}))
    ratio = content["ratios"]["sample"]["n=2 K=6 C=1"]["naive"]
    times = {r["contender"]: r["median_ms"] for r in content["rows"] if r["task"] == "sample"}
    assert ratio == pytest.approx(times["naive"] / times["bp"], abs=1e-3)
    assert "| n | K | C | bp ms | naive / bp |" in markdown(rows, ("bp", "naive"))


def test_calls_are_made_in_turn() -> None:
    from benchmarks.measure import Plan, times

    made: list[str] = []
    calls = {name: (lambda name=name: made.append(name)) for name in "ab"}
    found = times(calls, Plan(seconds=9.0, least=1, most=3))
    assert "".join(made) == "ab" + "ababab"
    assert [len(value) for value in found.values()] == [3, 3]
