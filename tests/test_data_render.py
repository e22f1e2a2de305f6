"""`mlass data render`: a short song to stems, resumed, split, and every way to fail."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("soundfile", reason="soundfile is not installed (extra [sound])")
mido = pytest.importorskip("mido", reason="mido is not installed (extra [sound])")

from test_data_midi import band, note, program, save  # noqa: E402

from mlass_ppl.cli import app  # noqa: E402
from mlass_ppl.data.audio import (  # noqa: E402
    Activity,
    FluidSynth,
    find_chunks,
    find_songs,
    read_midi,
    render_songs,
    slakh,
    song_of,
    vary_songs,
)
from mlass_ppl.errors import DataError, MlassError, OptionError  # noqa: E402

RATE = 8_000


def _missing() -> str:
    try:
        FluidSynth().ready()
    except DataError as error:
        return str(error)
    return ""


sounding = pytest.mark.skipif(bool(_missing()), reason=_missing())


def mlass(*arguments: object):
    return CliRunner().invoke(app, ["data", "render", *map(str, arguments)])


@pytest.fixture(scope="module")
def midi(tmp_path_factory) -> Path:
    """Three songs from two sources, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("midi")
    band(folder / "games" / "band.mid")
    save(folder / "films" / "solo.mid", [program(0, 0), *note(0, 60, 0), *note(0, 64, 480)])
    (folder / "films" / "broken.mid").write_bytes(b"MThd")
    return folder


@pytest.fixture(scope="module")
def rendered(midi, tmp_path_factory):
    if _missing():
        pytest.skip(_missing())
    out = tmp_path_factory.mktemp("rendered") / "set"
    return out, mlass("--midi", midi, "--out", out, "--rate", RATE, "--test", "films", "--jobs", 2)


def test_a_song_is_rendered_to_its_stems(rendered):
    out, _ = rendered
    found = slakh(out)
    assert found.notices == ()
    track = found["games_band"]
    assert list(track.stems) == ["bass", "drums", "guitar", "other"]
    assert (track.rate, track.split, track.source) == (RATE, "train", "games")
    assert found["films_solo"].split == "test"
    assert list(found["films_solo"].stems) == ["piano"]
    total = torch.zeros(track.frames)
    for name in track.stems:
        signal = track.read(name)
        assert signal.square().mean() > 1e-5, f"{name} is silent"
        total += signal
    assert torch.equal(total, track.mixture.read(0, track.frames))
    peak = max(float(s.abs().max()) for s in (total, *map(track.read, track.stems)))
    assert 20 * torch.tensor(peak).log10() == pytest.approx(-1, abs=0.01)
    assert len(find_chunks(found, Activity(("bass", "drums"), seconds=0.5)))


def test_stems_sound_when_their_notes_do(rendered):
    """The guitar enters when its channel changes program, after one beat of 0.4 s."""
    track = slakh(rendered[0])["games_band"]
    guitar = track.read("guitar")
    assert not guitar[: int(0.39 * RATE)].any()
    assert guitar[int(0.4 * RATE) : int(0.6 * RATE)].square().mean() > 1e-4
    assert track.read("bass")[: int(0.2 * RATE)].square().mean() > 1e-4


def test_stems_are_those_of_the_song_played_as_a_whole(rendered, midi, tmp_path):
    """FluidSynth adds up voices, so that the parts' sum is the whole but for its own gain."""
    track = slakh(rendered[0])["games_band"]
    whole = FluidSynth(rate=RATE).play(midi / "games" / "band.mid")[: track.frames]
    mix = track.mixture.read(0, track.frames)[: len(whole)]
    gain = (mix @ whole) / (whole @ whole)
    assert (mix - gain * whole).square().sum() < 1e-4 * mix.square().sum()
    for name, part in read_midi(midi / "games" / "band.mid").parts.items():
        part.midi.save(str(tmp_path / "part.mid"))
        alone = gain * FluidSynth(rate=RATE).play(tmp_path / "part.mid")
        stem = track.read(name)[: len(alone)]
        assert (stem - alone[: len(stem)]).abs().max() < 2 / 32768


def test_a_song_that_fails_is_told_and_the_others_are_kept(rendered):
    out, result = rendered
    assert result.exit_code == 1
    assert "films_broken failed: " in result.output
    assert "broken.mid' is missing, damaged" in result.output.replace("\n", "")
    assert "2 songs rendered, 0 there already, 1 failed" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["manifest.csv", "test", "train"]


def test_the_manifest_lists_what_is_there(rendered):
    rows = list(csv.DictReader((rendered[0] / "manifest.csv").open()))
    assert [(row["track"], row["split"], row["midi_file"]) for row in rows] == [
        ("films_solo", "test", "solo.mid"), ("games_band", "train", "band.mid")
    ]  # fmt: skip
    assert rows[0]["bass"] == "0"
    assert int(rows[0]["piano"]) >= 1


