"""README and docs hold: their Python runs, prints what they show, and their links lead somewhere.

The Python blocks of a file run in order in one namespace. A text block directly below a Python
block is what it prints (white space is folded, `...` stands for anything). `<!-- not run -->` on
the line above leaves a block out. A block that loads the shipped bundle, or uses a name that such a
block made, is left out while the bundle is not there.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import mlass_ppl
from mlass_ppl import list_bundles

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"])
REFERENCE = [
    f"mlass_ppl.{name}"
    for name in (
        "audio", "bridges", "codecs", "data", "data.audio", "draw", "errors", "evaluate",
        "evaluate.audio", "importing", "infer", "priors", "refine", "search", "songs", "tables",
        "testing", "train",
    )
]  # fmt: skip
HAS_BUNDLE = any(folder.name == "mnist" for folder in list_bundles())

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ ]*$", re.M | re.S)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A Python block. line: of its first statement. output: the text block below it, if any."""

    line: int
    code: str
    runs: bool
    output: str | None


def blocks_in(text: str) -> list[Block]:
    fences = list(_FENCE.finditer(text))
    found = []
    for place, fence in enumerate(fences):
        if fence[1] != "python":
            continue
        above = text[: fence.start()].rstrip().rpartition("\n")[2]
        below = fences[place + 1] if place + 1 < len(fences) else None
        follows = below is not None and not text[fence.end() : below.start()].strip()
        output = below[2] if below is not None and follows and below[1] == "text" else None
        line = text.count("\n", 0, fence.start(2)) + 1
        found.append(Block(line, fence[2], above.strip() != "<!-- not run -->", output))
    return found


def names_in(code: str) -> tuple[set[str], set[str]]:
    """Names that a block takes from blocks above it, and names that it makes."""
    takes, makes = set(), set()
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    for node in sorted(names, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node.ctx, ast.Store):
            makes.add(node.id)
        elif node.id not in makes:
            takes.add(node.id)
    return takes, makes


def imports_in(code: str) -> str:
    lines = [n for n in ast.parse(code).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    return ast.unparse(ast.Module(list(lines), []))


def needs_bundle(code: str) -> bool:
    return 'load("mnist")' in code


def folded(text: str) -> str:
    return " ".join(text.split())


def matches(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part.strip()) for part in folded(shown).split("..."))
    return re.fullmatch(pattern.replace(".*", r"\s*.*\s*"), folded(printed), re.S) is not None


