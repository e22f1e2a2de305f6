"""The notebooks are stored without outputs, and their exercises can be solved.

`make notebooks` runs them from top to bottom; here are their exercises alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from notebook_cells import NOTEBOOKS, cells_of, notebook, run_exercise, tags

EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


@EACH
def test_notebook_is_stored_clean(path: Path) -> None:
    stored = json.loads(path.read_text("utf-8"))
    for cell in cells_of(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    assert stored["metadata"]["kernelspec"]["name"] == "python3"
    names = [cell["id"] for cell in stored["cells"]]
    assert len(set(names)) == len(names)
    assert stored["cells"][0]["cell_type"] == "markdown"


@EACH
def test_notebook_ends_with_an_exercise(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, last = cells_of(path)
    assert "check" in tags(last)
    run_exercise(path)
    assert capsys.readouterr().out == "Not solved yet.\n"


@EACH
def test_links_lead_somewhere(path: Path) -> None:
    for cell in cells_of(path, "markdown"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", "".join(cell["source"])):
            assert target.startswith("https://") or (path.parent / target).exists(), target


DICE = """
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
    {"red": [1 / 6] * 6, "blue": [1 / 6] * 6, "green": loaded},
    {"total": 14 - 3},
)
"""

LARGER = """
def two_dice():
    return mlass.mix("larger", mlass.source("red"), mlass.source("blue"))

table = torch.zeros(6, 6, 6)
for red, blue in itertools.product(range(6), repeat=2):
    table[red, blue, max(red, blue)] = 1

fair = dict.fromkeys(["red", "blue"], [1 / 6] * 6)
answer = mlass.posterior(two_dice, {"larger": table}, fair, {"larger": 5})
red, blue = (p[0, 0] for p in answer.marginals().values())
share = 1 - torch.einsum("a,b,ab->", red, blue, table[..., 5].double()).item()
"""

THIRD = """
def third(p, T, o):
    beta = torch.einsum("ac,c->a", T[2][..., o], p[3])
    alpha = torch.einsum("abm,a,b->m", T[0], p[0], p[1])
    z = p[2] * torch.einsum("azm,a,m->z", T[1], alpha, beta)
    return z / z.sum()
"""

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

SOLVED = {
    1: (DICE, "Right: green shows 6 with probability 0.714."),
    2: (LARGER, "Right: 20.7% of the pairs drawn from marginals have no 6 in them."),
    3: (THIRD, "Right: the marginal of source 3 is that of BP."),
    4: (BAND, "Right: blue shows 6 with probability 0.833. The graph is a tree"),
}


@pytest.mark.parametrize("number", SOLVED)
def test_exercise_can_be_solved(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    solution, said = SOLVED[number]
    run_exercise(notebook(number), solution)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "right", "wrong", "said"),
    [
        (1, "14 - 3", "14 - 2", "p.sum = 14. is .* starts at 3"),
        (1, "[0.1] * 5 + [0.5]", "[0.5] + [0.1] * 5", "green's prior"),
        (1, '"pair"', '"both"', "site called pair"),
        (1, '"green"', '"azure"', "red, blue and green, not"),
        (2, "max(", "min(", "smaller face"),
        (2, '"larger": 5', '"larger": 4', "11 of 36"),
        (2, "larger", "louder", "to be called larger"),
        (2, "share = 1 - ", "share = ", "share of the possible"),
        (2, ".item()", ".item() / 2", "neither die shows a 6"),
        (3, "T[0], p[0], p[1]", "T[0], 0 * p[0] + 1, p[1]", r"p.0. is missing"),
        (3, "T[0], p[0], p[1]", "T[0], p[0], 0 * p[1] + 1", r"p.1. is missing"),
        (3, '"abm,a,b->m", T[0], p[0], p[1]', '"abm->m", T[0]', r"both p.0. and p.1. are"),
        (3, "p[3]", "0 * p[3] + 1", r"p.3. is missing"),
        (3, "z = p[2] * ", "z = ", r"its own prior p.2. is missing"),
        (3, '"azm,a,m->z"', '"zam,a,m->z"', r"axes of T.1. are swapped"),
        (3, '"azm,a,m->z", T[1], alpha, beta', '"az,a->z", T[1][..., o], alpha', "mix_3 is latent"),
        (3, "z = p[2] * torch", "z = p[2]; torch", "nothing was heard yet"),
        (3, "z / z.sum()", "z", "divide by the sum"),
        (3, "z / z.sum()", "z.tolist()", "return a tensor"),
        (3, "z / z.sum()", "z[:2]", "one axis of 5 tokens"),
        (3, "z / z.sum()", "z.sqrt()", "not yet: multiply"),
        (4, "9 - 2", "9 - 3", "p.left = 9, right = 8."),
        (4, "[0.5] + [0.1] * 5", "[0.1] * 5 + [0.5]", "p.left = 9, right = 8."),
        (4, '"blue"', '"azure"', "source called blue"),
        (4, '"left"', '"ear"', "left and right must both be observed"),
    ],
)
def test_wrong_solutions_are_told_apart(number: int, right: str, wrong: str, said: str) -> None:
    solution, _ = SOLVED[number]
    assert right in solution
    with pytest.raises(AssertionError, match=said):
        run_exercise(notebook(number), solution.replace(right, wrong))