def stamps(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*.flac")}


def test_finished_songs_are_kept_and_follow_their_split(rendered, midi, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(rendered[0], out)
    before = stamps(out)
    again = mlass("--midi", midi, "--out", out, "--rate", RATE, "--test", "films")
    assert "0 songs rendered, 2 there already, 1 failed" in again.output
    assert stamps(out) == before
    moved = mlass("--midi", midi, "--out", out, "--rate", RATE, "--validation", "films")
    assert "0 songs rendered, 2 there already, 1 failed" in moved.output
    assert {track.name: track.split for track in slakh(out)} == {
        "films_solo": "validation", "games_band": "train"
    }  # fmt: skip


def test_an_interrupted_song_is_rendered_again(rendered, midi, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(rendered[0], out)
    shutil.move(out / "train", out / ".parts")  # as a call leaves it that is killed
    (out / ".parts" / "games_band" / "metadata.yaml").unlink()
    assert [track.name for track in slakh(out)] == ["films_solo"]
    result = mlass("--midi", midi, "--out", out, "--rate", RATE, "--test", "films")
    assert "1 songs rendered, 1 there already, 1 failed" in result.output
    first, second = slakh(rendered[0])["games_band"], slakh(out)["games_band"]
    for name in first.stems:
        assert torch.equal(first.read(name), second.read(name))  # same file, same samples


def test_variants_are_rendered_to_the_split_and_the_stems_of_their_songs(rendered, midi, tmp_path):
    report = vary_songs(find_songs(midi), tmp_path / "midi", variants=1)
    assert report.new == ["films_solo~1", "games_band~1"]
    result = mlass(
        "--midi", tmp_path / "midi", "--out", tmp_path / "set", "--rate", RATE, "--test", "films"
    )
    assert result.exit_code == 0, result.output
    songs = slakh(rendered[0])
    for variant in slakh(tmp_path / "set"):
        song = songs[song_of(variant.name)]
        assert (variant.split, variant.source) == (song.split, song.source)
        assert list(variant.stems) == list(song.stems)
        for stem in song.stems:
            own, other = song.read(stem), variant.read(stem)
            assert other.square().mean() > 1e-6, f"{stem} of {variant.name} is silent"
            frames = min(len(own), len(other))
            assert not torch.allclose(own[:frames], other[:frames], atol=1e-3)


def test_other_settings_do_not_touch_what_is_there(rendered, midi, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(rendered[0], out)
    result = mlass("--midi", midi, "--out", out, "--rate", 2 * RATE, "--test", "films")
    assert result.exit_code == 1
    assert "was rendered with sample_rate 8000, now it is 16000" in result.output
    assert slakh(out)["games_band"].rate == RATE


@sounding
def test_what_fluidsynth_cannot_play_is_an_error_not_silence(tmp_path):
    font = tmp_path / "font.sf2"
    font.write_bytes(b"RIFF\x10\0\0\0sfbk" + bytes(100))
    with pytest.raises(DataError, match="fluidsynth could not play"):
        FluidSynth(font).play(band(tmp_path / "a.mid"))
    (tmp_path / "b.mid").write_bytes(b"no song")
    with pytest.raises(DataError, match="fluidsynth could not play"):
        FluidSynth().play(tmp_path / "b.mid")
    font.write_bytes(b"no font")
    with pytest.raises(DataError, match="is no SoundFont"):
        FluidSynth(font).ready()


@sounding
def test_a_song_of_silence_is_told(tmp_path):
    mute = mido.Message("control_change", channel=0, control=7, value=0)
    save(tmp_path / "midi" / "a.mid", [mute, *note(0, 60, 0)])
    songs = find_songs(tmp_path / "midi")
    report = render_songs(songs, ["train"], tmp_path / "out", FluidSynth(rate=RATE))
    assert "renders to silence" in report.failed["a"]


# --- without FluidSynth --------------------------------------------------------------------------


def test_a_missing_program_or_soundfont_says_how_to_install_it(midi, tmp_path, monkeypatch):
    from mlass_ppl.data.audio import fluidsynth

    (tmp_path / "fluidsynth").write_text("#!/bin/sh\n")
    (tmp_path / "fluidsynth").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"no SoundFont 'none\.sf2'.*apt install"):
        FluidSynth(Path("none.sf2")).ready()
    monkeypatch.setattr(fluidsynth, "_PLACES", ())
    with pytest.raises(DataError, match=r"give one with --soundfont.*apt install"):
        FluidSynth().ready()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    result = mlass("--midi", midi, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "fluidsynth is not on the PATH" in result.output
    assert "brew install fluid-synth" in result.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_impossible_options(midi, tmp_path):
    for options in ({"rate": 100}, {"gain": 0}, {"gain": float("nan")}):
        with pytest.raises(OptionError, match="FluidSynth"):
            FluidSynth(**options)
    songs = find_songs(midi)
    with pytest.raises(OptionError, match="one or more jobs"):
        render_songs(songs, ["train"] * len(songs), tmp_path, FluidSynth(), jobs=0)
    for splits in (["train"], ["train", "test", "rest"]):
        with pytest.raises(MlassError, match="expected a split for each song"):
            render_songs(songs, splits, tmp_path, FluidSynth())
    result = mlass("--midi", midi, "--out", tmp_path / "out", "--test", "film")
    assert result.exit_code == 2
    assert "'film' is no source or composer of the songs; expected" in result.output
