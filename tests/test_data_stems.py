"""Stem data sets in their published layouts, and splits by source and composer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (extra [sound])")

from mlass_ppl.audio import AudioStream, read_audio  # noqa: E402
from mlass_ppl.data import find_data  # noqa: E402
from mlass_ppl.data.audio import (  # noqa: E402
    Stem,
    StemDataset,
    Track,
    fsdd,
    hold_out,
    instrument_class,
    slakh,
    stem_folders,
)
from mlass_ppl.errors import DataError, SignalError  # noqa: E402

RATE = 8_000
PUBLISHED = find_data("slakh_layout")
SPEAKERS = find_data("fsdd")


def write(path: Path, number: int = 100, value: float | None = None, rate: int = RATE) -> Path:
    """Noise that the path decides, or one value; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(path.name.encode()) + sum(path.parent.name.encode()))
    signal = random.integers(-9_000, 9_000, number) / 32768
    soundfile.write(path, signal if value is None else np.full(number, value), rate)
    return path


def samples(path: Path) -> torch.Tensor:
    return read_audio(path).samples[0]


# --- tracks --------------------------------------------------------------------------------------


def test_a_stem_is_the_sum_of_its_files_the_shorter_ones_ending_in_zeros(tmp_path):
    long, short = write(tmp_path / "a.wav", 50), write(tmp_path / "b.flac", 20)
    stem = Stem.open([long, short])
    total = samples(long)
    total[:20] += samples(short)
    assert stem.frames == 50
    assert torch.equal(stem.read(0, 50), total)
    for start, length in ((15, 10), (20, 5), (30, 20), (19, 1)):
        assert torch.equal(stem.read(start, length), total[start : start + length])
    blocks = list(stem.blocks(12))
    assert [len(block) for block in blocks] == [12, 12, 12, 12, 2]
    assert torch.equal(torch.cat(blocks), total)


@pytest.mark.parametrize("suffix", [".wav", ".ogg"])
def test_stereo_stems_become_their_mean(tmp_path, suffix):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (900, 2))
    soundfile.write(tmp_path / f"a{suffix}", noise, RATE)
    mean = read_audio(tmp_path / f"a{suffix}").samples.mean(0)
    assert torch.equal(Stem.open([tmp_path / f"a{suffix}"]).read(400, 300), mean[400:700])


def test_a_file_that_does_not_tell_its_length_is_no_stem(tmp_path):
    stream = AudioStream(write(tmp_path / "a.wav"))
    stream.frames = None  # as of files that ffmpeg decodes
    with pytest.raises(SignalError, match=r"does not tell how long it is.*ffmpeg -i FILE"):
        Stem((stream,))


def test_tracks_are_read_by_stem_and_place(tmp_path):
    paths = {name: write(tmp_path / f"{name}.wav", n) for name, n in (("bass", 60), ("drums", 40))}
    track = Track("song", {name: Stem.open([path]) for name, path in paths.items()})
    assert (track.frames, track.rate, track.seconds) == (60, RATE, 60 / RATE)
    assert torch.equal(track.read("bass", 10, 30), samples(paths["bass"])[10:40])
    assert torch.equal(track.read("drums"), torch.cat([samples(paths["drums"]), torch.zeros(20)]))
    with pytest.raises(DataError, match="no stem 'piano'; it has bass, drums"):
        track.read("piano")
    for start, length in ((-1, 3), (58, 3), (61, 0), (0, -1)):
        with pytest.raises(SignalError, match="has 60 samples"):
            track.read("drums", start, length)


def test_sample_rates_must_agree(tmp_path):
    slow, fast = write(tmp_path / "a.wav"), write(tmp_path / "b.wav", rate=2 * RATE)
    with pytest.raises(DataError, match=r"one sample rate, got \[8000, 16000\]"):
        Stem.open([slow, fast])
    with pytest.raises(DataError, match="no file"):
        Stem(())
    with pytest.raises(DataError, match="stems of 8000 and 16000 Hz"):
        Track("song", {"bass": Stem.open([slow]), "drums": Stem.open([fast])})
    with pytest.raises(DataError, match="has no stem"):
        Track("song", {})


# --- Slakh2100 -----------------------------------------------------------------------------------


def slakh_track(folder: Path, stems: dict[str, dict], suffix: str = ".flac", **facts) -> Path:
    for key, stem in stems.items():
        if stem.pop("file", True):
            write(folder / "stems" / f"{key}{suffix}", 80)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"UUID": folder.name, "stems": stems, **facts}
    (folder / "metadata.yaml").write_text(yaml.safe_dump(facts))
    return folder


