"""`mlass count`: tables of shapes and program files, of tokens and features, into a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import blobs, make_codec, make_gpt2
from typer.testing import CliRunner

from mlass_ppl.bundle import Bundle, load
from mlass_ppl.cli import app
from mlass_ppl.tables import Counts, Moments
from mlass_ppl.train import digits

Run = Callable[..., str]


@pytest.fixture
def folder(tmp_path) -> Path:
    return Bundle("tiny", make_codec(), {"blob": make_gpt2()}).save(tmp_path / "tiny")


@pytest.fixture
def count(folder, monkeypatch) -> Run:
    monkeypatch.setattr(digits, "mnist_images", lambda split, root: blobs(60))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, code: int = 0) -> str:
        line = ["count", "--bundle", str(folder), "--mixtures", "40", *map(str, arguments)]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_each_engine_counts_the_shape_it_was_made_for(count, folder):
    said = count("--infer", "bp", "--infer", "extractor", "--sources", 2, "--sources", 3)
    assert said.count("360 tuples") == 4
    bundle = load(folder)
    assert sorted(len(recipe.parents) for recipe in bundle.counts) == [1, 1, 2, 2]
    assert {entry["mixtures"] for entry in bundle.card["tables"]} == {40}
    assert "40 | 360 tuples" in (folder / "README.md").read_text()


def test_what_is_there_is_counted_again_only_by_force(count, folder):
    count()
    first = load(folder).counts
    assert "already counted: p(0.5 blob#1 + 0.5 blob#2" in count("--seed", 5)
    assert load(folder).counts == first
    said = count("--seed", 5, "--force")
    assert "already" not in said
    assert load(folder).counts.keys() == first.keys()
    assert load(folder).counts != first
    assert [entry["seed"] for entry in load(folder).card["tables"]] == [5]


def test_features_are_counted_where_asked_or_declared(count, folder, tmp_path):
    assert "360 features" in count("--evidence", "feature")
    assert "360 tuples" in count("--evidence", "token")
    kinds = [type(found) for found in load(folder).counts.values()]
    assert kinds == [Moments, Counts]
    file = tmp_path / "program.py"
    file.write_text(
        "from mlass_ppl import Feature, mix, source\n\n"
        "def song():\n"
        "    return mix('m', source('a'), source('b'), evidence=Feature())\n"
    )
    assert "already counted: p(x(0.5 blob#1" in count("--program", file)
    assert load(folder).card["format"] == 3


def test_impossible_options_end_with_a_sentence(count):
    assert "at least 1" in count("--mixtures", 0, code=2)
    assert "unknown engine 'sums'" in count("--infer", "sums", code=2)
