"""The notebooks run from top to bottom, hold no outputs, and their exercises can be solved.

Code cells run in one namespace without Jupyter; what a cell ends in is shown as Jupyter would.
Cells tagged `needs-bundle` are left out while the shipped bundle is not there.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from mlass_ppl import list_bundles

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DICE = ROOT / "notebooks" / "01_dice_and_digits.ipynb"
GRAPHS = ROOT / "notebooks" / "02_custom_graphs.ipynb"
HAS_BUNDLE = any(folder.name == "mnist" for folder in list_bundles())

Cell = dict[str, Any]


def cells_of(path: Path, kind: str = "code") -> list[Cell]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def tags(cell: Cell) -> list[str]:
    return cell["metadata"].get("tags", [])


def run(source: str, namespace: dict[str, Any], name: str) -> None:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec", dont_inherit=True), namespace)
    if last is None:
        return
    shown = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), namespace)
    for display in ("_repr_png_", "_repr_svg_"):
        if shown is not None and hasattr(shown, display):
            assert getattr(shown, display)()


def run_all(
    path: Path, namespace: dict[str, Any], without: set[str], solution: str | None = None
) -> None:
    for place, cell in enumerate(cells_of(path)):
        name = f"{path.name}, code cell {place}"
        if without & set(tags(cell)):
            print(f"{name}: left out (without {sorted(without)})")
            continue
        solved = solution is not None and "exercise" in tags(cell)
        run(str(solution) if solved else "".join(cell["source"]), namespace, name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    run_all(path, {"__name__": "__main__"}, set() if HAS_BUNDLE else {"needs-bundle"})
    assert capsys.readouterr().out.rstrip().endswith("Not solved yet.")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_stored_clean(path: Path) -> None:
    for cell in cells_of(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    assert cells_of(path, "markdown")


SOLUTION = """
def three_dice():
    red, blue = mlass.source("red"), mlass.source("blue")
    return mlass.mix("total", mlass.mix("pair", red, blue), mlass.source("green"))

def adding(left, right):
    table = torch.zeros(left, right, left + right - 1)
    for a, b in itertools.product(range(left), range(right)):
        table[a, b, a + b] = 1
    return table

loaded = [0.1] * 5 + [0.5]
answer = mlass.posterior(
    three_dice,
    {"pair": adding(6, 6), "total": adding(11, 6)},
    {"red": fair, "blue": fair, "green": loaded},
    {"total": 14 - 3},
)
"""


def test_exercise_of_the_dice_can_be_solved(capsys: pytest.CaptureFixture[str]) -> None:
    run_all(DICE, {}, {"needs-bundle"}, SOLUTION)
    assert "Right: green shows 6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("14 - 3", "14 - 2", "p.sum = 14."),
        ("[0.1] * 5 + [0.5]", "[0.5] + [0.1] * 5", "p.sum = 14.|green"),
        ('"pair"', '"both"', "site called pair"),
    ],
)
def test_wrong_solutions_are_told_apart(right: str, wrong: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        run_all(DICE, {}, {"needs-bundle"}, SOLUTION.replace(right, wrong))


def run_exercise(path: Path, solution: str) -> None:
    """The imports, a solution that needs nothing else, and the cell that checks it."""
    imports, *cells = cells_of(path)
    namespace: dict[str, Any] = {}
    run("".join(imports["source"]), namespace, path.name)
    run(solution, namespace, "solution")
    for cell in cells:
        if "check" in tags(cell):
            run("".join(cell["source"]), namespace, path.name)


BAND = """
def band():
    red, blue, green = (mlass.source(name) for name in ("red", "blue", "green"))
    left = mlass.mix("left", red, blue)
    return left, mlass.mix("right", blue, green, weights=(1 / 3, 2 / 3))

sums, twice = torch.zeros(6, 6, 11), torch.zeros(6, 6, 16)
for a, b in itertools.product(range(6), repeat=2):
    sums[a, b, a + b] = 1
    twice[a, b, a + 2 * b] = 1

fair, loaded = [1 / 6] * 6, [0.5] + [0.1] * 5
answer = mlass.posterior(
    band,
    {"left": sums, "right": twice},
    {"red": fair, "blue": fair, "green": loaded},
    {"left": 9 - 2, "right": 8 - 3},
)
"""


def test_exercise_of_the_graphs_can_be_solved(capsys: pytest.CaptureFixture[str]) -> None:
    run_exercise(GRAPHS, BAND)
    said = capsys.readouterr().out
    assert "Right: blue shows 6 with probability 0.833. The graph is a tree" in said


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("9 - 2", "9 - 3", "p.left = 9, right = 8."),
        ("[0.5] + [0.1] * 5", "[0.1] * 5 + [0.5]", "p.left = 9, right = 8."),
        ('"blue"', '"azure"', "source called blue"),
        ('"left"', '"ear"', "left and right must both be observed"),
    ],
)
def test_wrong_solutions_of_the_graphs_are_told_apart(right: str, wrong: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        run_exercise(GRAPHS, BAND.replace(right, wrong))