def guitars() -> dict[str, dict]:
    return {
        "S00": {"inst_class": "Guitar", "program_num": 30, "audio_rendered": True},
        "S01": {"inst_class": "Drums", "is_drum": True, "program_num": 128},
        "S02": {"program_num": 24},  # no class: by its program
        "S03": {"inst_class": "Strings (continued)", "program_num": 52},
        "S04": {"inst_class": "Organ", "program_num": 22},
        "S05": {"inst_class": "Bass", "program_num": 33, "audio_rendered": False, "file": False},
    }


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_stems_of_one_class_are_summed(tmp_path, suffix):
    folder = slakh_track(tmp_path / "validation" / "Track00007", guitars(), suffix)
    write(folder / f"mix{suffix}", 80)
    found = slakh(tmp_path)
    (track,) = found
    assert list(track.stems) == ["drums", "guitar", "other"]
    for name, keys in {"guitar": (0, 2), "drums": (1,), "other": (3, 4)}.items():
        total = sum(samples(folder / "stems" / f"S0{key}{suffix}") for key in keys)
        assert torch.equal(track.read(name), total)
    assert torch.equal(track.mixture.read(0, 80), samples(folder / f"mix{suffix}"))
    assert (track.name, track.split, track.source) == ("Track00007", "validation", "Track00007")
    assert track.notices == found.notices == ()


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
def test_a_class_with_a_broken_file_is_left_out_and_told(tmp_path, damage):
    folder = slakh_track(tmp_path / "Track00001", guitars(), ".wav")
    path = folder / "stems" / "S00.wav"
    raw = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(raw[: 60 if damage == "truncated" else 0])
    found = slakh(tmp_path)
    assert list(found["Track00001"].stems) == ["drums", "other"]
    (notice,) = found.notices
    assert "Track00001" in notice
    assert "it has no guitar" in notice


def test_a_broken_track_does_not_lose_the_others(tmp_path):
    for number in range(4):
        slakh_track(tmp_path / "train" / f"Track0000{number}", guitars())
    (tmp_path / "train" / "Track00001" / "metadata.yaml").unlink()
    (tmp_path / "train" / "Track00002" / "metadata.yaml").write_text("stems: [")
    (tmp_path / "train" / "Track00003" / "metadata.yaml").write_text("UUID: 3")
    slakh_track(tmp_path / ".parts" / "Track00004", guitars())  # being rendered
    found = slakh(tmp_path)
    assert [track.name for track in found] == ["Track00000"]
    assert len(found.notices) == 3
    for number, notice in enumerate(found.notices, 1):
        assert f"Track0000{number}" in notice
    with pytest.raises(DataError, match=r"found no track with a metadata\.yaml"):
        slakh(tmp_path / "nowhere")


def test_songs_in_several_splits_are_told(tmp_path):
    for split in ("train", "test"):
        slakh_track(tmp_path / split / f"Track_{split}", guitars(), UUID="one song")
    (notice,) = slakh(tmp_path).notices
    assert "1 songs or composers stand in several splits (as 'one song')" in notice


@pytest.mark.skipif(PUBLISHED is None, reason="no slakh_layout in $MLASS_DATA or ../shared/data")
@pytest.mark.parametrize(
    ("folder", "rate"), [("slakh2100_flac_redux", 44_100), ("babyslakh_16k", 16_000)]
)
def test_the_published_layouts(folder, rate):
    found = slakh(PUBLISHED / folder)
    (track,) = found  # Track00007 of BabySlakh has MIDI alone
    assert found.notices == ()
    assert (track.name, track.split, track.rate) == ("Track00001", "train", rate)
    assert track.source == "1a81ae092884234f3264e2f45927f00a"
    assert {name: len(stem.files) for name, stem in track.stems.items()} == {
        "bass": 1, "drums": 1, "guitar": 3, "piano": 1, "other": 4
    }  # fmt: skip
    assert track.seconds == 2
    for name in track.stems:
        assert track.read(name).any() == (name == "guitar")  # the others are silent
    error = (track.read("guitar") - track.mixture.read(0, track.frames)).abs().max()
    assert error <= 2 / 32768


def test_instrument_classes_follow_general_midi():
    found = [instrument_class(program) for program in range(128)]
    assert [found.index(name) for name in ("piano", "other", "guitar", "bass")] == [0, 8, 24, 32]
    assert [found.count(name) for name in ("piano", "guitar", "bass")] == [8, 8, 8]
    assert instrument_class(128) == instrument_class(33, drums=True) == "drums"


# --- folders of stems ----------------------------------------------------------------------------


def test_musdb(tmp_path):
    for name in ("train/Band - One", "train/Band - Two", "test/Other - Three"):
        for stem in ("bass", "drums", "other", "vocals", "mixture"):
            write(tmp_path / "musdb" / name / f"{stem}.wav")
    found = stem_folders(tmp_path / "musdb")
    assert [(t.name, t.split, t.composer, t.source) for t in found] == [
        ("test/Other - Three", "test", "Other", "musdb"),
        ("train/Band - One", "train", "Band", "musdb"),
        ("train/Band - Two", "train", "Band", "musdb"),
    ]
    assert list(found[0].stems) == ["bass", "drums", "other", "vocals"]
    assert found[0].mixture is not None
    assert list(found.hours().values()) == pytest.approx([300 / RATE / 3600] * 4)
    assert [t.name for t in found.split("test")] == ["test/Other - Three"]
    assert "3 tracks" in repr(found)
    two = stem_folders(tmp_path / "musdb", stems=("bass", "drums"))
    assert list(two[0].stems) == ["bass", "drums"]
    with pytest.raises(DataError, match="no stem of piano"):
        stem_folders(tmp_path / "musdb", stems=("piano",))


