"""The cells of notebooks, and their exercises solved without Jupyter."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))

Cell = dict[str, Any]


def notebook(number: int) -> Path:
    """The notebook whose name begins with that number."""
    (path,) = (path for path in NOTEBOOKS if path.name.startswith(f"{number:02d}_"))
    return path


def cells_of(path: Path, kind: str = "code") -> list[Cell]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def tags(cell: Cell) -> list[str]:
    return cell["metadata"].get("tags", [])


def tagged(path: Path, tag: str) -> str:
    """The source of the one cell with that tag."""
    (cell,) = (cell for cell in cells_of(path) if tag in tags(cell))
    return "".join(cell["source"])


def run(source: str, namespace: dict[str, Any], name: str) -> None:
    exec(compile(ast.parse(source), name, "exec", dont_inherit=True), namespace)


def run_exercise(path: Path, solution: str | None = None) -> None:
    """The imports, a solution (or what stands in the exercise's cell), and the check."""
    namespace: dict[str, Any] = {}
    run("".join(cells_of(path)[0]["source"]), namespace, path.name)
    run(tagged(path, "exercise") if solution is None else solution, namespace, "solution")
    run(tagged(path, "check"), namespace, path.name)
