"""Whole songs: chunks joined without a seam, levels, rates, channels, silence, broken input."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from audio_bundle import LEVELS, RATE, SAMPLES, STEMS, make_bundle, song, stem

import mlass_ppl
from mlass_ppl import BP, SMC, Greedy, OptionError, SignalError, separate_song
from mlass_ppl.audio import Segments, Wiener, resample, write_audio
from mlass_ppl.evidence import Feature
from mlass_ppl.shapes import chain
from mlass_ppl.songs import chunks
from mlass_ppl.songs.chunks import continuing

TRIO = chain(list(STEMS), evidence=Feature(linear=True))
FAST = {"infer": BP(), "search": SMC(4)}


def ratio(estimate, truth):
    """Plain SDR in dB."""
    return float(10 * torch.log10(truth.square().sum() / (estimate - truth).square().sum()))


def told(result):
    return " ".join(result.notices)


class Oracle:
    """Stands for `separate`: gives each source a fixed filter's output of its mixture, so that the
    stems of the whole are known. Remembers what it was asked."""

    def __init__(self, shares):
        self.shares, self.calls = shares, []

    def __call__(self, mixtures, graph, bundle, *, streams, level, progress, **options):
        self.calls.append((mixtures.shape, list(streams), level))
        weights = graph.leaf_weights("mixture")
        made = {
            name: share * mixtures / weights[name]
            for name, share in zip(graph.sources, self.shares, strict=True)
        }

        class Found(SimpleNamespace):
            def __getitem__(self, name):
                return made[name]

        if progress is not None:
            progress(1, 2)
        return Found(notices=())


@pytest.fixture
def oracle(monkeypatch):
    oracle = Oracle((0.5, 0.3, 0.2))
    monkeypatch.setattr(chunks, "separate", oracle)
    return oracle


# ------------------------------------------------------------------------ what comes out


def test_stems_come_out_on_the_songs_scale_and_sum_to_it():
    mixture, truths = song(1.0)
    found = separate_song(mixture, TRIO, make_bundle(), rate=RATE, **FAST)
    assert list(found) == list(STEMS)
    assert torch.allclose(sum(found.stems.values()), mixture[None], atol=1e-6)
    raw = separate_song(mixture, TRIO, make_bundle(), rate=RATE, postfilter=None, **FAST)
    for name, truth in truths.items():
        assert found[name].shape == (1, len(mixture))
        floor = ratio(mixture / 3, truth)
        assert ratio(found[name][0], truth) > floor + 1, name
        if name == "bass":  # the small codec hardly gives faster waves back by the sample
            assert ratio(raw[name][0], truth) > floor + 1, name
    assert found.real_time_factor == pytest.approx(found.seconds / 1.0)


def test_the_level_of_a_song_changes_nothing_but_the_level():
    mixture, _ = song(0.5)
    options = {"rate": RATE, "postfilter": None, **FAST}
    loud = separate_song(mixture, TRIO, make_bundle(), **options)
    soft = separate_song(mixture / 128, TRIO, make_bundle(), **options)
    for name in STEMS:
        assert torch.allclose(loud[name], 128 * soft[name], atol=1e-5)


def test_all_chunks_are_separated_at_the_level_of_the_whole_song(oracle):
    mixture, _ = song(1.0)
    mixture[: len(mixture) // 2] *= 0.1
    separate_song(mixture, TRIO, make_bundle(), rate=RATE, batch_size=2)
    assert len(oracle.calls) > 2
    for _, _, level in oracle.calls:
        assert level == pytest.approx(float(mixture.square().mean().sqrt()), rel=1e-4)


@pytest.mark.parametrize("rate", [RATE, 11_025, 44_100])
@pytest.mark.parametrize("frames", [1, 999, 44_101])
def test_rate_and_length_are_the_songs_own(oracle, rate, frames):
    mixture = 0.1 * torch.randn(2, frames)
    for postfilter in (None, Wiener()):
        found = separate_song(mixture, TRIO, make_bundle(), rate=rate, postfilter=postfilter)
        assert found.rate == rate
        assert all(own.shape == (2, frames) for own in found.stems.values())
        assert all(own.isfinite().all() for own in found.stems.values())
    assert torch.allclose(sum(found.stems.values()), mixture, atol=1e-6)


def test_resampled_stems_stay_in_time(oracle):
    time = torch.arange(44_100) / 44_100
    mixture = 0.5 * torch.sin(2 * math.pi * 440 * time)
    found = separate_song(mixture, TRIO, make_bundle(), rate=44_100, postfilter=None)
    inside = slice(500, -500)
    for name, share in zip(STEMS, oracle.shares, strict=True):
        assert torch.allclose(found[name][0, inside], share * mixture[inside], atol=1e-4)
    assert "separated at 8,000 Hz and brought back to 44,100 Hz" in told(found)
    assert "nothing above 4,000 Hz" in told(found)


def test_without_a_filter_both_channels_of_a_stem_are_the_same(oracle):
    left = 0.1 * torch.randn(3 * SAMPLES)
    found = separate_song(
        torch.stack([left, 0.2 * left]), TRIO, make_bundle(), rate=RATE, postfilter=None
    )
    for name, share in zip(STEMS, oracle.shares, strict=True):
        assert torch.equal(found[name][0], found[name][1])
        assert torch.allclose(found[name][0], share * 0.6 * left, atol=1e-6)
    assert "both channels of a stem are the same" in told(found)


def test_the_filter_gives_each_channel_its_own_part(monkeypatch):
    """A low tone on the left and a high one on the right come out where they were."""
    time = torch.arange(RATE) / RATE
    tones = torch.stack([0.3 * torch.sin(2 * math.pi * pitch * time) for pitch in (100, 2_000)])

    def separate(mixtures, graph, bundle, *, streams, **options):
        spectrum = torch.fft.rfft(mixtures)
        cut = spectrum.shape[-1] * 1_000 // 4_000
        low = torch.fft.irfft(torch.cat([spectrum[..., :cut], 0 * spectrum[..., cut:]], -1),
                              mixtures.shape[-1])  # fmt: skip
        found = {"bass": 2 * low, "drums": 2 * (mixtures - low)}
        return type("Found", (dict,), {"notices": ()})(found)

    monkeypatch.setattr(chunks, "separate", separate)
    duo = chain(["bass", "drums"], evidence=Feature(linear=True))
    found = separate_song(tones, duo, make_bundle(), rate=RATE)
    inside = slice(1_000, -1_000)
    for row, name in enumerate(found):
        assert ratio(found[name][row, inside], tones[row, inside]) > 25
        assert found[name][1 - row, inside].square().mean() < 1e-3 * tones.square().mean()


def test_a_filter_with_iterations_reads_the_stems_several_times(oracle):
    mixture = 0.1 * torch.randn(2, 4 * SAMPLES)
    found = separate_song(mixture, TRIO, make_bundle(), rate=RATE, postfilter=Wiener(iterations=1))
    assert torch.allclose(sum(found.stems.values()), mixture, atol=1e-5)
    asked = [number for _, streams, _ in oracle.calls for number in streams]
    assert asked == sorted(set(asked))  # but separated once


def test_one_stem_and_the_rest_or_a_residual():
    mixture, _ = song(0.4)
    options = {"rate": RATE, "postfilter": None, **FAST}
    whole = separate_song(mixture, TRIO, make_bundle(), **options)
    two = separate_song(mixture, TRIO, make_bundle(), two_stems="drums", **options)
    assert list(two) == ["drums", "no_drums"]
    assert torch.equal(two["drums"], whole["drums"])
    assert torch.allclose(two["drums"] + two["no_drums"], mixture[None], atol=1e-6)
    more = separate_song(mixture, TRIO, make_bundle(), residual=True, **options)
    assert list(more) == [*STEMS, "residual"]
    assert more["residual"].abs().max() > 1e-3
    assert torch.allclose(sum(more.stems.values()), mixture[None], atol=1e-4)


# ------------------------------------------------------------------------ chunks


@pytest.mark.parametrize("overlap", [None, 0.0, 0.04, 0.08])
@pytest.mark.parametrize("frames", [1, SAMPLES - 1, SAMPLES, SAMPLES + 1, 5 * SAMPLES + 77])
def test_chunks_that_agree_join_without_a_trace(oracle, overlap, frames):
    mixture = 0.1 * torch.randn(frames)
    seen = []
    found = separate_song(
        mixture, TRIO, make_bundle(), rate=RATE, postfilter=None, overlap_seconds=overlap,
        batch_size=3, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    for name, share in zip(STEMS, oracle.shares, strict=True):
        assert torch.allclose(found[name][0], share * mixture, atol=1e-6)
    numbers = [number for _, streams, _ in oracle.calls for number in streams]
    assert numbers == list(range(len(numbers)))
    assert seen == sorted(seen)
    assert seen[-1] == (frames, frames)


def test_the_batch_changes_nothing():
    mixture, _ = song(1.5)
    options = {"rate": RATE, "postfilter": None, **FAST}
    one = separate_song(mixture, TRIO, make_bundle(), batch_size=1, **options)
    for batch in (3, 64):
        several = separate_song(mixture, TRIO, make_bundle(), batch_size=batch, **options)
        for name in STEMS:
            assert torch.allclose(one[name], several[name], atol=1e-5)
    again = separate_song(mixture, TRIO, make_bundle(), batch_size=1, **options)
    assert all(torch.equal(one[name], again[name]) for name in STEMS)
    other = separate_song(mixture, TRIO, make_bundle(), batch_size=1, seed=1, **options)
    assert any(not torch.equal(one[name], other[name]) for name in STEMS)


def test_chunks_are_drawn_from_streams_of_their_own():
    """Two chunks of the same sound are separated by two draws, not by one and the same."""
    period = SAMPLES - SAMPLES // 6  # where the next chunk begins
    once = stem("drums", 1, period)[0, 0] / 3
    found = separate_song(once.repeat(3), TRIO, make_bundle(), rate=RATE, postfilter=None,
                          infer=BP(), search=SMC(2))  # fmt: skip
    inside = slice(SAMPLES // 3, SAMPLES // 2)
    first, second = (found["piano"][0, inside.start + k * period :][: SAMPLES // 6] for k in (0, 1))
    assert not torch.allclose(first, second, atol=1e-4)


def test_seams_are_no_louder_than_the_rest():
    """Energy of the second difference, which a step would raise, around the joins and elsewhere."""
    mixture, _ = song(6.0)
    found = separate_song(mixture, TRIO, make_bundle(), rate=RATE, postfilter=None, batch_size=40,
                          **FAST)  # fmt: skip
    step = SAMPLES - SAMPLES // 6
    place = torch.arange(len(mixture) - 2)
    at_seam = (place % step < SAMPLES // 6) & (place >= step) & (place < len(mixture) - SAMPLES)
    within = ~at_seam & (place >= step) & (place < len(mixture) - SAMPLES)
    for name in ("bass", "piano"):  # drums have steps of their own
        change = found[name][0].diff(n=2).square()
        assert change[at_seam].mean() < 1.2 * change[within].mean(), name
    cut = separate_song(mixture, TRIO, make_bundle(), rate=RATE, postfilter=None, batch_size=40,
                        overlap_seconds=0.0, **FAST)  # fmt: skip
    joins = torch.arange(SAMPLES, len(mixture) - SAMPLES, SAMPLES) - 1
    hard = cut["bass"][0].diff(n=2).square()[joins].mean()
    soft = found["bass"][0].diff(n=2).square()[at_seam].mean()
    assert soft < hard  # and without a cross-fade the measure does see the joins


def test_exchangeable_sources_keep_their_order(monkeypatch):
    """Two basses come out swapped in some chunks; joined, each goes on where it was."""
    time = torch.arange(4 * RATE) / RATE
    voices = torch.stack([0.1 * torch.sin(2 * math.pi * pitch * time) for pitch in (90, 143)])
    seen = {}

    def separate(mixtures, graph, bundle, *, streams, **options):
        own = []
        for stream in streams:
            start = stream * (SAMPLES - SAMPLES // 6)
            part = voices[:, start : start + mixtures.shape[-1]]
            seen[stream] = stream % 3 == 1 or stream % 5 == 2
            own.append(part.flip(0) if seen[stream] else part)
        parts = 2 * torch.stack(own)
        found = {name: parts[:, row : row + 1] for row, name in enumerate(graph.sources)}
        return type("Found", (dict,), {"notices": ()})(found)

    monkeypatch.setattr(chunks, "separate", separate)
    mixture = voices.sum(0)
    duo = chain(2, prior="bass", evidence=Feature(linear=True))
    found = separate_song(mixture, duo, make_bundle(), rate=RATE, postfilter=None)
    assert any(seen.values())
    assert torch.allclose(torch.cat(list(found.stems.values())), voices, atol=1e-5)
    # sources of their own priors are told apart by them and never reordered
    named = chain(["bass", "drums"], evidence=Feature(linear=True))
    apart = separate_song(mixture, named, make_bundle(), rate=RATE, postfilter=None)
    assert not torch.allclose(torch.cat(list(apart.stems.values())), voices, atol=1e-2)


def test_the_order_is_the_best_of_all(random):
    for _ in range(20):
        before = torch.randn(5, 30, generator=random)
        order = torch.randperm(3, generator=random)
        after = before.clone()
        after[torch.tensor([0, 2, 4])] = before[torch.tensor([0, 2, 4])[order]]
        after += 0.3 * torch.randn(5, 30, generator=random)
        best = continuing(before, after, [[0, 2, 4]])
        assert torch.tensor([0, 2, 4])[order][
            torch.tensor([[0, 2, 4].index(best[i]) for i in (0, 2, 4)])
        ].tolist() == [0, 2, 4]
        assert (best[1], best[3]) == (1, 3)
    assert continuing(torch.zeros(3, 4), torch.zeros(3, 4), [[0, 1, 2]]) == [0, 1, 2]


# ------------------------------------------------------------------------ silence and bad input


def test_silence_gives_silence(oracle):
    found = separate_song(torch.zeros(2, 3 * SAMPLES), TRIO, make_bundle(), rate=RATE)
    assert all(not own.any() for own in found.stems.values())
    assert "silent" in told(found)
    assert not oracle.calls


def test_silent_chunks_are_not_separated(oracle):
    mixture = torch.zeros(10 * SAMPLES)
    mixture[: 2 * SAMPLES] = 0.1 * torch.randn(2 * SAMPLES)
    mixture[6 * SAMPLES :] = 0.1 * torch.randn(4 * SAMPLES)
    mixture += 1e-6 * torch.randn(10 * SAMPLES)  # as dither leaves it
    found = separate_song(mixture, TRIO, make_bundle(), rate=RATE, postfilter=None, batch_size=3)
    step = SAMPLES - SAMPLES // 6
    expected = [
        number
        for number in range(12)
        if mixture[number * step :][:SAMPLES].abs().max() > 1e-4 * mixture.abs().max()
    ]
    asked = [number for _, streams, _ in oracle.calls for number in streams]
    assert asked == expected
    assert len(asked) < 10
    assert not found["bass"][0, 4 * SAMPLES : 5 * SAMPLES].any()


def test_channels_that_cancel_are_told(oracle):
    left = 0.1 * torch.randn(2 * SAMPLES)
    found = separate_song(torch.stack([left, -left]), TRIO, make_bundle(), rate=RATE)
    assert "cancel each other" in told(found)
    assert torch.allclose(sum(found.stems.values()), torch.stack([left, -left]), atol=1e-6)


def test_clipped_sound_is_separated_and_told():
    mixture = (20 * song(0.4)[0]).clamp(-1, 1)
    found = separate_song(mixture, TRIO, make_bundle(), rate=RATE, **FAST)
    assert "clipped" in told(found)
    assert torch.allclose(sum(found.stems.values()), mixture[None], atol=1e-5)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (torch.tensor([0.1, float("nan")]), "1 NaN or infinite"),
        (torch.full((2, 5), float("inf")), "10 NaN or infinite"),
        (torch.zeros(0), "one or more samples"),
        (torch.zeros(3, 8), "of one or two channels, got"),
        (torch.zeros(2, 2, 8), "of one or two channels, got"),
        (torch.zeros(8, dtype=torch.int16), "Divide 16-bit"),
        ("nowhere.wav", "no sound file 'nowhere.wav'"),
        (object(), "expected a sound file or a waveform"),
    ],
)
def test_bad_mixtures_are_refused_before_any_work(oracle, mixture, message):
    rate = None if isinstance(mixture, str) else RATE
    with pytest.raises(SignalError, match=message):
        separate_song(mixture, TRIO, make_bundle(), rate=rate)
    assert not oracle.calls


def test_a_file_that_is_cut_off_is_refused_before_any_work(oracle, tmp_path):
    write_audio(tmp_path / "whole.flac", 0.1 * torch.randn(20 * SAMPLES), RATE)
    whole = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "half.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SignalError, match="Copy or download it again"):
        separate_song(tmp_path / "half.flac", TRIO, make_bundle())
    assert not oracle.calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": None}, "a waveform needs its rate"),
        ({"rate": 44_100.0}, "a waveform needs its rate"),
        ({"postfilter": "wiener"}, r"postfilter takes Wiener\(\) or None"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"overlap_seconds": 0.1}, "overlap by 0 to 0.08 s"),
        ({"overlap_seconds": -1}, "overlap by 0 to 0.08 s"),
        ({"two_stems": "guitar"}, "one of the stems bass, drums, piano; got 'guitar'"),
        ({"two_stems": "bass", "residual": True}, "there is no residual"),
        ({"on_unseen": "skip"}, "on_unseen is 'error' or 'prior'"),
    ],
)
def test_bad_options_teach(options, message):
    with pytest.raises(OptionError, match=message):
        separate_song(
            torch.ones(SAMPLES),
            TRIO,
            make_bundle(),
            **({"rate": RATE, "search": Greedy()} | options),
        )


def test_programs_and_bundles_that_do_not_fit_teach(tmp_path):
    def stereo():
        bass, drums = mlass_ppl.source("bass"), mlass_ppl.source("drums")
        left = mlass_ppl.mix("left", bass, drums, weights=(0.7, 0.3))
        return left, mlass_ppl.mix("right", bass, drums, weights=(0.3, 0.7))

    with pytest.raises(OptionError, match="observes several signals; a song is one"):
        separate_song(torch.ones(9), stereo, make_bundle(), rate=RATE)
    write_audio(tmp_path / "song.wav", torch.ones(9) / 2, RATE)
    with pytest.raises(OptionError, match="tells its rate itself; leave rate=8000 out"):
        separate_song(tmp_path / "song.wav", TRIO, make_bundle(), rate=RATE)


def test_the_helper_bundle_is_as_loud_as_it_says():
    for name in STEMS:
        level = float(stem(name, 5).square().mean().sqrt())
        assert level == pytest.approx(LEVELS[name], rel=1e-5)
    assert Segments(SAMPLES, SAMPLES // 6).overlap == 213
    assert resample(song(0.1)[0], RATE, RATE).shape == (800,)
