"""`mlass separate` on sound, in-process, with a tiny bundle that is read from disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from audio_bundle import RATE, STEMS, make_bundle, song
from typer.testing import CliRunner

from mlass_ppl import OptionError
from mlass_ppl.audio import read_audio, write_audio
from mlass_ppl.cli import app
from mlass_ppl.cli._songs_job import stems_of, takes_sound

QUICK = ("--bundle", "tiny-band", "--infer", "bp", "--candidates", 2, "--out", "out")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    make_bundle().save(home / "tiny-band")
    return home


@pytest.fixture
def mlass(home, tmp_path, monkeypatch):
    """Runs a command line in an empty folder with the tiny bundle."""
    monkeypatch.setenv("MLASS_MODELS", str(home))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exit_code != code:
            raise AssertionError(f"exit code {result.exit_code}: {result.output}{result.exception}")
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def mixes(tmp_path):
    """A folder with songs of several formats, rates and channels."""
    folder = tmp_path / "songs"
    kinds = {"a.wav": (RATE, (1.0,)), "b.flac": (44_100, (1.0, 0.5)), "c.ogg": (22_050, (0.7,)),
             "d.mp3": (48_000, (1.0, 1.0))}  # fmt: skip
    for name, (rate, gains) in kinds.items():
        mono, _ = song(0.3, rate)
        write_audio(folder / name, torch.stack([gain * mono for gain in gains]), rate)
    (folder / "notes.txt").write_text("no sound")
    return folder


def stems_in(folder):
    return {file.stem: read_audio(file).samples for file in Path(folder).glob("*.*")
            if file.suffix != ".json"}  # fmt: skip


def test_each_song_gets_a_folder_of_stems_that_sum_to_it(mlass, mixes):
    result = mlass("separate", mixes, *QUICK)
    for name in ("a.wav", "b.flac", "c.ogg", "d.mp3"):
        folder = Path("out") / name[0]
        assert {file.name for file in folder.iterdir()} == {
            "bass.wav",
            "drums.wav",
            "piano.wav",
            "facts.json",
        }
        given, info = read_audio(mixes / name), soundfile.info(mixes / name)
        made = stems_in(folder)
        assert all(own.shape == given.samples.shape for own in made.values())
        assert soundfile.info(folder / "bass.wav").samplerate == info.samplerate
        assert torch.allclose(sum(made.values()), given.samples, atol=1e-4)
        facts = json.loads((folder / "facts.json").read_text())
        assert facts["program"] == "chain(bass, drums, piano)"
        assert facts["engine"].startswith("BP(")
        assert facts["file"] == str(mixes / name)
        assert facts["real_time_factor"] > 0
    assert "x real time" in result.output
    assert "b.flac: separated at 8,000 Hz and brought back to 44,100 Hz" in result.output


def test_what_is_finished_is_kept_unless_forced(mlass, mixes):
    mlass("separate", mixes / "a.wav", *QUICK)
    before = (Path("out/a/bass.wav")).stat().st_mtime_ns
    result = mlass("separate", mixes / "a.wav", *QUICK)
    assert "kept out/a (--force separates it again)" in result.output
    assert Path("out/a/bass.wav").stat().st_mtime_ns == before
    mlass("separate", mixes / "a.wav", *QUICK, "--force", "--two-stems", "drums")
    names = {file.name for file in Path("out/a").iterdir()}
    assert names == {"drums.wav", "no_drums.wav", "facts.json"}  # no leftovers
    made = stems_in("out/a")
    mixture = read_audio(mixes / "a.wav").samples
    assert torch.allclose(made["drums"] + made["no_drums"], mixture, atol=1e-4)


def test_files_of_ones_own_are_never_replaced(mlass, mixes):
    mine = Path("out/a/bass.wav")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    Path("out/b").write_bytes(b"mine")
    result = mlass("separate", mixes / "a.wav", mixes / "b.flac", mixes / "c.ogg", *QUICK, code=1)
    assert "'out/a/bass.wav' exists and is kept; --force replaces it." in result.output
    assert "'out/b' is a file" in result.output
    assert mine.read_bytes() == b"mine"
    assert len(list(mine.parent.iterdir())) == 1
    assert Path("out/c/facts.json").is_file()  # the others went on
    mlass("separate", mixes / "a.wav", *QUICK, "--force")
    assert soundfile.info(mine).frames > 0


def test_a_file_that_fails_does_not_stop_the_others(mlass, mixes):
    whole = (mixes / "b.flac").read_bytes()
    (mixes / "half.flac").write_bytes(whole[: len(whole) // 2])
    (mixes / "empty.wav").touch()
    write_audio(mixes / "one.wav", torch.tensor([0.5]), RATE)
    write_audio(mixes / "silent.wav", torch.zeros(2, 900), RATE)
    clipped = (30 * song(0.3)[0]).clamp(-1, 1)
    write_audio(mixes / "clipped.wav", clipped, RATE, encoding="int16")
    nan = torch.zeros(90)
    nan[7] = float("nan")
    soundfile.write(mixes / "nan.wav", nan.numpy(), RATE, subtype="FLOAT")
    result = mlass("separate", mixes, "nowhere.wav", *QUICK, code=1)
    for text in (
        "half.flac",
        "empty.wav' is empty",
        "nan.wav' holds NaN",
        "no file or folder 'nowhere.wav'",
        "4 not separated",
        "silent.wav: the file is silent",
        "clipped.wav: clipped",
    ):
        assert text in result.output
    done = {path.parent.name for path in Path("out").glob("*/facts.json")}
    assert done == {"a", "b", "c", "d", "one", "silent", "clipped"}
    assert not any(own.any() for own in stems_in("out/silent").values())
    assert stems_in("out/one")["bass"].shape == (1, 1)
    assert torch.allclose(sum(stems_in("out/clipped").values()), clipped, atol=1e-3)
    assert not list(Path("out").rglob(".*"))


def test_an_interrupted_run_leaves_no_half_song(mlass, mixes, monkeypatch):
    from mlass_ppl.songs import chunks

    class Stop(KeyboardInterrupt):
        pass

    real, calls = chunks.separate, []

    def separate(*given, **options):
        calls.append(1)
        if len(calls) == 2:
            raise Stop
        return real(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "separate", separate)
        result = CliRunner().invoke(
            app, ["separate", str(mixes / "a.wav"), *map(str, QUICK), "--batch-size", "1"]
        )
    assert result.exit_code != 0
    assert len(calls) == 2
    assert not list(Path("out/a").iterdir())
    mlass("separate", mixes / "a.wav", *QUICK)
    assert Path("out/a/facts.json").is_file()


def test_stems_of_ones_choice(mlass, mixes):
    for number, options in enumerate(
        [("--sources", "drums", "bass"), ("--sources", "drums", "--sources", "bass")]
    ):
        out = ("--out", f"out{number}")
        mlass("separate", mixes / "a.wav", *QUICK, *out, *options)
        assert json.loads(Path(f"out{number}/a/facts.json").read_text())["files"] == [
            "drums.wav",
            "bass.wav",
        ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--sources", "bass", "voice"),
            "no stem 'voice': bundle 'tiny-band' has bass, drums, pia",
        ),
        (("--sources", "2"), "takes names of stems here, not 2"),
        (("--sources", "bass", "bass"), "names a stem twice"),
        (("--sources", "bass"), "two or more sources"),
        (("--two-stems", "voice"), "one of the stems bass, drums, piano; got 'voice'"),
        (("--two-stems", "bass", "--residual"), "there is no residual"),
        (("--postfilter", "loud"), "unknown --postfilter 'loud': expected one of wiener, none"),
        (("--suffix", "m4a"), "written as .wav, .flac, .ogg, .mp3"),
        (("--clip", "wrap"), "'rescale' or 'clamp', got 'wrap'"),
        (("--suffix", "mp3", "--int16"), "MP3 takes no encoding"),
        (("--on-unseen", "skip"), "--on-unseen must be error or prior"),
        (("--keep", "2"), "--mixture and --keep are for images"),
        (("--batch-size", "0"), "batch_size must be a whole number"),
        (("--infer", "truncate"), "unknown engine 'truncate'"),
    ],
)
def test_bad_options_teach(mlass, mixes, options, message):
    result = mlass("separate", mixes / "a.wav", *QUICK, *options, code=2)
    assert message in result.output
    assert not Path("out").exists()


def test_files_are_not_taken_for_stems(mlass, mixes):
    result = mlass("separate", *QUICK, "--sources", "bass", "drums", mixes / "a.wav", code=2)
    assert "Files stand before --sources, or behind --" in result.output
    mlass("separate", *QUICK, "--sources", "bass", "drums", "--", mixes / "a.wav")
    assert Path("out/a/drums.wav").is_file()
    assert "expected sound files" in mlass("separate", *QUICK, code=2).output


@pytest.mark.parametrize(
    ("options", "suffix", "subtype"),
    [
        (("--int16",), ".wav", "PCM_16"),
        (("--float32",), ".wav", "FLOAT"),
        (("--suffix", "flac"), ".flac", "PCM_16"),
        (("--suffix", ".mp3"), ".mp3", "MPEG_LAYER_III"),
    ],
)
def test_the_encoding_is_the_one_asked_for(mlass, mixes, options, suffix, subtype):
    mlass("separate", mixes / "b.flac", *QUICK, *options)
    files = [file for file in Path("out/b").iterdir() if file.name != "facts.json"]
    assert {file.name for file in files} == {f"{name}{suffix}" for name in STEMS}
    assert {soundfile.info(file).subtype for file in files} == {subtype}


def test_loud_stems_are_rescaled_alike_or_clamped(mlass, tmp_path):
    mono, _ = song(0.3)
    write_audio("loud.wav", 8 * mono / mono.abs().max(), RATE)
    for options in ((), ("--int16",), ("--int16", "--clip", "clamp")):
        out = "-".join(("out", *options))
        result = mlass("separate", "loud.wav", *QUICK, *options, "--out", out)
        made = stems_in(f"{out}/loud")
        peak = max(float(own.abs().max()) for own in made.values())
        if not options:
            assert peak > 1.0
            whole = made
        elif "clamp" in options:
            assert "samples beyond full scale were cut off" in result.output
            assert all(torch.allclose(made[name], whole[name].clamp(-1, 1), atol=1e-4)
                       for name in STEMS)  # fmt: skip
        else:
            assert "turned down to" in result.output
            loudest = max(float(own.abs().max()) for own in whole.values())
            assert all(torch.allclose(made[name], whole[name] / loudest, atol=1e-4)
                       for name in STEMS)  # fmt: skip


def test_residual_and_raw_stems(mlass, mixes):
    mlass("separate", mixes / "b.flac", *QUICK, "--postfilter", "none", "--residual")
    made = stems_in("out/b")
    assert set(made) == {*STEMS, "residual"}
    assert torch.allclose(sum(made.values()), read_audio(mixes / "b.flac").samples, atol=1e-4)
    assert made["residual"].abs().max() > 1e-3
    assert torch.equal(made["bass"][0], made["bass"][1])


@pytest.mark.parametrize(
    ("infer", "program"),
    [("auto", "additive(bass, drums)"), ("exact", "joint(bass, drums)"),
     ("bp", "chain(bass, drums)"), ("truncated", "additive(bass, drums)")],
)  # fmt: skip
def test_every_engine_has_its_program(mlass, mixes, infer, program):
    mlass("separate", mixes / "a.wav", "--sources", "bass", "drums", *QUICK, "--infer", infer)
    assert json.loads(Path("out/a/facts.json").read_text())["program"] == program


def test_a_program_file_names_its_own_stems(mlass, mixes):
    Path("duo.py").write_text(
        "from mlass_ppl import Feature, mix, source\n"
        "def duo():\n"
        '    parts = source("low", prior="bass"), source("high", prior="piano")\n'
        '    return mix("mixture", *parts, weights=(0.5, 0.5))\n'
    )
    result = mlass("separate", mixes / "a.wav", *QUICK, "--program", "duo.py", code=2)
    assert "mlass count" in result.output  # its table is not there
    result = mlass("separate", mixes / "a.wav", *QUICK, "--program", "duo.py", "--sources", "bass",
                   "drums", code=2)  # fmt: skip
    assert "Leave --sources out" in result.output
    mlass("separate", mixes / "a.wav", *QUICK, "--program", "chain")
    assert Path("out/a/piano.wav").is_file()


def test_the_same_seed_gives_the_same_stems(mlass, mixes):
    options = (*QUICK, "--postfilter", "none", "--seed")
    mlass("separate", mixes / "a.wav", *options, 3, "--out", "one")
    mlass("separate", mixes / "a.wav", mixes / "c.ogg", *options, 3, "--out", "two")
    mlass("separate", mixes / "a.wav", *options, 4, "--out", "three")
    one, two, three = (stems_in(f"{name}/a") for name in ("one", "two", "three"))
    assert all(torch.equal(one[name], two[name]) for name in STEMS)
    assert any(not torch.equal(one[name], three[name]) for name in STEMS)


def test_what_an_earlier_run_wrote_is_no_song(mlass, mixes):
    mlass("separate", mixes / "a.wav", "--bundle", "tiny-band", "--infer", "bp", "--candidates", 2,
          "--out", mixes / "out")  # fmt: skip
    mlass("separate", mixes, *QUICK)
    assert sorted(path.name for path in Path("out").iterdir()) == ["a", "b", "c", "d"]


def test_stems_by_name_of_bundles():
    bundle = make_bundle()
    assert stems_of(bundle, None) == list(STEMS)
    assert stems_of(bundle, ["piano", "bass"]) == ["piano", "bass"]
    one = make_bundle(("bass",))
    assert stems_of(one, None) == 2
    assert stems_of(one, ["3"]) == 3
    with pytest.raises(OptionError, match="no stem 'drums': bundle 'tiny-band' has bass"):
        stems_of(one, ["drums"])


def test_the_bundle_says_what_its_files_are(mlass, mixes, home):
    assert takes_sound("tiny-band")
    assert takes_sound(str(home / "tiny-band"))
    assert not takes_sound("nowhere")
    result = mlass("separate", mixes / "a.wav", "--bundle", "nowhere", code=2)
    assert "no bundle 'nowhere'" in result.output
    (home / "broken").mkdir(exist_ok=True)
    (home / "broken" / "bundle.json").write_text("{")
    assert not takes_sound("broken")


def test_options_of_sound_are_refused_for_images(mlass, mixes, tmp_path, home):
    from test_cli import K, _codec
    from transformers import GPT2LMHeadModel

    from mlass_ppl.bundle import Bundle
    from mlass_ppl.data.digits import bundled_digits
    from mlass_ppl.priors import CausalLM, gpt2_config
    from mlass_ppl.shapes import additive

    images, _ = bundled_digits(range(40))
    model = GPT2LMHeadModel(gpt2_config(K, 49, width=16, layers=1, heads=2)).eval()
    bundle = Bundle("digits", _codec(images), {"digit": CausalLM(model, K)})
    bundle.count(additive(2), images, mixtures=50).save(home / "digits")
    for options, message in [
        ((mixes / "a.wav",), "a.wav' is sound, and bundle 'digits' is of images"),
        ((mixes / "a.png", "--two-stems", "bass"), "--two-stems is for sound"),
        ((mixes / "a.png", "--int16"), "--float32/--int16 is for sound"),
        ((mixes / "a.png", "--residual"), "--residual is for sound"),
        ((mixes / "a.png", "--batch-size", "3"), "--batch-size is for sound"),
        ((mixes / "a.png", "--sources", "bass", "drums"), "number of sources of an image"),
    ]:
        assert message in mlass("separate", *options, "--bundle", "digits", code=2).output
