"""The evaluation harness, with stand-ins for the codec, the separation and the refinement."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_fakes import (
    EVALUATION,
    METHODS,
    Bundle,
    PatchCodec,
    Search,
    Separate,
    Sure,
    blobs,
    records,
    run,
)
from torch import Tensor

from mlass_ppl.errors import OptionError, PlanError, TableError
from mlass_ppl.evaluate import Method, MixtureSet, psnr, rows_from_records, score
from mlass_ppl.shapes import joint


@pytest.fixture(scope="module")
def images() -> Tensor:
    return blobs()


def test_the_json_that_scripts_read(tmp_path: Path, images: Tensor) -> None:
    report = run(tmp_path / "run", images, command="mlass evaluate fake")
    content = json.loads(report.to_json())
    assert set(content) == {"rows", "run"}
    per_n = [
        ("floor:mixture", "raw"),
        ("floor:black", "raw"),
        ("exact", "raw"),
        ("exact", "refined"),
        ("bp", "raw"),
        ("bp", "refined"),
        ("oracle:candidate", "raw"),
        ("oracle:candidate:bp", "raw"),
        ("ceiling:tokens", "raw"),
        ("ceiling:tokens", "refined"),
    ]
    found = [(row["sources"], row["row"], row["stage"]) for row in content["rows"]]
    assert found == [(n, *key) for n in (2, 3) for key in per_n]
    keys = {
        "sources", "row", "stage", "metric", "mean", "std", "median", "ci95", "n", "below_floor",
        "seconds_per_mixture", "peak_mb", "paired",
    }  # fmt: skip
    for row in content["rows"]:
        assert keys <= set(row)
        assert row["metric"] == "psnr_db"
        assert row["n"] == 7
        assert row["ci95"][0] <= row["mean"] <= row["ci95"][1]
        assert set(row["paired"]) == {"mean", "ci95"}
        assert row["seconds_per_mixture"] >= 0
        assert row["peak_mb"] > 10
    facts = content["run"]
    assert {"commit", "torch", "device", "config", "command", "left_out", "version"} <= set(facts)
    assert facts["command"] == "mlass evaluate fake"
    assert facts["config"]["methods"]["exact"] == "Sure(error=None) on joint(n)"
    assert len(facts["config"]["split_sha256"]) == 64


def test_rows_are_what_the_records_say(tmp_path: Path, images: Tensor) -> None:
    report = run(tmp_path / "run", images)
    made = records(tmp_path / "run")
    assert len(made) == 2 * 5 * 7
    floor = [r.stages["raw"].mean for r in made if r.key[:2] == (3, "floor:mixture")]
    ours = [r.stages["refined"].mean for r in made if r.key[:2] == (3, "bp")]
    row = next(r for r in report.rows if (r.sources, r.row, r.stage) == (3, "bp", "refined"))
    assert row.summary.mean == pytest.approx(np.mean(ours))
    assert row.summary.std == pytest.approx(np.std(ours, ddof=1))
    assert row.summary.median == pytest.approx(np.median(ours))
    assert row.paired.mean == pytest.approx(np.mean(np.subtract(ours, floor)))
    assert row.paired.below == np.mean(np.less(ours, floor))


def test_floors_and_ceiling_score_what_they_name(tmp_path: Path, images: Tensor) -> None:
    run(tmp_path / "run", images)
    mixtures = MixtureSet.make(images, 3, 100)
    truths, mixed = mixtures.truths(np.arange(7)), mixtures.mixtures(np.arange(7))
    codec = PatchCodec()
    coded = torch.stack([codec.decode(codec.encode(part)) for part in truths.unbind(1)], 1)
    expected = {
        ("floor:mixture", "raw"): psnr(mixed[:, None], truths),
        ("floor:black", "raw"): psnr(torch.zeros_like(truths), truths),
        ("ceiling:tokens", "raw"): score(coded, truths).scores,
        ("ceiling:tokens", "refined"): score((coded + mixed[:, None]) / 2, truths).scores,
    }
    for (name, stage), values in expected.items():
        ours = {r.index: r.stages[stage].psnr for r in records(tmp_path / "run")
                if r.key[:2] == (3, name)}  # fmt: skip
        np.testing.assert_allclose([ours[i] for i in range(7)], values, rtol=1e-12)


def test_a_method_that_copies_the_mixture_ties_with_the_floor(
    tmp_path: Path, images: Tensor
) -> None:
    def copy(mixture: Tensor, program: Any, bundle: Any, **options: Any) -> Any:
        found = Separate()(mixture, program, bundle, **options)
        found.signals = dict.fromkeys(found.signals, mixture)
        return found

    rows = run(tmp_path / "run", images, separate=copy).rows
    for row in rows:
        if (row.row, row.stage) == ("bp", "raw"):
            assert row.paired.mean == 0.0
            assert row.paired.ci95 == (0.0, 0.0)
            assert row.paired.below == 0.0


def test_the_oracle_is_the_best_candidate_by_ground_truth(tmp_path: Path, images: Tensor) -> None:
    run(tmp_path / "run", images)
    mixtures = MixtureSet.make(images, 2, 100)
    options: dict[str, Any] = {
        "infer": None,
        "search": Search(),
        "estimate": None,
        "seed": 0,
        "batch_size": 1,
        "keep_candidates": True,
        "on_unseen": "prior",
        "progress": lambda *_: None,
    }
    for record in records(tmp_path / "run"):
        if record.key[:2] != (2, "exact"):
            continue
        index = np.array([record.index])
        found = Separate()(mixtures.mixtures(index), joint(2), Bundle(), streams=[record.index],
                           **options)  # fmt: skip
        each = torch.stack(list(found.candidates.values()), 2)[0]
        means = score(each, mixtures.truths(index)).mean
        oracle, raw = record.stages["oracle"], record.stages["raw"]
        assert oracle.candidate == means.argmax()
        assert oracle.mean == pytest.approx(means.max())
        assert raw.candidate == int(found.chosen[0])
        assert raw.mean == pytest.approx(means[raw.candidate])
        assert raw.error <= oracle.error


def test_without_refinement_there_are_raw_rows_alone(tmp_path: Path, images: Tensor) -> None:
    report = run(tmp_path / "run", images, replace(EVALUATION, refine=None))
    assert {row.stage for row in report.rows} == {"raw"}
    assert "not refined" in report.markdown()


def test_published_rows_stand_in_the_tables_but_not_in_the_json(
    tmp_path: Path, images: Tensor
) -> None:
    report = run(tmp_path / "run", images)
    text = report.markdown()
    assert "published" not in report.to_json()
    for cell in ("24.23 ± 6.23", "19.30 ± 5.68", "16.87 ± 3.77", "14.19 ± 2.23", "13.64 ± 1.76"):
        (line,) = [line for line in text.splitlines() if cell in line]
        assert "published, not re-run" in line
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_tables_fit(tmp_path: Path, images: Tensor, width: int) -> None:
    from rich.console import Console

    out = Console(file=io.StringIO(), width=width)
    for part in run(tmp_path / "run", images).tables(width):
        out.print(part)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "19.30 ± 5.68" in text
    assert ("median" in text) == (width == 160)


def test_progress_reaches_every_total(tmp_path: Path, images: Tensor) -> None:
    seen: dict[str, list[float]] = {}

    def progress(label: str, done: float, total: int) -> None:
        assert total == 7
        seen.setdefault(label, []).append(done)

    run(tmp_path / "run", images, progress=progress)
    tasks = ("floor:mixture", "floor:black", "ceiling:tokens", "exact", "bp")
    assert list(seen) == [f"n={n} {task}" for n in (2, 3) for task in tasks]
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1] == 7
    assert 0.75 in seen["n=2 bp"]  # half way through sampling, which is half of a batch of three


def test_a_method_that_cannot_be_planned_is_left_out_aloud(tmp_path: Path, images: Tensor) -> None:
    methods = (Method("exact", joint, Sure(PlanError)), METHODS[1])
    notices: list[str] = []
    report = run(
        tmp_path / "run", images, replace(EVALUATION, methods=methods), notice=notices.append
    )
    assert [row.sources for row in report.rows if row.row == "exact"] == [2, 2]
    assert report.run["left_out"] == [
        {"sources": 3, "row": "exact", "reason": "3 sources are too many."}
    ]
    assert "exact: left out. 3 sources are too many." in report.markdown()
    assert "left out" in notices[0]
    # the oracle's plain name goes to the first method that there is
    assert [r.row for r in report.rows if r.sources == 3 and r.row.startswith("oracle")] == [
        "oracle:candidate"
    ]


def test_a_missing_table_ends_the_run_before_any_work(tmp_path: Path, images: Tensor) -> None:
    methods = (METHODS[0], Method("bp", joint, Sure(TableError)))
    separate = Separate()
    with pytest.raises(TableError):
        run(tmp_path / "run", images, replace(EVALUATION, methods=methods), separate)
    assert separate.calls == []
    assert not (tmp_path / "run").exists()


def test_refused_options(tmp_path: Path, images: Tensor) -> None:
    with pytest.raises(OptionError, match="12 images"):
        run(tmp_path / "run", images, replace(EVALUATION, num=13))
    with pytest.raises(OptionError, match="two or more sources"):
        replace(EVALUATION, sources=(1, 2))
    with pytest.raises(OptionError, match="stands once"):
        replace(EVALUATION, sources=(2, 2))
    with pytest.raises(OptionError, match="stands once"):
        replace(EVALUATION, methods=METHODS + METHODS)
    with pytest.raises(OptionError, match="1 or more"):
        replace(EVALUATION, batch_size=0)


def test_a_mixture_without_its_floor_is_refused(tmp_path: Path, images: Tensor) -> None:
    run(tmp_path / "run", images)
    made = [r for r in records(tmp_path / "run") if r.key != (2, "floor:mixture", 3)]
    with pytest.raises(OptionError, match="none of 'floor:mixture'"):
        rows_from_records(made)
