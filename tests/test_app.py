"""The page without a browser: what it takes and offers, what it shows, what it leaves behind."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import audio_bundle
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mlass_ppl import MlassError, OptionError, SignalError, list_bundles, separate
from mlass_ppl.app import AppConfig, Choices, Limits, _gradio, digit_run, sound_run
from mlass_ppl.app.choices import SOUND_SHAPES
from mlass_ppl.app.desk import Desk, check_numbers, told
from mlass_ppl.app.digit_run import DigitRun
from mlass_ppl.app.digits import Mixing
from mlass_ppl.app.job import Job, Pace
from mlass_ppl.app.offered import offered
from mlass_ppl.app.prefixes import Prefixes
from mlass_ppl.app.sound_run import SoundRun
from mlass_ppl.app.sounds import Listening, stems_of
from mlass_ppl.audio import read_audio, write_audio
from mlass_ppl.cli import app as cli
from mlass_ppl.search import SMC

HAS_DIGITS = any(folder.name == "mnist" for folder in list_bundles())
digits = pytest.mark.skipif(not HAS_DIGITS, reason="the bundle `mnist` is not here")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("app"), Limits(candidates=32))


@pytest.fixture
def mixing() -> Mixing:
    out = Mixing()
    out.pick(3)
    out.pick(18)
    return out


class TestChoices:
    @digits
    def test_valid_pairs_are_offered_and_the_others_say_why(self, desk: Desk) -> None:
        choices = desk.choices("mnist")
        assert set(choices.offer("additive", 2).engines) == {
            "Auto", "BP", "Exact", "Extractor", "Truncated", "LoopyBP"
        }  # fmt: skip
        chain = choices.offer("chain", 2)
        assert "BP" in chain.engines
        assert "directly under observed features" in chain.refused["Truncated"]
        assert "cycle" in choices.offer("stereo", 2).refused["BP"]

    @digits
    def test_four_digits_have_the_additive_graph_alone(self, desk: Desk) -> None:
        found = offered(desk.choices("mnist"), 4, "chain", "BP")
        assert (found.graphs, found.graph) == (("additive",), "additive")
        assert found.engine in found.engines
        assert "no table" in found.why
        assert "chain" in found.why

    @digits
    def test_what_would_take_minutes_is_refused_before_it_is_planned(self, desk: Desk) -> None:
        began = time.monotonic()
        refused = desk.choices("mnist").offer("additive", 3).refused
        assert "operations" in refused["Exact"]
        assert time.monotonic() - began < 10
        with pytest.raises(OptionError, match=r"Exact is not offered.*operations"):
            desk.choices("mnist").offer("additive", 3).engine("Exact")

    @digits
    def test_unknown_graphs_name_the_known_ones(self, desk: Desk) -> None:
        with pytest.raises(OptionError, match="additive, chain, joint"):
            desk.choices("mnist").graph("ring", 2)


class TestMixing:
    def test_the_oldest_digit_gives_way(self) -> None:
        mixing = Mixing()
        for index in (1, 2, 3):
            mixing.pick(index)
        assert [digit.index for digit in mixing.digits] == [2, 3]
        mixing.resize(3)
        mixing.pick(4)
        assert [digit.index for digit in mixing.digits] == [2, 3, 4]
        mean, truths = mixing.mean(), mixing.truths
        assert mean is not None
        assert truths is not None
        torch.testing.assert_close(mean, truths[0].mean(0))

    def test_a_drawing_is_brought_to_a_digits_size(self, mixing: Mixing) -> None:
        canvas = np.full((280, 280), 255, np.uint8)
        canvas[20:120, 30:50] = 0
        mixing.draw(canvas)
        pixels = mixing.digits[-1].pixels
        assert pixels.shape == (1, 28, 28)
        rows = (pixels[0] > 0.5).any(1).nonzero()[:, 0]
        assert int(rows[-1] - rows[0]) == 19  # 20 pixels tall, and centred
        assert abs(float(rows.float().mean()) - 13.5) <= 1

    @pytest.mark.parametrize("canvas", [None, np.full((280, 280), 255, np.uint8)])
    def test_an_empty_canvas_is_told(self, mixing: Mixing, canvas: Any) -> None:
        with pytest.raises(OptionError, match="empty: draw"):
            mixing.draw(canvas)
        assert len(mixing.digits) == 2

    @digits
    def test_missing_digits_and_unfit_uploads_are_told(
        self, desk: Desk, mixing: Mixing, tmp_path: Path
    ) -> None:
        choices, path = desk.choices("mnist"), tmp_path / "mixture.png"
        mixing.resize(3)
        with pytest.raises(OptionError, match="2 of 3 digits are there"):
            mixing.observed(choices.graph("chain", 3))
        mixing.resize(2)
        left, right = mixing.observed(choices.graph("stereo", 2)).values()  # type: ignore[union-attr]
        first, second = (digit.pixels for digit in mixing.digits)
        torch.testing.assert_close(left, 0.7 * first + 0.3 * second)
        torch.testing.assert_close(right, 0.3 * first + 0.7 * second)
        Image.fromarray((first[0].numpy() * 255).astype(np.uint8)).save(path)
        mixing.upload(path, Limits(), whole=True)
        assert mixing.observed(choices.graph("chain", 2)).shape == (1, 28, 28)  # type: ignore[union-attr]
        with pytest.raises(SignalError, match="observes 2 mixtures"):
            mixing.observed(choices.graph("stereo", 2))


def noise(path: Path, seconds: float, rate: int = 8_000) -> Path:
    random = torch.Generator().manual_seed(1)
    write_audio(path, 0.1 * torch.randn(1, round(seconds * rate), generator=random), rate)
    return path


class TestBadUploads:
    def test_a_text_called_wav(self, tmp_path: Path) -> None:
        path = tmp_path / "song.wav"
        path.write_text("this is no sound")
        with pytest.raises(SignalError, match=r"song\.wav"):
            Limits().read_sound(path)

    def test_nan_in_a_sound(self, tmp_path: Path) -> None:
        soundfile = pytest.importorskip("soundfile")
        path = tmp_path / "nan.wav"
        soundfile.write(path, np.array([0.0, np.nan] * 500, np.float32), 8_000, "FLOAT")
        with pytest.raises(SignalError, match="NaN"):
            Limits().read_sound(path)

    def test_a_sound_without_samples(self, tmp_path: Path) -> None:
        soundfile = pytest.importorskip("soundfile")
        path = tmp_path / "none.wav"
        soundfile.write(path, np.zeros(0, np.float32), 8_000)
        with pytest.raises(SignalError, match=r"none\.wav"):
            Limits().read_sound(path)

    def test_long_sounds_name_the_command_that_takes_them(self, tmp_path: Path) -> None:
        path = noise(tmp_path / "long.wav", 2.0)
        with pytest.raises(SignalError, match=r"longer than 1\.5 s.*mlass separate"):
            Limits(sound_seconds=1.5).read_sound(path)
        assert Limits(sound_seconds=2.0).read_sound(path)[0].shape == (1, 16_000)

    def test_large_and_empty_files(self, tmp_path: Path) -> None:
        path = noise(tmp_path / "large.wav", 1.0)
        with pytest.raises(SignalError, match=r"takes up to 0\.01 MB"):
            Limits(upload_bytes=10_000).read_sound(path)
        path.write_bytes(b"")
        with pytest.raises(SignalError, match="empty"):
            Limits().read_sound(path)
        with pytest.raises(SignalError, match="Upload it again"):
            Limits().check_size(tmp_path / "gone.wav")

    @pytest.mark.parametrize("side", [5_000, 10_000])
    def test_images_of_many_pixels_are_refused_unread(self, tmp_path: Path, side: int) -> None:
        path = tmp_path / "bomb.png"
        Image.new("1", (side, side)).save(path)  # a few kB, a hundred MB when decoded
        assert path.stat().st_size < 200_000
        mixing = Mixing()
        with pytest.raises(SignalError, match=r"bomb\.png"):
            mixing.upload(path, Limits(), whole=False)
        assert not mixing.digits

    def test_a_cut_off_image_and_a_text(self, tmp_path: Path) -> None:
        buffer, path = io.BytesIO(), tmp_path / "cut.png"
        grey = np.random.default_rng(0).integers(0, 256, (100, 100), np.uint8)
        Image.fromarray(grey).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue()[:5_000])
        with pytest.raises(SignalError, match="damaged"):
            Mixing().upload(path, Limits(), whole=True)
        path.write_text("no image")
        with pytest.raises(SignalError, match="no image that can be read"):
            Mixing().upload(path, Limits(), whole=True)

    def test_messages_do_not_show_the_pages_folders(self, tmp_path: Path) -> None:
        path = tmp_path / "song.wav"
        shown = told(SignalError(f"'{path}' is no sound"), path)
        assert type(shown) is SignalError
        assert str(shown) == "'song.wav' is no sound"

    @pytest.mark.parametrize("value", [None, "many", float("nan"), 0, 65])
    def test_impossible_numbers_of_candidates(self, value: Any) -> None:
        with pytest.raises(OptionError, match="candidates: expected a whole number from 1 to 64"):
            check_numbers(Limits(), value, 0)


class TestJob:
    def frames(self, job: Job) -> list[int]:
        return list(job.frames())

    def test_each_frame_is_waited_for(self) -> None:
        def work(show: Any) -> str:
            for frame in range(5):
                show(frame)
            return "done"

        job = Job(work, Pace(10, every=True), threading.Lock())
        assert self.frames(job) == [0, 1, 2, 3, 4]
        assert job.result == "done"

    def test_else_the_newest_one_is_kept(self) -> None:
        job = Job(lambda show: [show(frame) for frame in range(1_000)], Pace(10), threading.Lock())
        seen = []
        for frame in job.frames():
            seen.append(frame)
            time.sleep(0.05)
        assert seen == sorted(seen)
        assert seen[-1] == 999
        assert len(seen) < 500

    def test_it_stops_and_lets_the_next_one_begin(self) -> None:
        busy = threading.Lock()

        def endless(show: Any) -> None:
            while True:
                show(0)

        job = Job(endless, Pace(10), busy)
        for _ in job.frames():
            job.stop()
        assert job.stopped
        assert not busy.locked()

    def test_it_does_not_go_on_for_ever_nor_for_nobody(self) -> None:
        def endless(show: Any) -> None:
            while True:
                show(0)

        with pytest.raises(OptionError, match=r"longer than 0.3 s.*mlass separate"):
            self.frames(Job(endless, Pace(0.3), threading.Lock()))
        busy = threading.Lock()
        job = Job(endless, Pace(30, every=True, patience=0.3), busy)
        left = job.frames()
        next(left)  # and nobody asks for the next one
        for _ in range(50):
            if not busy.locked():
                break
            time.sleep(0.1)
        assert not busy.locked()

    def test_errors_come_out(self) -> None:
        def work(show: Any) -> None:
            raise SignalError("bad signal")

        with pytest.raises(SignalError, match="bad signal"):
            self.frames(Job(work, Pace(10), threading.Lock()))


class TestPrefixes:
    @digits
    def test_pasts_are_those_of_the_candidates_that_are_left(
        self, desk: Desk, mixing: Mixing
    ) -> None:
        choices = desk.choices("mnist")
        graph, prefixes, seen = choices.graph("chain", 2), Prefixes(["source_1", "source_2"]), []
        found = separate(
            mixing.observed(graph),
            graph,
            choices.bundle,
            search=SMC(8),
            watch=lambda watched: seen.append(prefixes.add(watched)),
        )
        assert any(one.kinds < 8 for one in seen[5:])  # it did resample
        for name, tokens in found.candidate_tokens.items():
            assert torch.equal(prefixes.tokens[name], tokens[0])
        assert [len(one.tokens["source_1"]) for one in seen] == list(range(1, 50))
        for one in seen:  # what is shown is what its posterior allows
            for name, own in one.tokens.items():
                assert float(one.posterior.marginals()[name][0, one.row, own[-1]]) > 0

    def test_the_one_shown_is_followed_as_long_as_it_has_a_fair_share(self) -> None:
        def watched(weights: list[float], parents: list[int] | None = None) -> Any:
            tokens = {"a": torch.arange(len(weights))[None]}
            own = None if parents is None else torch.tensor([parents])
            return SimpleNamespace(
                position=0, length=3, posterior=None, tokens=tokens, parents=own,
                weights=torch.tensor([weights]).log(),
            )  # fmt: skip

        prefixes = Prefixes(["a"])
        assert prefixes.add(watched([0.2, 0.5, 0.3])).tokens["a"].tolist() == [1]
        seen = prefixes.add(watched([0.4, 0.3, 0.3], [0, 1, 1]))
        assert (seen.tokens["a"].tolist(), seen.row) == ([1, 1], 1)
        seen = prefixes.add(watched([0.9, 0.05, 0.05]))
        assert seen.tokens["a"].tolist() == [0, 0, 0]
        assert seen.share == pytest.approx(0.9)


class TestDigitRun:
    @digits
    def test_every_token_is_shown_and_the_archive_holds_the_result(
        self, desk: Desk, mixing: Mixing
    ) -> None:
        views = list(digit_run.run(desk, mixing, DigitRun("chain", "BP", 8, 0)))
        running = [view for view in views if "Token" in view.status]
        assert len(running) == 49
        assert "Token 49 of 49" in running[-1].status
        assert "messages of token 49" in running[-1].picture
        last = views[-1]
        assert not last.running
        assert "dB" in last.stage
        assert last.archive is not None
        with ZipFile(last.archive) as archive:
            assert set(archive.namelist()) == {
                "source_1.png", "source_2.png", "mixture.png", "sum.png", "true_1.png",
                "true_2.png", "graph.png", "evidence.png", "candidates.png", "result.json",
                "tokens.safetensors",
            }  # fmt: skip
            told = json.loads(archive.read("result.json"))
            mixture = np.array(Image.open(io.BytesIO(archive.read("mixture.png"))), float) / 255
            total = np.array(Image.open(io.BytesIO(archive.read("sum.png"))), float) / 255
        assert [len(own) for own in told["tokens"].values()] == [49, 49]
        assert told["infer"].startswith("BP(")
        assert np.square(total - mixture).mean() == pytest.approx(told["mixture_error"], abs=1e-4)
        assert [path.name for path in last.archive.parent.iterdir()] == ["mlass-digits.zip"]

    @digits
    def test_the_code_that_is_shown_gives_the_same_tokens(
        self, desk: Desk, mixing: Mixing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        *_, last = digit_run.run(desk, mixing, DigitRun("additive", "Auto", 4, 7, every=False))
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {}
        exec(last.code, names)
        assert last.archive is not None
        with ZipFile(last.archive) as archive:
            told = json.loads(archive.read("result.json"))
        for name, own in names["out"].tokens.items():
            assert own[0].tolist() == told["tokens"][name]

    @digits
    def test_a_graph_with_a_cycle_and_an_engine_without_messages(
        self, desk: Desk, mixing: Mixing
    ) -> None:
        *running, last = digit_run.run(desk, mixing, DigitRun("stereo", "Exact", 2, 0, every=False))
        assert "passes no messages" in running[-1].picture
        assert last.archive is not None
        with ZipFile(last.archive) as archive:
            assert {"left.png", "right.png", "sum_left.png"} <= set(archive.namelist())

    @digits
    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            (DigitRun("chain", "Truncated"), "not offered"),
            (DigitRun("chain", "BP", float("nan")), "candidates"),
            (DigitRun("chain", "BP", 4, -1), "seed"),
            (DigitRun("__import__('os')", "BP"), "there is no graph"),
        ],
    )
    def test_what_cannot_be_is_told(
        self, desk: Desk, mixing: Mixing, asked: DigitRun, says: str
    ) -> None:
        *_, last = digit_run.run(desk, mixing, asked)
        assert "mlass-problem" in last.status
        assert says in last.status

    @digits
    def test_it_can_be_stopped(self, desk: Desk, mixing: Mixing) -> None:
        views = []
        for view in digit_run.run(desk, mixing, DigitRun("chain", "BP", 8, 0)):
            views.append(view)
            if "Token 5 " in view.status:
                mixing.leave()
        assert len(views) < 12
        assert "Stopped" in views[-1].status
        assert views[-1].archive is None


class TestSound:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Desk:
        bundle = audio_bundle.make_bundle()
        return Desk(tmp_path, Limits(), {"band": Choices(bundle, SOUND_SHAPES, 8)})

    def test_stems_come_out_and_add_up(self, small: Desk) -> None:
        listening = Listening()
        mixture, _ = audio_bundle.song(0.4, 8_000)
        listening.samples, listening.rate, listening.name = mixture[None], 8_000, "song.wav"
        asked = SoundRun("band", ["bass", "drums"], "chain", "BP", 2)
        *_, last = sound_run.run(small, listening, asked)
        assert [name for name, _ in last.files] == ["bass", "drums"]
        assert last.archive is not None
        with ZipFile(last.archive) as archive:
            archive.extractall(small.folder / "out")
        parts = {
            name: read_audio(small.folder / "out" / f"{name}.wav").samples
            for name in ("bass", "drums", "mixture")
        }
        torch.testing.assert_close(parts["bass"] + parts["drums"], parts["mixture"], atol=1e-4,
                                   rtol=0)  # fmt: skip
        told = json.loads((small.folder / "out" / "result.json").read_text("utf-8"))
        assert told["stems"] == ["bass", "drums"]

    def test_no_sound_and_wrong_stems_are_told(self, small: Desk) -> None:
        *_, last = sound_run.run(small, Listening(), SoundRun("band", ["bass", "drums"], "x", "y"))
        assert "there is no sound yet" in last.status
        *_, last = sound_run.run(small, Listening(), SoundRun("band", ["bass"], "x", "y"))
        assert "choose 2 to 4 stems" in last.status

    @pytest.mark.parametrize("bundle", ["band", "spoken"])
    def test_examples_are_short_sounds(self, bundle: str, tmp_path: Path) -> None:
        listening = Listening()
        listening.make(bundle)
        assert 0 < listening.seconds <= 3
        audio = read_audio(listening.write(tmp_path))
        assert 0.02 < float(audio.samples.abs().max()) <= 1

    def test_unknown_bundles_have_no_stems(self) -> None:
        assert stems_of("nothing") == ()


class TestServing:
    def test_results_are_swept(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path, Limits(kept_seconds=60))
        old, new = desk.place(), desk.place()
        (old / "x.zip").write_bytes(b"x")
        os.utime(old, (time.time() - 100,) * 2)
        desk.sweep()
        assert not old.exists()
        assert new.exists()

    def test_without_gradio_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> Any:
            raise ModuleNotFoundError(f"No module named '{name}'")

        monkeypatch.setattr(_gradio, "import_module", missing)
        with pytest.raises(MlassError, match=r'pip install "mlass-ppl\[app\]"'):
            _gradio.gradio()
        old = SimpleNamespace(__version__="3.36.1")
        monkeypatch.setattr(_gradio, "import_module", lambda name: old)
        with pytest.raises(MlassError, match=r"6 or newer, got 3\.36\.1"):
            _gradio.gradio()

    def test_options_of_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OptionError, match="1 to 65535"):
            AppConfig(port=0)
        with pytest.raises(OptionError, match="positive"):
            Limits(seconds=0)

        def missing(name: str) -> Any:
            raise ImportError("no gradio here")

        monkeypatch.setattr(_gradio, "import_module", missing)
        ran = CliRunner().invoke(cli, ["app", "--host", "0.0.0.0", "--no-browser"])
        assert ran.exit_code == 2
        assert "no password" in ran.output
        assert "mlass-ppl[app]" in ran.output