def test_any_folder_of_stems(tmp_path):
    write(tmp_path / "song" / "lead.flac", 50)
    write(tmp_path / "song" / "pad + bass.ogg", 60)
    write(tmp_path / "song" / "lead.wav")  # a second file of one name
    (tmp_path / "song" / "noise.wav").write_bytes(b"no sound")
    (tmp_path / "song" / "notes.txt").write_text("no stem")
    (tmp_path / "song" / "._lead.wav").write_bytes(b"left by another system")
    found = stem_folders(tmp_path / "song")
    (track,) = found
    assert (track.name, track.frames, track.mixture) == ("song", 60, None)
    assert list(track.stems) == ["lead", "pad + bass"]
    assert [Path(f.path).name for f in track.stems["lead"].files] == ["lead.flac"]
    assert len(found.notices) == 2
    assert "'lead' has another file" in found.notices[0]
    assert "noise.wav" in found.notices[1]
    with pytest.raises(DataError, match="found no folder of audio files"):
        stem_folders(tmp_path / "nowhere")


# --- spoken digits -------------------------------------------------------------------------------


def test_spoken_digits_are_split_by_index(tmp_path):
    for index in (0, 4, 5, 9, 10, 49):
        write(tmp_path / "recordings" / f"7_jackson_{index}.wav")
    write(tmp_path / "recordings" / "seven.wav")
    found = fsdd(tmp_path)
    assert {t.name: t.split for t in found} == {
        "7_jackson_0": "test", "7_jackson_4": "test",
        "7_jackson_5": "validation", "7_jackson_9": "validation",
        "7_jackson_10": "train", "7_jackson_49": "train",
    }  # fmt: skip
    assert list(found["7_jackson_9"].stems) == ["jackson"]
    assert "seven.wav" in found.notices[0]
    assert len(fsdd(tmp_path / "recordings")) == 6
    with pytest.raises(DataError, match="found no recording"):
        fsdd(tmp_path / "nowhere")


@pytest.mark.skipif(SPEAKERS is None, reason="no fsdd in $MLASS_DATA or ../shared/data")
def test_the_published_spoken_digits():
    found = fsdd()
    assert [len(found.split(s)) for s in ("train", "validation", "test")] == [2_400, 300, 300]
    assert len(found.hours()) == 6
    assert found.notices == ()
    assert {track.rate for track in found} == {8_000}


# --- data sets and splits ------------------------------------------------------------------------


@pytest.fixture
def songs(tmp_path) -> StemDataset:
    """Two collections; ann wrote in both."""
    stem = Stem.open([write(tmp_path / "a.wav")])
    authors = [("x", "ann"), ("x", "bob"), ("x", "bob"), ("y", "ann"), ("y", ""), ("z", "")]
    tracks = [
        Track(f"song{n}", {"bass": stem} if n else {"bass": stem, "drums": stem}, "train", *author)
        for n, author in enumerate(authors)
    ]
    return StemDataset(tuple(tracks))


def test_a_data_set_is_asked_by_place_name_and_stem(songs):
    assert songs[1] is songs["song1"] is songs.tracks[1]
    assert songs[-1].name == "song5"
    assert [track.name for track in songs.with_stems("bass", "drums")] == ["song0"]
    for call, message in (
        (lambda: songs[6], "no track 6: the set has 6"),
        (lambda: songs["song9"], "no track 'song9'"),
        (lambda: songs.with_stems("bass", "piano"), "no track has the stems bass, piano"),
        (lambda: songs.split("test"), "no split 'test'; it has train"),
        (lambda: StemDataset((songs[0], songs[0])), "'song0'"),
    ):
        with pytest.raises(DataError, match=message):
            call()


def test_splits_hold_out_whole_sources_and_composers(songs):
    found = songs.with_splits(validation=("bob",), test=("z",))
    splits = ["train", "validation", "validation", "train", "train", "test"]
    assert [t.split for t in found] == splits
    assert [t.name for t in found] == [t.name for t in songs]
    assert hold_out(list(songs), test=("x", "y")) == ["test"] * 5 + ["train"]
    assert hold_out(list(songs)) == ["train"] * 6


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"test": ("x",)}, "'ann' in test and train"),  # she wrote in y, too
        ({"test": ("x",), "validation": ("y",)}, "'ann' in test and validation"),
        ({"test": ("q",)}, "'q' is no source or composer of the songs; expected some of ann, bob"),
        ({"validation": ("",)}, "'' is no source"),
    ],
)
def test_splits_that_would_leak_are_refused(songs, held, message):
    with pytest.raises(DataError, match=message):
        songs.with_splits(**held)
