"""Variants of songs: what changes and what does not, the folder of them, and the command."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

mido = pytest.importorskip("mido", reason="mido is not installed (extra [sound])")

from test_data_midi import band, class_of, note, notes_at, program, save  # noqa: E402

from mlass_ppl.cli import app  # noqa: E402
from mlass_ppl.data.audio import (  # noqa: E402
    find_songs,
    hold_out,
    read_midi,
    song_of,
    vary_song,
    vary_songs,
)
from mlass_ppl.data.audio.vary import KITS, RANGES, SEMITONES  # noqa: E402
from mlass_ppl.errors import DataError, OptionError  # noqa: E402


def vary(path: Path, seed: int = 0, **options: Any):
    return vary_song(mido.MidiFile(str(path)), np.random.default_rng(seed), **options)


def messages(midi) -> list[dict[str, Any]]:
    return [message.dict() for message in mido.merge_tracks(midi.tracks)]


def melody(channel: int, number: int, notes: int = 60, key: int = 60) -> list:
    tune = [part for step in range(notes) for part in note(channel, key + step % 5, 0, 120)]
    return [program(channel, number), *tune]


# --- a song --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_variant_and_leaves_the_song_alone(tmp_path):
    song = mido.MidiFile(str(band(tmp_path / "a.mid")))
    before = [messages(song), song.type, song.ticks_per_beat]
    variants = [vary_song(song, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert [messages(song), song.type, song.ticks_per_beat] == before
    assert messages(variants[0]) == messages(variants[1]) != messages(variants[2])
    variants[0].save(str(tmp_path / "v.mid"))
    assert messages(mido.MidiFile(str(tmp_path / "v.mid"))) == messages(variants[0])


def test_notes_keep_their_places_and_classes_and_move_together(tmp_path):
    path = band(tmp_path / "a.mid")
    own = notes_at(mido.MidiFile(str(path)))
    shifts, programs = set(), Counter()
    for seed in range(40):
        found = notes_at(vary(path, seed))
        assert [(tick, channel) for tick, channel, _, _ in found] == [n[:2] for n in own]
        assert [class_of(n) for n in found] == [class_of(n) for n in own]
        assert [n[3] // 8 for n in found if n[1] != 9] == [n[3] // 8 for n in own if n[1] != 9]
        moved = {a[2] - b[2] for a, b in zip(found, own, strict=True) if b[1] != 9}
        assert len(moved) == 1  # all lie in their ranges
        assert moved <= {*SEMITONES}
        assert [n[2] for n in found if n[1] == 9] == [n[2] for n in own if n[1] == 9]
        assert {n[3] for n in found if n[1] == 9} <= {*KITS}
        shifts |= moved
        programs.update(n[3] for n in found if n[1] == 2)
    assert len(shifts) > 8
    assert len(programs) > 5


def test_tempo_and_velocities_change_within_their_ranges(tmp_path):
    path = band(tmp_path / "a.mid")
    whole = mido.MidiFile(str(path)).length
    ratios, levels = [], []
    for seed in range(40):
        varied = vary(path, seed)
        varied.save(str(tmp_path / "v.mid"))
        ratios.append(mido.MidiFile(str(tmp_path / "v.mid")).length / whole)
        levels += [m["velocity"] for m in messages(varied) if m.get("velocity")]
    assert 0.82 <= min(ratios) < 0.88
    assert 1.16 < max(ratios) <= 1.221
    assert 0.75 * 0.6 * 90 - 1 <= min(levels) < 60  # all of the song's are 90
    assert 110 < max(levels) <= 127


def test_a_song_that_tells_neither_tempo_nor_programs_is_varied_too(tmp_path):
    path = save(tmp_path / "a.mid", [*note(0, 60, 0), *note(9, 36, 100)])
    tempi, first = set(), set()
    for seed in range(10):
        found = messages(vary(path, seed))
        tempi |= {m["tempo"] for m in found if m["type"] == "set_tempo"}
        first |= {(m["channel"], m["program"]) for m in found if m["type"] == "program_change"}
        assert [n[0] for n in notes_at(vary(path, seed))] == [0, 340]
    assert len(tempi) == 10
    assert {number for channel, number in first if channel == 0} <= {*range(8)}
    assert len(first) > 6


def test_programs_are_told_after_a_reset(tmp_path):
    reset = mido.Message("sysex", data=(0x7E, 0x7F, 0x09, 0x01))
    kinds = [m["type"] for m in messages(vary(save(tmp_path / "a.mid", [reset, *note(0, 60, 0)])))]
    assert kinds.index("sysex") < kinds.index("program_change") < kinds.index("note_on")


def test_kits_with_other_places_stay(tmp_path):
    path = save(tmp_path / "a.mid", [program(9, 48), *note(9, 41, 0)])
    assert {n[3] for seed in range(5) for n in notes_at(vary(path, seed))} == {48}


@pytest.mark.parametrize(("own", "name"), [(0, "piano"), (25, "guitar"), (33, "bass")])
def test_notes_come_back_into_the_range_by_octaves_and_end_where_they_began(own, name, tmp_path):
    low, high = RANGES[name]
    keys = [0, low - 1, low, low + 3, high - 2, high, high + 1, 127]
    path = save(tmp_path / "a.mid", [program(0, own), *(m for k in keys for m in note(0, k, 0))])
    for seed in range(12):
        found = [m for m in messages(vary(path, seed)) if m["type"] == "note_on"]
        begun = [m["note"] for m in found if m["velocity"]]
        assert begun == [m["note"] for m in found if not m["velocity"]]
        assert all(low <= key <= high for key in begun)
        assert len({(key - old) % 12 for key, old in zip(begun, keys, strict=True)}) == 1


def test_a_note_ends_although_its_channel_plays_another_class_by_then(tmp_path):
    on = mido.Message("note_on", channel=0, note=20, velocity=80)
    off = mido.Message("note_off", channel=0, note=20, time=10)
    path = save(tmp_path / "a.mid", [program(0, 33), on, program(0, 48, 10), off])
    for seed in range(6):
        begun, ended = (m for m in messages(vary(path, seed)) if "note" in m)
        assert begun["note"] == ended["note"] >= RANGES["bass"][0]


# --- melodies as one stem ------------------------------------------------------------------------


def test_one_or_two_melodies_play_as_the_stem(tmp_path):
    path = save(
        tmp_path / "a.mid", melody(0, 33), melody(1, 48), melody(2, 73), melody(3, 80, 59),
        melody(4, 119), [*melody(9, 0)], [mido.MetaMessage("copyright", text="Ann", time=50)],
    )  # fmt: skip
    used = Counter()
    for seed in range(30):
        varied = vary(path, seed, as_stem="piano")
        found = notes_at(varied)
        assert {class_of(n) for n in found} == {"piano"}
        used[tuple(sorted({n[1] for n in found}))] += 1
        assert len(found) == 60 * len({n[1] for n in found})
        assert {n[0] for n in found} <= {step * 120 for step in range(60)}
        assert "copyright" in [m["type"] for m in messages(varied)]
    assert {*used} == {(1,), (2,), (1, 2)}
    assert {class_of(n) for n in notes_at(vary(path, 0, as_stem="bass"))} == {"bass"}


def test_songs_without_a_melody_and_stems_that_cannot_be(tmp_path):
    path = save(tmp_path / "a.mid", melody(0, 33), melody(9, 0), melody(1, 48, 59))
    assert vary(path, as_stem="piano") is None
    with pytest.raises(OptionError, match="piano, guitar, bass; got 'drums'"):
        vary(path, as_stem="drums")
    with pytest.raises(OptionError, match="got 'drums'"):
        vary_songs([], tmp_path, as_stem="drums")
    with pytest.raises(DataError, match="plays no note"):
        vary(save(tmp_path / "b.mid", [program(0, 33)]))


# --- a folder of songs ---------------------------------------------------------------------------


@pytest.fixture
def songs(tmp_path) -> Path:
    folder = tmp_path / "songs"
    band(folder / "games" / "one.mid")
    save(folder / "games" / "two.mid", melody(0, 12), melody(9, 0))
    (folder / "manifest.csv").write_text(
        "file,source,composer,licence\ngames/one.mid,arcade,Ann,CC0\ngames/two.mid,arcade,Bob,\n"
    )
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.mid")}


def test_variants_are_songs_of_the_same_split(songs, tmp_path):
    report = vary_songs(find_songs(songs), tmp_path / "v", variants=2)
    names = ["games_one~1", "games_one~2", "games_two~1", "games_two~2"]
    assert report.new == names
    found = find_songs(tmp_path / "v")
    assert [song.name for song in found] == names
    assert [song.composer for song in found] == ["Ann", "Ann", "Bob", "Bob"]
    assert [(song.source, song.licence) for song in found[:1]] == [("arcade", "CC0")]
    assert [song_of(song.name) for song in found] == ["games_one"] * 2 + ["games_two"] * 2
    assert song_of("games_one") == "games_one"
    assert song_of("a~1~piano2") == "a~1"
    splits = hold_out(find_songs(songs), validation=["Bob"])
    assert splits == ["train", "validation"]
    assert hold_out(found, validation=["Bob"]) == ["train"] * 2 + ["validation"] * 2
    assert len({*files(tmp_path / "v").values()}) == 4
    assert {*read_midi(tmp_path / "v" / "games_one~1.mid").parts} == {
        "bass", "drums", "guitar", "other"
    }  # fmt: skip


def test_more_variants_change_none_and_what_is_there_is_kept(songs, tmp_path):
    out = tmp_path / "v"
    vary_songs(find_songs(songs), out, variants=1)
    first = files(out)
    stamps = {file: file.stat().st_mtime_ns for file in out.glob("*.mid")}
    report = vary_songs(find_songs(songs), out, variants=2)
    assert (len(report.new), len(report.kept)) == (2, 2)
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert first.items() < files(out).items()
    pianos = vary_songs(find_songs(songs), out, variants=1, as_stem="piano")
    assert (pianos.new, pianos.without) == (["games_two~piano1"], ["games_one"])
    assert len(find_songs(out)) == 5
    (out / "games_two~1.mid").unlink()  # as an interruption leaves it
    again = vary_songs(find_songs(songs), out, variants=2)
    assert again.new == ["games_two~1"]
    assert first.items() < files(out).items()
    alone = vary_songs(find_songs(songs)[1:], tmp_path / "w", variants=1)
    assert files(tmp_path / "w") == {"games_two~1.mid": first["games_two~1.mid"]}
    assert alone.kept == []
    other = vary_songs(find_songs(songs), tmp_path / "x", variants=1, seed=1)
    assert {*files(tmp_path / "x").values()}.isdisjoint(first.values())
    assert not other.failed


def test_an_interruption_keeps_what_was_written(songs, tmp_path):
    def stop(done: int, total: int) -> None:
        assert total == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vary_songs(find_songs(songs), tmp_path / "v", progress=stop)
    report = vary_songs(find_songs(songs), tmp_path / "v")
    assert (len(report.kept), len(report.new)) == (2, 2)


def test_another_seed_or_song_does_not_pass_for_the_same(songs, tmp_path):
    out = tmp_path / "v"
    vary_songs(find_songs(songs), out)
    before = files(out)
    report = vary_songs(find_songs(songs), out, seed=1)
    assert {*report.failed} == {"games_one", "games_two"}
    assert "was made with seed 0, now it is 1" in report.failed["games_one"]
    shutil.copyfile(songs / "games" / "two.mid", songs / "games" / "one.mid")
    report = vary_songs(find_songs(songs), out)
    assert "made with md5" in report.failed["games_one"]
    assert report.kept == ["games_two~1", "games_two~2"]
    assert files(out) == before
    with pytest.raises(OptionError, match="got 0, 0"):
        vary_songs(find_songs(songs), out, variants=0)
    with pytest.raises(OptionError, match="got 2, -1"):
        vary_songs(find_songs(songs), out, seed=-1)


def test_damage_anywhere_gives_variants_or_a_sentence(tmp_path):
    raw = band(tmp_path / "songs" / "a.mid").read_bytes()
    failed = 0
    for place in range(0, len(raw), 3):
        broken = raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :]
        (tmp_path / "songs" / "a.mid").write_bytes(broken)
        report = vary_songs(find_songs(tmp_path / "songs"), tmp_path / str(place), variants=1)
        failed += len(report.failed)
        assert len(report.failed) + len(report.new) == 1
        assert not list((tmp_path / str(place)).glob(".*"))
    assert 0 < failed < len(raw) / 3


# --- the command ---------------------------------------------------------------------------------


def mlass(*arguments: object):
    return CliRunner().invoke(app, ["data", "vary", *map(str, arguments)])


def test_the_command_writes_what_render_takes(songs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    out = tmp_path / "v"
    result = mlass("--midi", songs, "--out", out, "--variants", 1)
    assert result.exit_code == 0, result.output
    assert f"2 variants written, 0 there already, 0 songs failed; in {out}" in result.output
    result = mlass("--midi", songs, "--out", out, "--variants", 1, "--as", "piano", "--seed", 5)
    assert "1 variants written, 0 there already, 1 songs without a melody" in result.output
    rows = list(csv.DictReader((out / "manifest.csv").open()))
    assert [(row["file"], row["song"], row["seed"]) for row in rows] == [
        ("games_one~1.mid", "games_one", "0"), ("games_two~1.mid", "games_two", "0"),
        ("games_two~piano1.mid", "games_two", "5"),
    ]  # fmt: skip
    (songs / "games" / "bad.mid").write_bytes(b"MThd")
    result = mlass("--midi", songs, "--out", out, "--variants", 1)
    assert result.exit_code == 1
    assert "games_bad failed: '" in result.output
    assert "0 variants written, 2 there already, 1 songs failed" in result.output
    result = mlass("--midi", songs, "--out", songs / "v")
    assert result.exit_code == 2
    assert "variants would count as songs" in result.output
    result = mlass("--midi", songs, "--out", out, "--as", "organ")
    assert result.exit_code == 2
    assert "got 'organ'" in result.output
