"""Evaluation on sound: what the report says is what was separated, floors are what they must be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("soundfile", reason="soundfile is not installed (extra [sound])")

from audio_bundle import LEVELS, RATE, SAMPLES, STEMS, make_bundle
from evaluate_audio_fixtures import (
    CHUNKS,
    EVALUATION,
    METHODS,
    records,
    run,
    stimuli,
    truths_of,
    write,
    write_slakh,
    write_song,
)

from mlass_ppl import additive, separate
from mlass_ppl.audio import Wiener
from mlass_ppl.errors import DataError, OptionError
from mlass_ppl.evaluate import Record, StemRow, StemScore, bootstrap, summarise
from mlass_ppl.evaluate.audio import (
    CEILING,
    LogMel,
    ideal_ratio_mask,
    log_mel_l1,
    mixture_copy_sdr,
    sdr,
    sdri,
    si_sdr,
    si_sdri,
)
from mlass_ppl.evaluate.audio.batch import METRICS, StemBatch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slakh(tmp_path_factory.mktemp("slakh"))


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run on mixtures of two and of three stems, and its report."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, run(folder, stimuli(root), sources=(2, 3), command="mlass evaluate slakh")


# --- what is scored ------------------------------------------------------------------------------


def estimates_by_hand(truths: torch.Tensor, names: tuple[str, ...], index: int) -> dict[Any, Any]:
    """What each row must have scored, {(row, stage): [n, T]}, of true stems [n, T]."""
    n, mixture, bundle = len(truths), truths.mean(0), make_bundle()
    # each stem at the level that the bundle expects of the mixture
    level = np.sqrt(sum((LEVELS[name] / n) ** 2 for name in names))
    gain = level / float(mixture.double().square().mean().sqrt())
    coded = []
    for name, truth in zip(names, truths, strict=True):
        codec = bundle.codecs[name]
        coded.append(codec.decode(codec.encode(gain * truth[None, None]))[0, 0] / gain)
    found = separate(
        mixture, additive(names), bundle, infer=METHODS[0].infer, search=EVALUATION.search,
        estimate=EVALUATION.estimate, streams=[index],
    )  # fmt: skip
    separated = torch.stack([found.signals[name][0, 0] for name in names])
    out = {
        ("floor:mixture", "raw"): mixture.expand(n, -1),
        ("floor:silence", "raw"): torch.zeros(n, SAMPLES),
        ("oracle:irm", "raw"): ideal_ratio_mask(truths, mixture),
        ("ceiling:tokens", "raw"): torch.stack(coded),
        ("auto", "raw"): separated,
    }
    for row in ("ceiling:tokens", "auto"):
        out[row, "wiener"] = Wiener()(out[row, "raw"], mixture, [1 / n] * n)
    return out


@pytest.mark.parametrize("n", [2, 3])
def test_scores_are_those_of_a_direct_computation(finished: Any, root: Path, n: int) -> None:
    folder, _ = finished
    names, made = STEMS[:n], records(folder)
    index = 3
    mine = {r.method: r for r in made if (r.sources, r.index) == (n, index)}
    assert set(mine) == {"floor:mixture", "floor:silence", "oracle:irm", "ceiling:tokens", "auto"}
    truths = torch.from_numpy(truths_of(root, mine["auto"], names)).float()
    mixture = truths.mean(0)
    for (row, stage), estimate in estimates_by_hand(truths, names, index).items():
        score = mine[row].stages[stage]
        expected = {
            "sdr_db": sdr(estimate, truths),
            "si_sdr_db": si_sdr(estimate, truths),
            "sdri_db": sdri(estimate, truths, mixture),
            "si_sdri_db": si_sdri(estimate, truths, mixture),
            "logmel_l1": log_mel_l1(estimate, truths, LogMel(RATE)),
        }
        assert set(score.metrics) == set(METRICS)
        for name, values in expected.items():
            np.testing.assert_allclose(score.metrics[name], values, rtol=1e-4, atol=1e-4)
        assert score.permutation == tuple(range(n))
        error = float((estimate.mean(0) - mixture).double().square().mean())
        assert score.error == pytest.approx(error, rel=1e-3, abs=1e-12)


def test_the_oracle_candidate_is_the_best_by_si_sdr(finished: Any, root: Path) -> None:
    for record in records(finished[0]):
        if record.key[:2] != (2, "auto"):
            continue
        truths = torch.from_numpy(truths_of(root, record, STEMS[:2])).float()
        found = separate(
            truths.mean(0), additive(STEMS[:2]), make_bundle(), infer=METHODS[0].infer,
            search=EVALUATION.search, streams=[record.index], keep_candidates=True,
        )  # fmt: skip
        assert found.candidates is not None
        each = torch.stack(list(found.candidates.values()), 2)[0, :, :, 0]
        means = si_sdr(each, truths).mean(1)
        oracle = record.stages["oracle"]
        assert oracle.candidate == means.argmax()
        assert np.mean(oracle.metrics["si_sdr_db"]) == pytest.approx(means.max(), abs=1e-3)


def test_every_mixture_sounds_and_is_there_once(finished: Any, root: Path) -> None:
    chunks = {r.index: r.chunk for r in records(finished[0]) if r.key[:2] == (3, "auto")}
    assert sorted(chunks) == list(range(EVALUATION.num))
    assert len(set(chunks.values())) == EVALUATION.num
    assert all(start % SAMPLES == 0 for _, start in chunks.values())
    kept = json.loads((finished[0] / "mixtures-3.json").read_text())
    assert [tuple(origin) for origin in kept] == [chunks[i] for i in range(EVALUATION.num)]


def test_the_selection_is_the_one_that_baselines_are_scored_on(
    finished: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pytest.importorskip("benchmarks.conv_tasnet.data")
    monkeypatch.setattr(data, "SECONDS", SAMPLES / RATE)
    theirs = data.select(root, "test", 2, EVALUATION.num, 0)
    ours = {r.index: r.chunk for r in records(finished[0]) if r.key[:2] == (2, "auto")}
    assert [(theirs.tracks[t].name, start) for t, start in theirs.places] == [
        ours[i] for i in range(EVALUATION.num)
    ]


# --- rows and tables -----------------------------------------------------------------------------


def test_rows_are_what_the_records_say(finished: Any) -> None:
    folder, report = finished
    made = [r for r in records(folder) if r.sources == 3]
    for stem, place in ((None, slice(None)), ("drums", slice(1, 2))):
        for metric in METRICS:
            ours, floor, silent = (
                np.array([np.mean(r.stages[stage].metrics[metric][place]) for r in made
                          if r.method == name])
                for name, stage in (("auto", "wiener"), ("floor:mixture", "raw"),
                                    ("floor:silence", "raw"))
            )  # fmt: skip
            (row,) = [
                row for row in report.rows
                if (row.sources, row.row, row.stage, row.metric, row.stem)
                == (3, "auto", "wiener", metric, stem)
            ]  # fmt: skip
            assert row.summary.mean == pytest.approx(ours.mean())
            assert row.summary.std == pytest.approx(ours.std(ddof=1))
            assert row.paired.mean == pytest.approx((ours - floor).mean())
            assert row.paired.below == np.mean(ours < floor)
            assert row.silence.mean == pytest.approx((ours - silent).mean())
            assert (row.summary.n, row.excluded) == (EVALUATION.num, 0)
            spent = [r.stages["raw"].seconds + r.stages["wiener"].seconds for r in made
                     if r.method == "auto"]  # fmt: skip
            assert row.seconds == pytest.approx(np.mean(spent))
            assert row.real_time_factor == pytest.approx(np.mean(spent) / (SAMPLES / RATE))


def test_gains_are_the_paired_differences(finished: Any) -> None:
    rows = {(r.sources, r.row, r.stage, r.stem, r.metric): r for r in finished[1].rows}
    for (n, name, stage, stem, metric), row in rows.items():
        if metric == "sdr_db":
            gain = rows[n, name, stage, stem, "sdri_db"].summary
            assert row.paired.mean == pytest.approx(gain.mean, abs=1e-9)
            assert row.paired.ci95 == pytest.approx(gain.ci95, abs=1e-9)
            assert row.silence.ci95 == pytest.approx(row.summary.ci95, abs=1e-9)  # it scores 0


def test_the_json_that_scripts_read(finished: Any) -> None:
    content = json.loads(finished[1].to_json())
    assert set(content) == {"rows", "run"}
    order = [
        ("floor:mixture", "raw"), ("floor:silence", "raw"), ("auto", "raw"), ("auto", "wiener"),
        ("oracle:candidate", "raw"), ("oracle:irm", "raw"), ("ceiling:tokens", "raw"),
        ("ceiling:tokens", "wiener"),
    ]  # fmt: skip
    found = dict.fromkeys((row["sources"], row["row"], row["stage"]) for row in content["rows"])
    assert list(found) == [(n, *key) for n in (2, 3) for key in order]
    assert len(content["rows"]) == len(order) * len(METRICS) * (3 + 4)
    for row in content["rows"]:
        assert row["stem"] in (None, *STEMS[: row["sources"]])
        assert row["metric"] in METRICS
        assert row["ci95"][0] <= row["mean"] + 1e-9
        assert row["mean"] <= row["ci95"][1] + 1e-9
        assert set(row["paired"]) == set(row["paired_silence"]) == {"mean", "ci95"}
        assert row["real_time_factor"] >= 0
        assert row["peak_mb"] > 10
    config = content["run"]["config"]
    assert (config["data"], config["stems"], config["samples"]) == ("slakh", list(STEMS), SAMPLES)
    assert "PostFilter" in config["refine"]
    assert "failed" not in content["run"]


def test_tables_show_stems_and_published_rows(finished: Any) -> None:
    text = finished[1].markdown()
    for cell in ("5.01 ± 2.39", "3.09 ± 3.23", "-0.44 ± 2.96"):
        (line,) = [line for line in text.splitlines() if cell in line]
        assert "published, not re-run" in line
    assert "published" not in finished[1].to_json()
    assert "**Mixtures of bass, drums, piano: SDR in dB of each stem" in text
    assert "3.01 dB for 2, 1.76 dB for 3" in text
    assert "nan" not in text
    assert text.count("| row | stage | bass | drums | piano | mean |") == 3
    for block in text.split("**")[1:]:
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_tables_fit(finished: Any, width: int) -> None:
    import io

    from rich.console import Console

    out = Console(file=io.StringIO(), width=width)
    for part in finished[1].tables(width):
        out.print(part, width=width)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


# --- floors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3])
def test_floors_of_equal_energies_are_their_closed_forms(tmp_path: Path, n: int) -> None:
    time = torch.arange(CHUNKS * SAMPLES, dtype=torch.float64) / RATE
    tones = {
        name: 0.3 * torch.sin(2 * torch.pi * 100 * (place + 1) * time)  # whole periods in a chunk
        for place, name in enumerate(STEMS)
    }
    write_song(tmp_path / "data" / "test" / "Track00", tones)
    report = run(tmp_path / "run", stimuli(tmp_path / "data"), sources=(n,), num=CHUNKS, methods=())
    rows = {(r.row, r.stem, r.metric): r for r in report.rows if r.stage == "raw"}
    for stem in (None, *STEMS[:n]):
        copied = rows["floor:mixture", stem, "sdr_db"]
        assert copied.summary.mean == pytest.approx(mixture_copy_sdr(n), abs=1e-4)
        # of the mean's own scale nothing is left: n - 1 others of equal energy
        assert rows["floor:mixture", stem, "si_sdr_db"].summary.mean == pytest.approx(
            -10 * np.log10(n - 1), abs=1e-4
        )
        assert copied.paired.mean == 0.0
        assert copied.paired.ci95 == (0.0, 0.0)
        assert rows["floor:silence", stem, "sdr_db"].summary.mean == 0.0
        assert rows["floor:silence", stem, "si_sdr_db"].summary.mean == -CEILING
        assert rows["oracle:irm", stem, "sdr_db"].summary.mean > copied.summary.mean + 10


def test_a_silent_stem_has_no_score_and_is_counted() -> None:
    truths = torch.randn(2, 2, 1, 640, generator=torch.Generator().manual_seed(0))
    truths[1, 0] = 0
    batch = StemBatch(np.arange(2), [("a", 0), ("b", 0)], truths, RATE)
    loud, quiet = batch.scores(torch.ones_like(truths), 4.0)
    assert isinstance(quiet, StemScore)
    assert all(quiet.metrics[name][0] is None for name in METRICS)
    assert quiet.metrics["sdr_db"][1] is not None
    assert quiet.metrics["sdri_db"][1] == pytest.approx(
        quiet.metrics["sdr_db"][1] - 20 * np.log10(2), abs=1e-4  # |s|² / |s - s / 2|²
    )  # fmt: skip
    assert loud.seconds == quiet.seconds == 2.0


def test_excluded_scores_are_counted_in_rows() -> None:
    from mlass_ppl.evaluate import Scheme, rows_from_records

    def score(*values: float | None) -> StemScore:
        return StemScore({"sdr_db": values}, (0, 1), 0.0, 1.0)

    made = [
        Record(2, name, index, (), {"raw": score(*values)}, chunk=(f"song {index}", 0))
        for name, gain in (("floor:mixture", 0.0), ("auto", 2.0))
        for index, values in enumerate([(1.0 + gain, 3.0 + gain), (None, 5.0 + gain)])
    ]
    rows = rows_from_records(made, scheme=Scheme(("sdr_db",), ("bass", "drums"), 2.0))
    found = {(r.row, r.stem): r for r in rows if isinstance(r, StemRow)}
    assert (found["auto", "bass"].summary.n, found["auto", "bass"].excluded) == (1, 1)
    assert (found["auto", "drums"].summary.n, found["auto", "drums"].excluded) == (2, 0)
    assert found["auto", "drums"].summary.mean == 6.0
    assert (found["auto", None].summary.mean, found["auto", None].excluded) == (4.0, 1)
    assert found["auto", None].paired.mean == 2.0
    assert found["auto", "drums"].real_time_factor == 0.5


def test_stems_of_one_prior_are_scored_in_their_best_order() -> None:
    truths = torch.randn(3, 3, 1, 640, generator=torch.Generator().manual_seed(0))
    swapped = truths[:, [2, 1, 0]]
    origins = [("a", 0), ("b", 0), ("c", 0)]
    by_label = StemBatch(np.arange(3), origins, truths, RATE, [[0], [1], [2]])
    assert by_label.scores(swapped, 0.0)[0].metrics["sdr_db"][0] < 5
    alike = replace(by_label, groups=[[0, 2], [1]])
    for score in alike.scores(swapped, 0.0):
        assert score.permutation == (2, 1, 0)
        assert score.metrics["sdr_db"] == (CEILING,) * 3


# --- statistics ----------------------------------------------------------------------------------


def test_whole_songs_are_resampled() -> None:
    songs = np.random.default_rng(0).normal(0, 1, 40)
    alone = bootstrap(songs, groups=np.arange(40))
    assert bootstrap(songs.repeat(7), groups=np.arange(40).repeat(7)) == pytest.approx(alone)
    low, high = bootstrap(songs.repeat(7))
    assert high - low < 0.6 * (alone[1] - alone[0])
    assert alone == pytest.approx(bootstrap(songs), abs=0.05)


def test_a_resampled_mean_is_that_of_all_mixtures_of_the_drawn_songs() -> None:
    scores, groups = np.array([1.0, 2.0, 3.0, 10.0]), np.array([4, 4, 4, 9])
    low, high = bootstrap(scores, groups=groups, level=0.999)
    assert (low, high) == (2.0, 10.0)  # two songs: twice the first, twice the second, or all
    middle = summarise(scores, groups=groups)
    assert middle.mean == 4.0
    one = bootstrap(scores, groups=np.zeros(4))
    assert one[0] < 4.0 < one[1]  # of a single song, its chunks
    with pytest.raises(OptionError, match="as many groups"):
        bootstrap(scores, groups=np.zeros(3))


# --- other data ----------------------------------------------------------------------------------


def test_songs_of_another_rate_are_resampled(tmp_path: Path, finished: Any) -> None:
    """At twice the rate, the same songs: the same chunks and nearly the same scores."""
    given = stimuli(write_slakh(tmp_path / "data", rate=2 * RATE), STEMS[:2])
    run(tmp_path / "run", given, methods=())
    ours = {r.key: r for r in records(tmp_path / "run")}
    for record in records(finished[0]):
        if record.key[:2] == (2, "floor:mixture"):
            other = ours[record.key]
            assert other.chunk == (record.chunk[0], 2 * record.chunk[1])
            np.testing.assert_allclose(
                other.stages["raw"].metrics["sdr_db"],
                record.stages["raw"].metrics["sdr_db"],
                atol=0.3,
            )


def test_recordings_of_different_speakers(tmp_path: Path) -> None:
    from mlass_ppl.data.audio import fsdd, sounding_level
    from mlass_ppl.evaluate.audio import StemStimuli, recordings

    random = np.random.default_rng(0)
    for digit in range(4):
        for speaker in ("bass", "drums"):
            length = SAMPLES + 1 if (digit, speaker) == (3, "drums") else 900 + 10 * digit
            noise = random.uniform(-0.3, 0.3, length)
            write(tmp_path / "data" / f"{digit}_{speaker}_0.wav", noise)
    said: list[str] = []
    tracks = fsdd(tmp_path / "data").split("test")
    given = StemStimuli("fsdd", tracks, ("bass", "drums"), recordings, notice=said.append)
    report = run(tmp_path / "run", given, num=12, methods=())
    assert "1 of 4 recordings of 'drums' are longer than 0.16 s" in said[0]
    made = [r for r in records(tmp_path / "run") if r.method == "floor:mixture"]
    assert len({r.chunk for r in made}) == 12  # all 4 x 3 pairs, none of them twice
    batch = given.mixtures(EVALUATION, 2, make_bundle(), tmp_path / "run", None).batch(
        np.array([7])
    )
    for place, name in enumerate(made[7].chunk):
        track = tracks[str(name)]
        assert str(name).split("_")[1] == ("bass", "drums")[place]
        part = batch.truths[0, place, 0]
        own = track.read(("bass", "drums")[place])
        gain = (part[: track.frames] * own).sum() / own.square().sum()
        assert torch.allclose(part[: track.frames], gain * own, atol=1e-6)
        assert sounding_level(part[: track.frames], track.rate) == pytest.approx(0.05, rel=1e-4)
        assert not part[track.frames :].any()
    assert {row.summary.n for row in report.rows} == {12}
    with pytest.raises(OptionError, match=r"13 mixtures .* there are 12 combinations"):
        run(tmp_path / "more", given, num=13, methods=())


def test_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(OptionError, match=r"there are 12 chunks in which bass and drums sound"):
        run(tmp_path / "a", stimuli(root), num=13)
    with pytest.raises(OptionError, match=r"3 sources need as many stems.*--stems"):
        run(tmp_path / "b", stimuli(root, ("bass", "drums")), sources=(3,))
    with pytest.raises(DataError, match="no track has the stems bass, guitar"):
        run(tmp_path / "c", stimuli(root, ("bass", "guitar")), methods=())
    from tiny import make_bundle as images

    with pytest.raises(OptionError, match="the codec of bundle 'tiny' is of images"):
        run(tmp_path / "d", stimuli(root), bundle=images())
