"""Stems written while they come: places, encodings, levels, memory; and songs in a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from audio_bundle import RATE, SAMPLES, STEMS, make_bundle, song

from mlass_ppl import BP, SMC, OptionError, SignalError, StemFiles, separate_song
from mlass_ppl.audio import read_audio, write_audio
from mlass_ppl.draw import draw_spectrograms
from mlass_ppl.evidence import Feature
from mlass_ppl.shapes import chain
from mlass_ppl.songs.parts import Parts, beside

TRIO = chain(list(STEMS), evidence=Feature(linear=True))
FAST = {"infer": BP(), "search": SMC(4)}


@pytest.fixture
def mix(tmp_path):
    """A stereo song of 0.7 s at 44.1 kHz as FLAC, and its samples as they are in the file."""
    mono, _ = song(0.7, 44_100)
    write_audio(tmp_path / "mix.flac", torch.stack([mono, 0.5 * mono]), 44_100)
    return tmp_path / "mix.flac", read_audio(tmp_path / "mix.flac").samples


def blocks(stems, size=700):
    return stems.split(size, -1)


# ------------------------------------------------------------------------ files


def test_files_hold_what_is_returned_without_them(mix, tmp_path):
    file, samples = mix
    kept = separate_song(file, TRIO, make_bundle(), **FAST)
    written = separate_song(file, TRIO, make_bundle(), out=tmp_path / "out", **FAST)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bass.wav",
        "drums.wav",
        "piano.wav",
    ]
    assert list(written.files) == [tmp_path / "out" / f"{name}.wav" for name in STEMS]
    assert len(written) == 3
    total = torch.zeros_like(samples)
    for name in STEMS:
        info = soundfile.info(tmp_path / "out" / f"{name}.wav")
        assert (info.samplerate, info.channels, info.frames) == (44_100, *samples.shape)
        assert info.subtype == "FLOAT"
        assert torch.equal(written[name], kept[name])
        total += written[name]
    assert torch.allclose(total, samples, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "subtype", "decibels"),
    [
        ({"encoding": "int16"}, "PCM_16", 60),
        ({"suffix": ".flac"}, "PCM_16", 60),
        ({"suffix": ".ogg"}, "VORBIS", 10),
        ({"suffix": ".mp3"}, "MPEG_LAYER_III", 10),
    ],
)
@pytest.mark.parametrize("clip", ["rescale", "clamp"])
def test_every_encoding_rescales_all_stems_alike_or_clamps(
    tmp_path, random, options, subtype, decibels, clip
):
    smooth = torch.nn.functional.avg_pool1d(torch.randn(2, 2, 9_000, generator=random), 20, 1, 10)
    stems = smooth[..., :9_000] / smooth.abs().max() * torch.tensor([1.6, 0.3])[:, None, None]
    files = StemFiles(tmp_path, clip=clip, **options)
    notices = files.write(["a", "b"], blocks(stems), 44_100, 2, 9_000)
    gain = 1 / float(stems.abs().max()) if clip == "rescale" else 1.0
    for name, stem in zip(("a", "b"), stems, strict=True):
        (path,) = tmp_path.glob(f"{name}.*")
        assert soundfile.info(path).subtype == subtype
        found, expected = read_audio(path).samples, (gain * stem).clamp(-1, 1)
        length = min(9_000, found.shape[-1])
        assert length > 8_900
        error = (found[:, :length] - expected[:, :length]).square().mean()
        assert 10 * torch.log10(expected.square().mean() / error) > decibels
    assert ("turned down to" if clip == "rescale" else "were cut off") in notices[0]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_fits_is_left_as_it_is(tmp_path, random):
    stems = 0.1 * torch.randn(2, 1, 5_000, generator=random).clamp(-3, 3)
    for number, options in enumerate([{}, {"encoding": "int16"}, {"clip": "clamp"}]):
        assert (
            StemFiles(tmp_path / str(number), **options).write(
                ["a", "b"], blocks(stems), RATE, 1, 5_000
            )
            == ()
        )
    loud = StemFiles(tmp_path / "loud").write(["a", "b"], blocks(30 * stems), RATE, 1, 5_000)
    assert loud == ()  # float32 keeps what is beyond full scale
    assert torch.equal(read_audio(tmp_path / "loud" / "a.wav").samples, 30 * stems[0])


@pytest.mark.parametrize("options", [{}, {"suffix": ".flac"}, {"suffix": ".mp3", "clip": "clamp"}])
def test_files_that_exist_are_kept(mix, tmp_path, options, monkeypatch):
    file, _ = mix
    out = StemFiles(tmp_path / "out", **options)
    place = tmp_path / "out" / f"drums{out.suffix}"
    place.parent.mkdir()
    place.write_bytes(b"mine")
    with monkeypatch.context() as patch:
        patch.setattr("mlass_ppl.songs.chunks.separate", None)  # it is told before any work
        with pytest.raises(OptionError, match=r"exists and is kept"):
            separate_song(file, TRIO, make_bundle(), out=out, **FAST)
    assert place.read_bytes() == b"mine"
    assert len(list(place.parent.iterdir())) == 1
    forced = StemFiles(tmp_path / "out", **options, force=True)
    separate_song(file, TRIO, make_bundle(), out=forced, **FAST)
    assert soundfile.info(place).frames > 0


@pytest.mark.parametrize("options", [{}, {"suffix": ".flac"}, {"suffix": ".mp3"}])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SignalError])
def test_an_interrupted_run_leaves_nothing(tmp_path, options, error):
    def broken():
        yield torch.zeros(2, 1, 70_000)
        raise error("stop")

    (tmp_path / f"a{options.get('suffix', '.wav')}").write_bytes(b"old")
    with pytest.raises(error):
        StemFiles(tmp_path, **options, force=True).write(["a", "b"], broken(), 8_000, 1, 140_000)
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == b"old"


def test_what_cannot_be_written_is_told_before_the_wait(tmp_path):
    def never():
        raise AssertionError("a block was asked for")
        yield

    with pytest.raises(SignalError, match="MP3 only the usual ones"):
        StemFiles(tmp_path, suffix=".mp3").write(["a"], never(), 12_345, 1, 10)
    assert not list(tmp_path.iterdir())
    for options, message in [
        ({"suffix": ".aac"}, r"written as \.wav, \.flac, \.ogg, \.mp3"),
        ({"encoding": "int24"}, "WAV takes 'float32' and 'int16'"),
        ({"suffix": ".mp3", "encoding": "int16"}, "MP3 takes no encoding"),
        ({"clip": "wrap"}, "'rescale' or 'clamp'"),
    ]:
        with pytest.raises(OptionError, match=message):
            StemFiles(tmp_path, **options)
    for name in ("a/b", "", ".."):
        with pytest.raises(OptionError, match="cannot be the name of a file"):
            StemFiles(tmp_path).places([name])
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="is a file; expected a folder"):
        StemFiles(tmp_path / "file").places(["a"])


_LONG = """
import re, sys
from pathlib import Path
from audio_bundle import STEMS, make_bundle
from mlass_ppl import BP, Greedy, separate_song
from mlass_ppl.evidence import Feature
from mlass_ppl.shapes import chain

