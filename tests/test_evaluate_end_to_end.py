"""The harness on real engines, priors, tables and refinement, over a codec of grey patches."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from evaluation_fakes import LEVELS, PatchCodec, blobs, records, scores
from torch import Tensor
from typer.testing import CliRunner

from mlass_ppl import BP, Bundle, Exact, Extractor, NGram, Refine, Sample, compile_program, count
from mlass_ppl.cli._bytes import bytes_from
from mlass_ppl.cli._variadic import VariadicCommand
from mlass_ppl.cli.evaluate import evaluate as command
from mlass_ppl.errors import OptionError, TableError
from mlass_ppl.evaluate import Evaluation, Method, PriorOnly, Report, evaluate
from mlass_ppl.shapes import chain, joint, star

METHODS = (
    Method("floor:prior", star, PriorOnly()),
    Method("exact", joint, Exact()),
    Method("bp", chain, BP()),
    Method("extractor", star, Extractor()),
)
EVALUATION = Evaluation(METHODS, Sample(8), Refine(steps=20), num=12, batch_size=5)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return blobs()


@pytest.fixture(scope="module")
def bundle(images: Tensor) -> Bundle:
    """Counted on the very images that are mixed: enough to beat the prior by far."""
    codec = PatchCodec()
    prior = NGram.fit(codec.encode(images), LEVELS)
    empty = Bundle("patches", codec, {"blob": prior})
    counts: dict[Any, Any] = {}
    for shape in (joint, chain, star):
        for n in (2, 3):
            graph = compile_program(shape(n))
            counts |= count(graph, codec, images, mixtures=2_000, kind=lambda _: "blob")
    return replace(empty, counts=counts, card={"name": "patches"})


def _run(folder: Path, bundle: Bundle, images: Tensor, evaluation: Evaluation) -> Report:
    return evaluate(evaluation, bundle, images, folder, notice=lambda line: None)


def test_engines_beat_the_prior_and_refinement_nears_the_mixture(
    tmp_path: Path, bundle: Bundle, images: Tensor
) -> None:
    report = _run(tmp_path / "run", bundle, images, EVALUATION)
    means = {(row.sources, row.row, row.stage): row.summary.mean for row in report.rows}
    for n in (2, 3):
        for name in ("exact", "bp"):
            assert means[n, name, "raw"] > means[n, "floor:prior", "raw"] + 1.0
            suffix = "" if name == "exact" else ":bp"
            assert means[n, f"oracle:candidate{suffix}", "raw"] >= means[n, name, "raw"]
        assert means[n, "ceiling:tokens", "raw"] > means[n, "exact", "raw"]
    for record in records(tmp_path / "run"):
        if "refined" in record.stages:
            assert record.stages["refined"].error < record.stages["raw"].error
        if record.method in ("exact", "bp", "extractor"):
            assert record.ruled_out is not None
            assert 0 <= record.ruled_out < 0.5


def test_scores_do_not_depend_on_the_batch(tmp_path: Path, bundle: Bundle, images: Tensor) -> None:
    found = []
    for size in (1, 5):
        folder = tmp_path / str(size)
        _run(folder, bundle, images, replace(EVALUATION, num=6, refine=None, batch_size=size))
        found.append(scores(folder))
    assert found[0] == found[1]


def test_a_bundle_without_the_tables_is_refused_at_once(
    tmp_path: Path, bundle: Bundle, images: Tensor
) -> None:
    few = {recipe: counts for recipe, counts in bundle.counts.items() if len(recipe.leaves) == 2}
    with pytest.raises(TableError, match="no table for"):
        _run(tmp_path / "run", replace(bundle, counts=few), images, EVALUATION)
    assert not (tmp_path / "run").exists()


def test_exact_is_left_out_where_it_takes_too_much_memory(
    tmp_path: Path, bundle: Bundle, images: Tensor
) -> None:
    tight = (Method("exact", joint, Exact(memory_limit=10_000)), METHODS[2])
    lines: list[str] = []
    evaluation = replace(EVALUATION, methods=tight, num=2)
    report = evaluate(evaluation, bundle, images, tmp_path / "run", notice=lines.append)
    assert {item["row"] for item in report.run["left_out"]} == {"exact"}
    assert {row.row for row in report.rows} >= {"bp", "floor:mixture"}
    assert any("left out" in line for line in lines)


# --- the command ---------------------------------------------------------------------------------

Invoke = Callable[..., Any]


@pytest.fixture
def invoke(
    tmp_path: Path, bundle: Bundle, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> Invoke:
    """`mlass evaluate patches ...` in an empty folder, with the images as MNIST's test split."""
    pixels = (images * 255).round().to(torch.uint8).numpy()
    header = b"\x00\x00\x08\x03" + struct.pack(">3I", len(pixels), 28, 28)
    file = tmp_path / "data" / "t10k-images-idx3-ubyte.gz"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(header + pixels.tobytes()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlass_ppl.bundle.load", lambda name: bundle)
    app = typer.Typer()
    app.command(cls=VariadicCommand)(command)

    def run(*arguments: str) -> Any:
        fixed = [
            "patches",
            "--data-root",
            "data",
            "--refine-steps",
            "3",
            "--candidates",
            "4",
            "--num",
            "5",
        ]
        return CliRunner().invoke(app, [*fixed, *arguments], env={"COLUMNS": "80"})

    return run


def test_the_command_writes_what_scripts_and_readers_need(invoke: Invoke, tmp_path: Path) -> None:
    line = "--sources 2 3 --infer exact bp extractor --num 5 --json out/t.json --markdown t.md"
    result = invoke(*line.split())
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "t.json").read_text())
    names = {(row["sources"], row["row"]) for row in content["rows"]}
    assert {(n, row) for n in (2, 3) for row in ("exact", "bp", "extractor", "floor:prior")} < names
    assert {row["stage"] for row in content["rows"]} == {"raw", "refined"}
    assert content["run"]["config"]["num"] == 5
    assert "19.30 ± 5.68" in (tmp_path / "t.md").read_text()
    assert "Mixtures of 3 digits" in result.output
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "records.jsonl",
        "report.json",
        "report.md",
    ]
    before = (folder / "records.jsonl").read_text()
    again = invoke(*line.split())
    assert again.exit_code == 0, again.output
    assert "resuming" in again.output
    assert (folder / "records.jsonl").read_text() == before


