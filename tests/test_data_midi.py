"""Songs split by class, note by note, and where songs come from."""

from __future__ import annotations

from pathlib import Path

import pytest

mido = pytest.importorskip("mido", reason="mido is not installed (extra [sound])")

from mlass_ppl.data import find_data  # noqa: E402
from mlass_ppl.data.audio import find_songs, instrument_class, read_midi  # noqa: E402
from mlass_ppl.errors import DataError  # noqa: E402

SONGS = find_data("midi")


def note(channel: int, key: int, wait: int, length: int = 240) -> list:
    """A note that begins `wait` ticks after what stands before it."""
    common = {"channel": channel, "note": key}
    return [
        mido.Message("note_on", velocity=90, time=wait, **common),
        mido.Message("note_on", velocity=0, time=length, **common),  # ends it, as note_off does
    ]


def save(path: Path, *tracks: list, kind: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    midi = mido.MidiFile(type=kind, ticks_per_beat=480)
    midi.tracks.extend(map(mido.MidiTrack, tracks))
    midi.save(str(path))
    return path


def program(channel: int, number: int, time: int = 0):
    return mido.Message("program_change", channel=channel, program=number, time=time)


def band(path: Path) -> Path:
    """Bass, drums, an organ that becomes a guitar, and strings; the tempo changes on the way."""
    head = [
        mido.MetaMessage("track_name", name="café"),
        mido.MetaMessage("set_tempo", tempo=400_000),
        mido.MetaMessage("set_tempo", tempo=700_000, time=960),
    ]
    bass = [program(0, 33), *note(0, 40, 0), *note(0, 43, 480)]
    drums = [*note(9, 36, 0), *note(9, 38, 240), *note(9, 36, 240)]
    organ = [program(1, 16), *note(1, 60, 0), program(1, 27, 240), *note(1, 64, 0), *note(1, 67, 5)]
    strings = [program(2, 48), mido.Message("control_change", channel=2, control=7, value=50),
               *note(2, 72, 100)]  # fmt: skip
    return save(path, head, bass, drums, organ, strings)


def notes_at(midi) -> list[tuple[int, int, int, int]]:
    """(tick, channel, key, program) of each note that begins."""
    tick, programs, found = 0, [0] * 16, []
    for message in mido.merge_tracks(midi.tracks):
        tick += message.time
        if message.type == "program_change":
            programs[message.channel] = message.program
        if message.type == "note_on" and message.velocity:
            found.append((tick, message.channel, message.note, programs[message.channel]))
    return found


def class_of(note: tuple[int, int, int, int]) -> str:
    return instrument_class(note[3], drums=note[1] == 9)


def test_each_note_goes_to_the_class_that_plays_it(tmp_path):
    song = read_midi(band(tmp_path / "a.mid"))
    assert {name: (part.notes, part.program) for name, part in song.parts.items()} == {
        "bass": (2, 33), "drums": (3, 128), "guitar": (2, 27), "other": (2, 16)
    }  # fmt: skip
    assert notes_at(song.parts["guitar"].midi) == [(480, 1, 64, 27), (725, 1, 67, 27)]
    assert song.seconds == pytest.approx(mido.MidiFile(str(tmp_path / "a.mid")).length)


def test_parts_keep_tempo_controls_and_length(tmp_path):
    path = band(tmp_path / "a.mid")
    song, whole = read_midi(path), mido.MidiFile(str(path))
    for part in song.parts.values():
        part.midi.save(str(tmp_path / "part.mid"))
        again = mido.MidiFile(str(tmp_path / "part.mid"))
        assert again.length == pytest.approx(whole.length)
        kinds = [message.type for message in again]
        assert kinds.count("set_tempo") == 2
        assert kinds.count("control_change") == 1
        assert kinds.count("program_change") == 4
        assert "track_name" not in kinds


@pytest.mark.skipif(SONGS is None, reason="no midi in $MLASS_DATA or ../shared/data")
def test_real_songs_lose_no_note():
    for path in sorted(SONGS.rglob("*.mid"), key=lambda path: path.stat().st_size)[:60:20]:
        whole = mido.MidiFile(str(path), clip=True)
        expected = notes_at(whole)
        song = read_midi(path)
        for name, part in song.parts.items():
            assert notes_at(part.midi) == [n for n in expected if class_of(n) == name], path
        assert part.midi.length == pytest.approx(song.seconds)
        assert sum(part.notes for part in song.parts.values()) == len(expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "missing, damaged or no MIDI file"),
        (b"no song", "missing, damaged or no MIDI file"),
        (b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\0\x40\0\x90", "missing, damaged or no MIDI file"),
        (b"MThd\0\0\0\6\0\1\0\0\xe7\x28", "SMPTE frames"),
        (b"MThd\0\0\0\6\0\1\0\0\0\x60", "plays no note"),
    ],
)
def test_files_that_are_no_song(tmp_path, content, message):
    (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.mid'.*{message}"):
        read_midi(tmp_path / "a.mid")


def test_songs_that_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.mid' is missing"):
        read_midi(tmp_path / "nowhere.mid")
    with pytest.raises(DataError, match=r"type 2.*Export it again as type 1"):
        read_midi(save(tmp_path / "a.mid", note(0, 60, 0), note(1, 60, 0), kind=2))
    endless = [*note(0, 60, 0), *note(0, 62, 480 * 4_000)]  # 4,000 beats of half a second
    with pytest.raises(DataError, match=r"lasts 2,00\d s; expected at most 1,800"):
        read_midi(save(tmp_path / "a.mid", endless))
    with pytest.raises(DataError, match="plays no note"):
        read_midi(save(tmp_path / "a.mid", [program(0, 33)]))


def test_damage_anywhere_gives_a_song_or_a_sentence(tmp_path):
    raw = band(tmp_path / "a.mid").read_bytes()
    refused = 0
    for place in range(0, len(raw), 2):
        for damaged in (raw[:place], raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :]):
            (tmp_path / "b.mid").write_bytes(damaged)
            try:
                song = read_midi(tmp_path / "b.mid")
            except DataError:
                refused += 1
                continue
            for part in song.parts.values():
                part.midi.save(str(tmp_path / "part.mid"))
    assert refused > len(raw) / 2


