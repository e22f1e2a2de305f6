"""Evaluations are repeatable and go on where they stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_fakes import EVALUATION, Separate, blobs, records, run, scores
from torch import Tensor

from mlass_ppl.errors import DataError, OptionError
from mlass_ppl.evaluate import Record, RunDirectory


@pytest.fixture(scope="module")
def images() -> Tensor:
    return blobs()


def test_scores_do_not_depend_on_the_batch(tmp_path: Path, images: Tensor) -> None:
    for size in (1, 3, 100):
        run(tmp_path / str(size), images, replace(EVALUATION, batch_size=size))
    assert scores(tmp_path / "1") == scores(tmp_path / "3") == scores(tmp_path / "100")


def test_streams_are_the_mixtures(tmp_path: Path, images: Tensor) -> None:
    separate = Separate()
    run(tmp_path / "run", images, separate=separate)
    assert separate.calls == [[0, 1, 2], [3, 4, 5], [6]] * 4


def test_the_seed_reaches_the_separation(tmp_path: Path, images: Tensor) -> None:
    run(tmp_path / "0", images)
    run(tmp_path / "1", images, replace(EVALUATION, seed=1))
    assert scores(tmp_path / "0") != scores(tmp_path / "1")


def test_an_interrupted_run_goes_on(tmp_path: Path, images: Tensor) -> None:
    run(tmp_path / "whole", images)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", images, separate=Separate(stop_after=5))
    kept = len(records(tmp_path / "run"))
    notices: list[str] = []
    rest = Separate()
    run(tmp_path / "run", images, separate=rest, notice=notices.append)
    assert rest.calls == [[6], *[[0, 1, 2], [3, 4, 5], [6]] * 2]
    assert scores(tmp_path / "run") == scores(tmp_path / "whole")
    assert f"{kept:,} records" in notices[0]
    again = Separate()
    run(tmp_path / "run", images, separate=again)
    assert again.calls == []


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path, images: Tensor, cut: int) -> None:
    whole = tmp_path / "run"
    run(whole, images)
    before, file = scores(whole), whole / "records.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    notices: list[str] = []
    separate = Separate()
    run(whole, images, separate=separate, notice=notices.append)
    assert separate.calls == [[6]]
    assert "cut off" in notices[0]
    assert scores(whole) == before
    assert file.read_bytes().endswith(b"}\n")


def test_a_damaged_line_is_named(tmp_path: Path, images: Tensor) -> None:
    run(tmp_path / "run", images)
    file = tmp_path / "run" / "records.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:4], '{"sources": 2}\n', *lines[5:]]))
    with pytest.raises(DataError, match="line 5"):
        run(tmp_path / "run", images)


def test_a_directory_of_another_run_is_refused(tmp_path: Path, images: Tensor) -> None:
    run(tmp_path / "run", images)
    with pytest.raises(OptionError, match="seed 0 instead of 4"):
        run(tmp_path / "run", images, replace(EVALUATION, seed=4))
    with pytest.raises(OptionError, match="split_sha256"):
        run(tmp_path / "run", images.flip(0))


def test_a_directory_with_other_files_is_refused(tmp_path: Path, images: Tensor) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OptionError, match="no run directory"):
        run(tmp_path, images)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["thesis.tex"]


def test_two_writers_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        RunDirectory(tmp_path / "run", {"a": 1}, print),
        pytest.raises(OptionError, match="another process"),
    ):
        RunDirectory(tmp_path / "run", {"a": 1}, print)
    RunDirectory(tmp_path / "run", {"a": 1}, print).__exit__(None, None, None)


def test_records_come_back_bit_for_bit(tmp_path: Path, images: Tensor) -> None:
    run(tmp_path / "run", images)
    for record in records(tmp_path / "run"):
        assert Record.from_json(record.to_json()) == record