def test_the_command_leaves_refinement_and_the_prior_out_on_request(
    invoke: Invoke, tmp_path: Path
) -> None:
    line = "--sources 2 --infer bp --num 3 --refine none --no-prior-floor --json t.json"
    result = invoke(*line.split())
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [row["row"] for row in rows] == [
        "floor:mixture",
        "floor:black",
        "bp",
        "oracle:candidate",
        "ceiling:tokens",
    ]


def test_an_interrupted_command_says_how_to_go_on(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlass_ppl.search.SMC.step", stop)
        result = invoke("--run-dir", "mine", "--sources", "2", "--infer", "bp")
    assert result.exit_code == 130
    assert "goes on with what mine holds" in result.output
    again = invoke("--run-dir", "mine", "--sources", "2", "--infer", "bp")
    assert again.exit_code == 0, again.output
    assert "mine holds 15 records" in again.output  # both floors and the ceiling were there


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--infer magic", "unknown engine 'magic'"),
        ("--infer", "one or more values"),
        ("--num 13", "12 images"),
        ("--sources 1", "two or more sources"),
        ("--split train", "test or validation"),
        ("--candidates 0", "at least 1"),
        ("--infer exact --exact-memory much", "--exact-memory takes a size such as 4GB"),
        ("--memory-limit much", "--memory-limit takes a size such as 4GB"),
        ("--data-root nowhere", "not found"),
        ("--json data", "is a folder"),
        ("--infer bp --run-dir data", "no run directory"),
        ("--pairing-seed -1", "0 or more"),
        ("--seed -1", "0 or more"),
    ],
)
def test_the_command_refuses_with_a_sentence(invoke: Invoke, line: str, sentence: str) -> None:
    result = invoke(*line.split())
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_sizes() -> None:
    assert bytes_from("4GB", "--memory-limit") == 4e9
    assert bytes_from("512mb", "--memory-limit") == 512e6
    assert bytes_from("1000", "--memory-limit") == 1000
    assert bytes_from("none", "--memory-limit") == np.inf
    for text in ("", "GB", "-1GB", "nan", "4 parsecs"):
        with pytest.raises(OptionError, match="such as 4GB"):
            bytes_from(text, "--memory-limit")
