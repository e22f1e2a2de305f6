"""Evaluations on sound go on where they stopped, outlive damaged files, and read baselines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("soundfile", reason="soundfile is not installed (extra [sound])")

from audio_bundle import STEMS, make_bundle
from evaluate_audio_fixtures import (
    CHUNKS,
    EVALUATION,
    records,
    run,
    same,
    scores,
    song,
    stimuli,
    write,
    write_slakh,
)

from mlass_ppl.cli._variadic import VariadicCommand
from mlass_ppl.cli.evaluate import evaluate as command
from mlass_ppl.errors import DataError, OptionError
from mlass_ppl.evaluate.audio import Baseline

Invoke = Callable[..., Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slakh(tmp_path_factory.mktemp("slakh"))


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """What a run without any interruption finds."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder, stimuli(root))
    return scores(folder)


# --- the run directory ---------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(
    tmp_path: Path, root: Path, whole: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlass_ppl.search import Sample

    steps = 0
    before = Sample.step

    def stop(*given: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > 30:  # of 20 tokens each: in the second batch
            raise KeyboardInterrupt
        return before(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Sample, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", stimuli(root))
    kept = records(tmp_path / "run")
    assert [r.index for r in kept if r.method == "auto"] == [0, 1, 2]
    notices: list[str] = []
    with monkeypatch.context() as patch:  # songs are not searched again
        patch.setattr("mlass_ppl.evaluate.audio.selection.find_chunks", None)
        run(tmp_path / "run", stimuli(root), notice=notices.append)
    assert f"{len(kept)} records" in notices[0]
    assert scores(tmp_path / "run") == whole


@pytest.mark.parametrize("size", [1, 100])
def test_scores_do_not_depend_on_the_batch(
    tmp_path: Path, root: Path, whole: dict[Any, Any], size: int
) -> None:
    run(tmp_path / "run", stimuli(root), batch_size=size)
    same(scores(tmp_path / "run"), whole)


def test_records_come_back_bit_for_bit(tmp_path: Path, root: Path) -> None:
    run(tmp_path / "run", stimuli(root), methods=(), num=2)
    for record in records(tmp_path / "run"):
        assert type(record).from_json(record.to_json()) == record


def test_other_songs_or_stems_are_another_run(tmp_path: Path, root: Path) -> None:
    run(tmp_path / "run", stimuli(root), methods=(), num=2)
    with pytest.raises(OptionError, match=r"stems \['bass', 'drums', 'piano'\] instead of"):
        run(tmp_path / "run", stimuli(root, ("drums", "bass")), methods=(), num=2)
    other = write_slakh(tmp_path / "data", songs=2)
    with pytest.raises(OptionError, match="split_sha256"):
        run(tmp_path / "run", stimuli(other), methods=(), num=2)


def test_a_damaged_selection_is_named(tmp_path: Path, root: Path) -> None:
    run(tmp_path / "run", stimuli(root), methods=(), num=2)
    (tmp_path / "run" / "mixtures-2.json").write_text("[1,")
    with pytest.raises(DataError, match=r"mixtures-2\.json' is no selection of mixtures"):
        run(tmp_path / "run", stimuli(root), methods=(), num=2)


# --- damaged files -------------------------------------------------------------------------------


def test_a_damaged_chunk_is_left_out_and_made_once_it_is_whole(
    tmp_path: Path, whole: dict[Any, Any]
) -> None:
    """A file breaks while the evaluation runs: its mixtures are missing in every row that comes
    afterwards, the others are as they are, and the next run makes what is missing."""
    data, folder = write_slakh(tmp_path / "data"), tmp_path / "run"
    file = data / "test" / "Track01" / "stems" / "S01.wav"
    content = file.read_bytes()

    def breaking(label: str, done: float, total: int) -> None:
        if label == "n=2 floor:mixture" and not done:
            file.write_bytes(content[: len(content) // 50])

    notices: list[str] = []
    report = run(folder, stimuli(data), progress=breaking, notice=notices.append)
    lost = {r.index for r in records(folder) if r.failed}
    assert 0 < len(lost) < EVALUATION.num
    assert {row.summary.n for row in report.rows} == {EVALUATION.num - len(lost)}
    failed = report.run["failed"]
    assert [item["row"] for item in failed] == [
        "floor:mixture", "floor:silence", "oracle:irm", "ceiling:tokens", "auto",
    ]  # fmt: skip
    assert all(item["mixtures"] == len(lost) and "S01.wav" in item["reason"] for item in failed)
    assert sum("is left out" in line for line in notices) == 5 * len(lost)
    assert f"auto: {len(lost):,} mixtures failed and are left out" in report.markdown()
    found = scores(folder)
    same(found, {key: whole[key] for key in found})
    file.write_bytes(content)
    report = run(folder, stimuli(data))
    same(scores(folder), whole)
    assert "failed" not in report.run
    assert {row.summary.n for row in report.rows} == {EVALUATION.num}


def test_where_nothing_can_be_read_the_run_ends(tmp_path: Path) -> None:
    data = write_slakh(tmp_path / "data", songs=1)

    def breaking(label: str, done: float, total: int) -> None:
        if label == "n=2 floor:mixture" and not done:
            (data / "test" / "Track00" / "stems" / "S00.wav").write_bytes(b"")

    with pytest.raises(DataError, match=r"not one of 3 mixtures of 2 sources could be scored.*S00"):
        run(tmp_path / "run", stimuli(data), num=3, methods=(), progress=breaking)


def test_a_damaged_song_is_never_chosen(tmp_path: Path) -> None:
    data = write_slakh(tmp_path / "data", songs=2)
    damaged = song(seed=10)["bass"]
    damaged[-1] = float("nan")  # which no header tells
    write(data / "test" / "Track00" / "stems" / "S00.wav", damaged)
    said: list[str] = []
    run(tmp_path / "run", stimuli(data, notice=said.append), num=CHUNKS, methods=())
    assert {r.chunk[0] for r in records(tmp_path / "run")} == {"Track01"}
    assert "track 'Track00' is left out" in said[0]


# --- baselines -----------------------------------------------------------------------------------


def write_baseline(file: Path, chunks: list[Any], stems: tuple[str, ...], **more: Any) -> Path:
    content = {
        "chunks": [
            {"track": name, "start": start, **{
                metric: {stem: 10.0 * number + place for place, stem in enumerate(stems)}
                for metric in ("sdr", "si_sdr", "sdri", "si_sdri")
            }}
            for number, (name, start) in enumerate(chunks)
        ],
        **more,
    }  # fmt: skip
    file.write_text(json.dumps(content))
    return file


def test_a_baseline_is_a_row(tmp_path: Path, root: Path) -> None:
    run(tmp_path / "run", stimuli(root), methods=())
    chunks = json.loads((tmp_path / "run" / "mixtures-2.json").read_text())
    two = write_baseline(
        tmp_path / "conv-tasnet.json", [*chunks[:4], ["Else", 0]], ("bass", "drums"),
        run={"seconds": 10.0},
    )  # fmt: skip
    three = write_baseline(tmp_path / "other.json", chunks, STEMS)
    given = stimuli(root, baselines=tuple(map(Baseline.read, (two, three))))
    report = run(tmp_path / "run", given, methods=())  # the same run: nothing is made again
    rows = {(r.stem, r.metric): r for r in report.rows if r.row == "baseline:conv-tasnet"}
    assert {r.row for r in report.rows if r.row.startswith("baseline")} == {"baseline:conv-tasnet"}
    assert {r.stage for r in rows.values()} == {"supervised"}
    assert {metric for _, metric in rows} == {"sdr_db", "si_sdr_db", "sdri_db", "si_sdri_db"}
    drums = rows["drums", "sdr_db"]
    assert (drums.summary.mean, drums.summary.n) == (16.0, 4)  # of 1, 11, 21 and 31
    assert (drums.seconds, drums.peak_mb) == (2.0, None)
    floor = {
        r.index: r.stages["raw"].metrics["sdr_db"][1]
        for r in records(tmp_path / "run")
        if r.method == "floor:mixture"
    }
    gains = [10.0 * number + 1 - floor[number] for number in range(4)]
    assert drums.paired.mean == pytest.approx(sum(gains) / 4)
    order = [r.row for r in report.rows]
    assert order.index("baseline:conv-tasnet") < order.index("oracle:irm")
    assert "| baseline:conv-tasnet | supervised |" in report.markdown()


def test_a_baseline_of_other_mixtures_is_refused(tmp_path: Path, root: Path) -> None:
    file = write_baseline(tmp_path / "net.json", [["Else", 0]], ("bass", "drums"))
    given = stimuli(root, baselines=(Baseline.read(file),))
    with pytest.raises(DataError, match=r"'net' was scored on none of the 5 mixtures"):
        run(tmp_path / "run", given, methods=())


@pytest.mark.parametrize(
    "content", ["", "[]", '{"chunks": []}', '{"chunks": [{"track": "a", "start": 0}]}']
)
def test_a_file_without_scores_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "net.json"
    file.write_text(content)
    with pytest.raises(DataError, match="holds no scores of a baseline"):
        Baseline.read(file)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def invoke(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """`mlass evaluate ...` in an empty folder, with the tiny bundle as every bundle."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlass_ppl.bundle.load", lambda name: make_bundle())
    app = typer.Typer()
    app.command(cls=VariadicCommand)(command)
    fixed = ["--num", "4", "--search", "sample", "--candidates", "2"]

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, *fixed], env={"COLUMNS": "80"})

    return call


def test_the_command_writes_what_scripts_and_readers_need(
    invoke: Invoke, root: Path, tmp_path: Path
) -> None:
    line = f"slakh --data-root {root} --sources 2 --infer auto bp tokens tokens-exact "
    line += "--json out/t.json --markdown t.md"
    result = invoke(*line.split())
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "t.json").read_text())
    rows = {(row["row"], row["stage"]) for row in content["rows"]}
    for name in ("floor:prior", "auto", "bp", "tokens", "tokens-exact"):
        assert {(name, "raw"), (name, "wiener")} <= rows
    methods = content["run"]["config"]["methods"]
    programs = {"auto": "additive", "bp": "linear_chain", "tokens": "chain"}
    for name, program in programs.items():
        assert methods[name].endswith(f" on {program}(n)")
    assert content["run"]["config"]["pairing_seed"] == 0
    assert "Mixtures of bass, drums" in result.output
    assert "5.01 ± 2.39" in (tmp_path / "t.md").read_text()
    (folder,) = (tmp_path / "runs").iterdir()
    before = (folder / "records.jsonl").read_text()
    again = invoke(*line.split())
    assert again.exit_code == 0, again.output
    assert "resuming" in again.output
    assert (folder / "records.jsonl").read_text() == before


def test_stems_choose_and_order_the_sources(invoke: Invoke, root: Path, tmp_path: Path) -> None:
    line = f"slakh --data-root {root} --stems drums bass --infer auto --no-prior-floor "
    result = invoke(*line.split(), "--refine", "none", "--json", "t.json")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert {row["sources"] for row in rows} == {2}
    assert list(dict.fromkeys(row["stem"] for row in rows)) == [None, "drums", "bass"]
    assert {row["stage"] for row in rows} == {"raw"}
    assert not any(row["row"] == "floor:prior" for row in rows)


def test_folders_of_stems_and_recordings(invoke: Invoke, tmp_path: Path) -> None:
    for number in range(2):
        for name, signal in song(number).items():
            write(tmp_path / "songs" / "test" / f"song {number}" / f"{name}.wav", signal)
            write(tmp_path / "words" / f"{number}_{name}_0.wav", signal[:900])
    for data, root in (("stems", "songs"), ("fsdd", "words")):
        result = invoke(
            data, "--data-root", root, "--sources", "2", "3", "--infer", "auto",
            "--no-prior-floor", "--json", f"{data}.json",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        rows = json.loads((tmp_path / f"{data}.json").read_text())["rows"]
        assert {(row["sources"], row["n"]) for row in rows} == {(2, 4), (3, 4)}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("slakh --infer auto", "`mlass evaluate slakh` needs --data-root"),
        ("slakh --data-root ROOT --infer magic", "unknown engine 'magic'"),
        ("slakh --data-root ROOT --refine descent", "--refine descent is of images"),
        ("slakh --data-root ROOT --split validation", "no split 'validation'; it has test"),
        ("slakh --data-root ROOT --sources 4", "4 sources need as many stems"),
        ("slakh --data-root ROOT --stems bass kazoo", "no prior for source 'kazoo'"),
        ("slakh --data-root ROOT --baseline nowhere.json", "holds no scores of a baseline"),
        ("slakh --data-root nowhere", "found no track"),
        ("fsdd --data-root nowhere", "found no recording"),
        ("mnist --stems bass drums", "--bundle, --stems and --baseline are of sound"),
    ],
)
def test_the_command_refuses_with_a_sentence(
    invoke: Invoke, root: Path, line: str, sentence: str
) -> None:
    result = invoke(*line.replace("ROOT", str(root)).split())
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_an_interrupted_command_says_how_to_go_on(
    invoke: Invoke, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    line = f"slakh --data-root {root} --sources 2 --infer auto --no-prior-floor --run-dir mine"
    with monkeypatch.context() as patch:
        patch.setattr("mlass_ppl.search.Sample.step", stop)
        result = invoke(*line.split())
    assert result.exit_code == 130
    assert "goes on with what mine holds" in result.output
    again = invoke(*line.split())
    assert again.exit_code == 0, again.output
    assert "mine holds 16 records" in again.output  # two floors, the masks and the ceiling