# --- where songs come from -----------------------------------------------------------------------


def test_songs_are_found_with_their_origin(tmp_path):
    for name in ("a/one.mid", "a/b/two.MIDI", "three.kar", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(song.name, song.source, song.composer) for song in find_songs(tmp_path)]
    assert found == [("a_b_two", "a", ""), ("a_one", "a", ""), ("three", tmp_path.name, "")]
    (tmp_path / "manifest.csv").write_text(
        "file,bytes,source,composer,licence\na/one.mid,7,games,ann,CC0\nthree.kar,9,films,,\n"
    )
    found = {song.name: song for song in find_songs(tmp_path)}
    assert (found["a_one"].source, found["a_one"].composer) == ("games", "ann")
    assert found["a_one"].licence == "CC0"
    assert (found["three"].source, found["a_b_two"].source) == ("films", "a")
    other = tmp_path / "other.csv"
    other.write_text("file,source\na/one.mid,elsewhere\n")
    assert {song.source for song in find_songs(tmp_path, other)} == {
        "elsewhere",
        "a",
        tmp_path.name,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,source\ngone.mid,x\n", "lists 1 files that are not in .*'gone.mid'"),
        ("name,source\na.mid,x\n", "needs the columns file and source"),
        ("file,source\na.mid\n", "needs the columns file and source"),
    ],
)
def test_manifests_that_do_not_fit(tmp_path, text, message):
    (tmp_path / "a.mid").touch()
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        find_songs(tmp_path)


def test_folders_without_songs_and_names_that_collide(tmp_path):
    with pytest.raises(DataError, match="no MIDI file"):
        find_songs(tmp_path)
    with pytest.raises(DataError, match="cannot read the manifest"):
        find_songs(tmp_path, tmp_path / "nowhere.csv")
    (tmp_path / "a").mkdir()
    for name in ("a/b.mid", "a_b.mid"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="2 songs would share names, as 'a_b'"):
        find_songs(tmp_path)


@pytest.mark.skipif(SONGS is None, reason="no midi in $MLASS_DATA or ../shared/data")
def test_the_shared_songs_are_all_listed():
    songs = find_songs(SONGS)
    assert len(songs) == 157
    assert all(song.licence for song in songs)
    assert len({song.source for song in songs}) == 3