program = chain(list(STEMS), evidence=Feature(linear=True))
song = separate_song(sys.argv[1], program, make_bundle(), out=sys.argv[2], infer=BP(),
                     search=Greedy(), batch_size=128)
# not getrusage: that begins with what the parent held
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(song.recording.frames, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count")
def test_memory_does_not_grow_with_the_song(tmp_path):
    """Ten minutes of 44.1 kHz stereo MP3: 212 MB of samples, and as much for each stem."""
    time = torch.arange(44_100) / 44_100
    second = torch.stack([torch.sin(660 * time), torch.sin(3_300 * time)]) * 0.3
    peaks = {}
    for minutes in (1, 10):
        from mlass_ppl.audio import AudioWriter

        file = tmp_path / f"{minutes}.mp3"
        with AudioWriter(file, 44_100, 2) as writer:
            for _ in range(60 * minutes):
                writer.write(second)
        out = tmp_path / str(minutes)
        done = subprocess.run(
            [sys.executable, "-c", _LONG, str(file), str(out)],
            check=True, capture_output=True, text=True, timeout=900,
            cwd=Path(__file__).parent,
        )  # fmt: skip
        frames, kilobytes = map(int, done.stdout.split())
        assert frames == pytest.approx(60 * minutes * 44_100, abs=5_000)
        for name in STEMS:
            info = soundfile.info(out / f"{name}.wav")
            assert (info.frames, info.channels) == (frames, 2)
        peaks[minutes] = kilobytes / 1_000
    assert peaks[10] < peaks[1] + 120  # MB
    assert peaks[10] < 1_500


# ------------------------------------------------------------------------ parts and blocks


def test_parts_sum_to_the_mixture(random):
    stems, mixture = torch.randn(3, 2, 50, generator=random), torch.randn(2, 50, generator=random)
    names = ("a", "b", "c")
    assert torch.equal(Parts(names)(stems, mixture), stems)
    two = Parts(names, "b")
    assert two.names == ("b", "no_b")
    assert torch.equal(two(stems, mixture)[0], stems[1])
    assert torch.allclose(two(stems, mixture).sum(0), mixture)
    more = Parts(names, residual=True)
    assert more.names == ("a", "b", "c", "residual")
    assert torch.allclose(more(stems, mixture).sum(0), mixture, atol=1e-6)
    with pytest.raises(OptionError, match="called 'residual' itself"):
        Parts(("a", "residual"), residual=True)


@pytest.mark.parametrize("missing", [0, 3])
def test_blocks_of_any_sizes_are_put_side_by_side(random, missing):
    stems, mixture = torch.randn(3, 100, generator=random), torch.randn(2, 100, generator=random)
    pieces = stems[:, : 100 - missing].split([1, 0, 40, 100 - missing - 41], -1)
    found = list(beside(pieces, mixture.split(33, -1)))
    assert [block.shape for _, block in found] == [(2, 33)] * 3 + [(2, 1)]
    joined = torch.cat([own for own, _ in found], -1)
    expected = stems.clone()
    expected[:, 100 - missing :] = 0
    assert torch.equal(joined, expected[:, None].expand(-1, 2, -1))
    longer = beside([torch.cat([stems, stems], -1)], [mixture])
    assert [own.shape for own, _ in longer] == [(3, 2, 100)]


# ------------------------------------------------------------------------ songs


@pytest.fixture(scope="module")
def found():
    return separate_song(song(0.4)[0], TRIO, make_bundle(), rate=RATE, **FAST)


def test_a_song_tells_saves_and_refuses(found, tmp_path):
    text = repr(found)
    for part in ("bass, drums, piano", "0.40 s, 8,000 Hz, mono", "real-time factor", "Wiener("):
        assert part in text
    assert found.save(tmp_path, suffix=".flac") == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bass.flac",
        "drums.flac",
        "piano.flac",
    ]
    with pytest.raises(OptionError, match="exists and is kept"):
        found.save(tmp_path, suffix=".flac")
    with pytest.raises(OptionError, match="no stem 'voice' here; there are bass, drums, piano"):
        found["voice"]


