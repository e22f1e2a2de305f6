"""The measurement of which kernel is faster from which density on."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.crossover")


@pytest.mark.parametrize("density", [0.02, 0.5, 1.0])
def test_tables_are_as_full_as_asked_and_normalised(bench: ModuleType, density: float) -> None:
    table = bench.random_table(32, density)
    assert table.density == pytest.approx(max(density, 1 / 32), abs=0.03)
    torch.testing.assert_close(table.dense().sum(-1), torch.ones(32, 32, dtype=torch.float64))


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ([(0.1, 4, 1), (0.4, 4, 4), (0.9, 4, 9)], 0.4),
        ([(0.4, 2, 4), (0.1, 4, 2)], 0.2),  # in the middle, of logarithms
        ([(0.1, 4, 1)], math.inf),
        ([(0.1, 1, 4)], 0.0),
    ],
)
def test_the_crossover_lies_where_both_take_as_long(
    bench: ModuleType, times: list[tuple[float, float, float]], wanted: float
) -> None:
    points = [bench.Point(8, density, "upward", 1, *ms, "dense") for density, *ms in times]
    assert bench.crossover(points) == pytest.approx(wanted)


def test_both_kernels_are_timed_on_one_table(bench: ModuleType) -> None:
    found = bench.measure(16, 0.1, 8, bench.Plan(0.0, 1, 1), torch.device("cpu"), torch.float32)
    assert tuple(point.question for point in found) == bench.QUESTIONS
    assert all(point.dense_ms > 0 and point.cells_ms > 0 for point in found)


def test_kernels_that_disagree_are_not_timed(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(bench.SeenCells):
        def message(self, *arguments):
            return 2 * super().message(*arguments)

    monkeypatch.setattr(bench, "SeenCells", Wrong)
    with pytest.raises(ValueError, match=r"disagree on 'upward' at K = 16, density 0\.1"):
        bench.measure(16, 0.1, 8, bench.Plan(0.0, 1, 1), torch.device("cpu"), torch.float32)


def test_the_command_writes_what_it_prints(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs" / "crossover.json"
    bench.main(["--quick", "--k", "8", "12", "--rows", "4", "--json", str(file)])
    out = json.loads(file.read_text())
    assert [(found["k"], found["question"]) for found in out["crossovers"]] == [
        (k, question) for k in (8, 12) for question in bench.QUESTIONS
    ]
    assert len(out["rows"]) == 2 * 3 * 2
    assert out["run"]["torch"] == torch.__version__
    assert "K = 12, observed: dense from a density of" in capsys.readouterr().out