def run_page(text: str, name: str, has_bundle: bool) -> list[str]:
    """Run a page's blocks. Returns a line on each that was left out; raises AssertionError."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    missing: set[str] = set()
    left_out = []
    for block in blocks_in(text):
        if not block.runs:
            continue
        takes, makes = names_in(block.code)
        if not has_bundle and (needs_bundle(block.code) or takes & missing):
            exec(imports_in(block.code), namespace)
            missing |= makes
            left_out.append(f"{name}, line {block.line}: left out, models/mnist is missing")
            continue
        missing -= makes
        printed = io.StringIO()
        source = "\n" * (block.line - 1) + block.code  # tracebacks then name the page's line
        with contextlib.redirect_stdout(printed):
            exec(compile(source, name, "exec", dont_inherit=True), namespace)
        if block.output is not None:
            assert matches(block.output, printed.getvalue()), (
                f"{name}, line {block.line} prints\n{printed.getvalue()}\n"
                f"but the page shows\n{block.output}"
            )
    return left_out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # pages write files
    monkeypatch.setenv("MPLBACKEND", "agg")
    for line in run_page(page.read_text("utf-8"), page.name, HAS_BUNDLE):
        print(line)


def headings(text: str) -> set[str]:
    """Anchors of a page's headings, by GitHub's rule."""
    prose = _FENCE.sub("", text)
    lines = re.findall(r"^#+ +(.+?) *$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def broken_links(page: Path) -> list[str]:
    broken = []
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text("utf-8")))
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        lost = anchor and target.suffix == ".md" and target.is_file()
        if not target.exists() or (lost and anchor not in headings(target.read_text("utf-8"))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_of_a_page_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_every_page_of_the_docs_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    named = {(index.parent / link.partition("#")[0]).resolve()
             for link in _LINK.findall(index.read_text("utf-8"))}  # fmt: skip
    assert {page for page in index.parent.rglob("*.md") if page != index} <= named


def test_every_page_of_the_docs_is_in_the_navigation_of_the_site() -> None:
    named = re.findall(r"^ +- (?:.+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    own = [name for name in named if not name.startswith("repository/")]
    docs = ROOT / "docs"
    assert sorted(own) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
    outside = set(named) - set(own)
    assert all((ROOT / name.removeprefix("repository/")).is_file() for name in outside)


def described() -> set[str]:
    """Names that the reference describes, `mlass_ppl.infer.BP`."""
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    return set(re.findall(r"^::: (\S+)$", pages, re.M))


def test_every_public_name_is_in_the_reference() -> None:
    short = {name.rpartition(".")[2] for name in described()}
    for module in (mlass_ppl, *map(import_module, REFERENCE)):
        public = {name for name, thing in vars(module).items()
                  if not name.startswith("_") and inspect.isroutine(thing) | inspect.isclass(thing)
                  and thing.__module__.startswith("mlass_ppl")}  # fmt: skip
        assert public <= short, f"{module.__name__}: add them to a page of docs/api/"


def test_every_name_in_the_reference_is_there_and_has_a_docstring() -> None:
    for name in described():
        module, _, own = name.rpartition(".")
        thing = getattr(import_module(module), own)
        if inspect.isroutine(thing) or inspect.isclass(thing):
            assert inspect.getdoc(thing), name


def test_every_error_has_a_page_that_shows_it() -> None:
    for name, error in vars(mlass_ppl.errors).items():
        if inspect.isclass(error) and name != "MlassError":
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
            page = ROOT / "docs/errors" / f"{words}.md"
            assert re.search(rf"^{name}: ", page.read_text("utf-8"), re.M), page


def test_the_markers_of_the_results_table_stand_once_in_order() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.count("<!-- results -->") == text.count("<!-- /results -->") == 1
    assert text.index("<!-- results -->") < text.index("<!-- /results -->")


# The checks themselves can fail:

_PAGE = """
```python
x = 2
print(f"{x} and {3 * x}")
```

```text
2 and
6
```

<!-- not run -->
```python
raise SystemExit
```

```python
bundle = load("mnist")
```

```python
y = bundle.codec
```

```python
x += 1
```
"""


def test_a_page_runs_in_order_and_leaves_out_what_needs_the_bundle() -> None:
    assert [block.runs for block in blocks_in(_PAGE)] == [True, False, True, True, True]
    left_out = run_page(_PAGE, "page", has_bundle=False)
    assert [line.partition(":")[0] for line in left_out] == ["page, line 18", "page, line 22"]


def test_an_error_in_a_page_is_no_pass() -> None:
    with pytest.raises(NameError):
        run_page(_PAGE, "page", has_bundle=True)  # `load` is not defined there
    with pytest.raises(AssertionError, match="the page shows"):
        run_page(_PAGE.replace("\n6\n", "\n7\n"), "page", has_bundle=False)


def test_shown_output_may_leave_parts_out() -> None:
    assert matches("a ... z", "a b\n c  z\n")
    assert matches("a\n...", "a b")
    assert not matches("a ... z", "a b")
    assert not matches("a.c", "abc")


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two `three`\n[a](#one-two-three) [b](#four) [c](page.md#one-two-three) [d](no.md)\n"
        "[e](https://example.org) `[f](code.md)`\n```text\n[g](fence.md)\n```\n"
    )
    assert broken_links(page) == ["#four", "no.md"]