def test_a_song_plays_in_a_notebook(found):
    pytest.importorskip("IPython")
    import io

    player = found.play("bass", start=0.1, seconds=0.2)
    heard, rate = soundfile.read(io.BytesIO(player.data), dtype="float32")
    assert rate == RATE
    assert np.allclose(heard, found["bass"][0, 800:2_400].numpy(), atol=2e-5)
    page = found._repr_html_()
    assert page.count("<audio") == 4
    for name in ("mixture", *STEMS):
        assert f"<th>{name}</th>" in page
    with pytest.raises(OptionError, match=r"start is from 0 to 0\.40 s"):
        found.play(start=0.5)


def test_spectrograms_show_tones_where_they_are(found, tmp_path):
    figure = found.plot(tmp_path / "song.png")
    assert (tmp_path / "song.png").stat().st_size > 1_000
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes] == ["mixture", *STEMS]
    time = torch.arange(2 * RATE) / RATE
    tone = torch.sin(2 * torch.pi * 1_000 * time) * (time >= 1.0)
    for channels in (tone, torch.stack([tone, 0 * tone])):
        (axes,) = draw_spectrograms({"tone": channels}, RATE).axes
        (picture,) = axes.images
        levels = np.asarray(picture.get_array())
        left, right, low, high = picture.get_extent()
        assert (left, right, low, high) == (0, 2, 0, 4)
        bin_, column = np.unravel_index(levels.argmax(), levels.shape)
        assert 4 * bin_ / len(levels) == pytest.approx(1.0, abs=0.02)
        sounding = levels.max(0) > -40
        assert sounding.mean() == pytest.approx(0.5, abs=0.05)
        assert 2 * np.argmax(sounding) / len(sounding) == pytest.approx(1.0, abs=0.05)
        assert levels.min() == -80
        assert column >= np.argmax(sounding)


def test_spectrograms_of_any_length_and_of_silence():
    for frames in (1, 30, 5 * SAMPLES, 3_000_000):
        (axes,) = draw_spectrograms({"x": 0.1 * torch.ones(1, frames)}, RATE).axes
        levels = np.asarray(axes.images[0].get_array())
        assert levels.shape[1] <= 1_000
        assert np.isfinite(levels).all()
    (axes,) = draw_spectrograms({"x": torch.zeros(2, 900)}, RATE).axes
    assert (np.asarray(axes.images[0].get_array()) == -80).all()
    with pytest.raises(SignalError, match="one or more signals of one length"):
        draw_spectrograms({"a": torch.ones(3), "b": torch.ones(4)}, RATE)
    with pytest.raises(SignalError, match="NaN"):
        draw_spectrograms({"a": torch.full((9,), float("nan"))}, RATE)
    with pytest.raises(OptionError, match=r"\.png"):
        draw_spectrograms({"a": torch.ones(9)}, RATE, path="a.gif")


def test_a_song_whose_file_is_gone_still_has_its_stems(tmp_path):
    file = tmp_path / "a.wav"
    write_audio(file, song(0.4)[0], RATE)
    made = separate_song(file, TRIO, make_bundle(), **FAST)
    assert made.mixture.shape == made["bass"].shape
    file.unlink()
    with pytest.raises(SignalError, match="its stems are here all the same"):
        _ = made.mixture
    assert made["bass"].isfinite().all()
