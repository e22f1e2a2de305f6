"""Active chunks against a direct computation, by seed, across interruptions and damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (extra [sound])")

from mlass_ppl.data.audio import Activity, StemDataset, find_chunks, stem_folders  # noqa: E402
from mlass_ppl.data.audio import activity as activity_module  # noqa: E402
from mlass_ppl.errors import DataError, OptionError, SignalError  # noqa: E402

RATE = 1_000
LENGTHS = {"one": 10_400, "two": 4_999, "three": 900}


@pytest.fixture
def songs(tmp_path: Path) -> StemDataset:
    """Three songs of bass and drums, each switched on and off every half second, at random levels;
    song `four` has no drums and `five` is silent."""
    random = np.random.default_rng(0)
    for name, number in LENGTHS.items():
        for stem in ("bass", "drums"):
            levels = random.choice([0, 1e-3, 0.1, 0.3, 0.5], number // 500 + 1)
            signal = np.repeat(levels, 500)[:number] * random.uniform(-1, 1, number)
            write(tmp_path / name / f"{stem}.wav", signal)
    write(tmp_path / "four" / "bass.wav", random.uniform(-1, 1, 5_000))
    for stem in ("bass", "drums"):
        write(tmp_path / "five" / f"{stem}.wav", np.zeros(5_000))
    return stem_folders(tmp_path)


def write(path: Path, signal: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, signal, RATE)


def by_hand(songs: StemDataset, activity: Activity) -> list[tuple[str, int]]:
    """Active chunks by the definition, one after the other."""
    found = []
    length = round(activity.seconds * RATE)
    hop = round((activity.hop or activity.seconds) * RATE)
    for track in songs:
        if not set(activity.stems) <= set(track.stems):
            continue
        for start in range(0, track.frames - length + 1, hop):
            levels = []
            for stem in activity.stems:
                piece = track.read(stem).double()[start : start + length]
                levels.append(10 * float(piece.square().mean().clamp_min(1e-30).log10()))
            if min(levels) >= activity.threshold_db:
                found.append((track.name, start))
    return found


def named(chunks) -> list[tuple[str, int]]:
    return [(chunks.tracks[place].name, start) for place, start in chunks.places]


@pytest.mark.parametrize("block", [1 << 20, 777, 100])
@pytest.mark.parametrize(
    "activity",
    [
        Activity(("bass", "drums"), seconds=1.0),
        Activity(("bass", "drums"), seconds=1.0, hop=0.123),
        Activity(("drums",), seconds=0.5, hop=0.7, threshold_db=-30),
        Activity(["bass"], seconds=0.05, threshold_db=-100),
    ],
    ids=str,
)
def test_chunks_are_those_of_the_definition(songs, activity, block, monkeypatch):
    monkeypatch.setattr(activity_module, "_BLOCK", block)
    expected = by_hand(songs, activity)
    assert 0 < len(expected) < sum(t.seconds for t in songs) / (activity.hop or activity.seconds)
    assert named(find_chunks(songs, activity)) == expected


def test_a_chunk_is_that_piece_of_every_stem(songs):
    chunks = find_chunks(songs, Activity(("drums", "bass"), seconds=0.8))
    assert chunks.frames == 800
    assert chunks.hours == len(chunks) * 0.8 / 3600
    for which, (place, start) in enumerate(chunks.places):
        found = chunks[which]
        assert list(found) == ["drums", "bass"]
        for stem, signal in found.items():
            assert torch.equal(signal, songs[place].read(stem)[start : start + 800])
    anywhere = chunks.read(songs["five"], 17)
    assert {stem: signal.shape for stem, signal in anywhere.items()} == {
        "drums": (800,), "bass": (800,)
    }  # fmt: skip
    with pytest.raises(IndexError):
        chunks[len(chunks)]
    with pytest.raises(SignalError, match="has 900 samples"):
        chunks.read(songs["three"], 101)
    with pytest.raises(DataError, match="no stem 'drums'"):
        chunks.read(songs["four"], 0)


def test_chunks_feed_a_loader(songs):
    chunks = find_chunks(songs, Activity(("drums", "bass"), seconds=0.5))
    batches = list(DataLoader(chunks, batch_size=4))
    assert sum(len(batch["bass"]) for batch in batches) == len(chunks) == len(list(chunks))
    assert torch.equal(batches[0]["drums"][2], chunks[2]["drums"])


def test_samples_are_the_seeds_and_smaller_ones_come_first(songs):
    chunks = find_chunks(songs, Activity(("bass",), seconds=0.2))
    ten = chunks.sample(10, seed=3)
    assert ten.places == chunks.sample(10, seed=3).places
    assert ten.places[:4] == chunks.sample(4, seed=3).places
    assert ten.places != chunks.sample(10, seed=4).places
    assert len({*ten.places}) == 10
    assert {*chunks.sample(len(chunks), seed=0).places} == {*chunks.places}
    for number in (0, len(chunks) + 1):
        with pytest.raises(OptionError, match="number of chunks"):
            chunks.sample(number, seed=0)


def test_short_tracks_are_padded_where_asked(songs):
    plain = Activity(("bass", "drums"), seconds=3.0, threshold_db=-60)
    assert "three" not in {name for name, _ in named(find_chunks(songs, plain))}
    padded = find_chunks(songs, Activity(**{**vars(plain), "pad": True}))
    assert named(padded).count(("three", 0)) == 1
    chunk = padded[named(padded).index(("three", 0))]
    assert torch.equal(chunk["bass"][:900], songs["three"].read("bass"))
    assert not chunk["bass"][900:].any()
    # The level is that of the padded chunk: a third of the energy is a third of it.
    level = 10 * float((songs["three"].read("bass").double().square().sum() / 3_000).log10())
    for offset, inside in ((-0.01, True), (0.01, False)):
        activity = Activity(("bass",), seconds=3.0, threshold_db=level + offset, pad=True)
        assert (("three", 0) in named(find_chunks(songs, activity))) is inside


def test_long_and_loud_music_does_not_drown_a_quiet_chunk(tmp_path):
    signal = np.ones(200_000, np.float32)
    signal[150_000:151_000] = 1.01e-5  # -99.9 dB
    signal[151_000:152_000] = 0.99e-5  # -100.1 dB
    (tmp_path / "song").mkdir()
    soundfile.write(tmp_path / "song" / "a.wav", signal, RATE, subtype="FLOAT")
    chunks = find_chunks(stem_folders(tmp_path), Activity(("a",), seconds=1.0, threshold_db=-100))
    assert {start for _, start in chunks.places} == {*range(0, 200_000, 1_000)} - {151_000}


# --- what is remembered --------------------------------------------------------------------------


def test_what_was_found_is_not_looked_for_again(songs, tmp_path, monkeypatch):
    activity = Activity(("bass", "drums"), seconds=0.5)
    path = tmp_path / "kept" / "chunks.jsonl"
    seen = []
    first = find_chunks(songs, activity, remember=path, progress=lambda *at: seen.append(at))
    assert seen == [(n, 5) for n in range(1, 6)]
    whole = path.read_text()

    def never(*_):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(Activity, "starts", never)
        assert find_chunks(songs, activity, remember=path).places == first.places
    assert path.read_text() == whole

    path.write_text(whole[:-9])  # an interruption while the last line was written
    assert find_chunks(songs, activity, remember=path).places == first.places
    assert sorted(path.read_text().splitlines()) == sorted(whole.splitlines())
    with pytest.raises(DataError, match="made for another activity"):
        find_chunks(songs, Activity(("bass",), seconds=0.5), remember=path)
    assert path.read_text().count("\n") == 6
    path.write_bytes(b"\xff\xfe no record\n")
    with pytest.raises(DataError, match="no record of active chunks"):
        find_chunks(songs, activity, remember=path)
    assert path.read_bytes() == b"\xff\xfe no record\n"  # it may be somebody's


def test_a_track_that_changed_is_looked_at_again(songs, tmp_path):
    activity, path = Activity(("bass",), seconds=0.5), tmp_path / "chunks.jsonl"
    find_chunks(songs, activity, remember=path)
    write(tmp_path / "five" / "bass.wav", np.full(3_000, 0.5))
    again = stem_folders(tmp_path)
    found = find_chunks(again, activity, remember=path)
    assert named(found) == by_hand(again, activity)
    assert ("five", 0) in named(found)


def test_lines_of_the_record_are_json(songs, tmp_path):
    find_chunks(songs, Activity(("bass",)), remember=tmp_path / "chunks.jsonl")
    head, *lines = map(json.loads, (tmp_path / "chunks.jsonl").read_text().splitlines())
    assert head["activity"]["threshold_db"] == -40
    assert {line["track"] for line in lines} == {"one", "two", "three", "four", "five"}


# --- damage and refusals -------------------------------------------------------------------------


def test_a_damaged_track_is_left_out_and_told(songs, tmp_path):
    activity = Activity(("bass", "drums"), seconds=0.5)
    expected = [place for place in by_hand(songs, activity) if place[0] != "one"]
    values = np.zeros(LENGTHS["one"], np.float32)
    values[5_000] = np.nan
    soundfile.write(tmp_path / "one" / "drums.wav", values, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "one" / "bass.wav", np.ones_like(values), RATE)
    chunks = find_chunks(stem_folders(tmp_path), activity)
    assert named(chunks) == expected
    (notice,) = chunks.notices
    assert notice.startswith("track 'one' is left out: ")
    assert "NaN" in notice


def test_when_nothing_is_found_the_reason_is_told(songs, tmp_path):
    for activity, message in (
        (Activity(("bass", "flute")), "none of the 5 tracks has bass and flute; their stems are"),
        (Activity(("bass",), seconds=60), "the longest of 10.40 s. Take shorter"),
        (Activity(("bass", "drums"), threshold_db=-0.1), "a threshold below -0.1 dB"),
    ):
        with pytest.raises(DataError, match=message):
            find_chunks(songs, activity)
    soundfile.write(tmp_path / "three" / "bass.wav", np.zeros(900), 2 * RATE)
    soundfile.write(tmp_path / "three" / "drums.wav", np.zeros(900), 2 * RATE)
    with pytest.raises(DataError, match=r"several sample rates \(1000, 2000 Hz\)"):
        find_chunks(stem_folders(tmp_path), Activity(("bass",)))


@pytest.mark.parametrize(
    "options",
    [
        {"stems": ()},
        {"stems": "bass"},
        {"stems": ("bass", "bass")},
        {"seconds": 0},
        {"seconds": float("nan")},
        {"hop": -1.0},
        {"hop": float("inf")},
        {"threshold_db": 0.0},
        {"threshold_db": float("nan")},
    ],
    ids=str,
)
def test_impossible_activities_are_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        Activity(**{"stems": ("bass",), **options})
