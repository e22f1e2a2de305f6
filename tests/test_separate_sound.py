"""Separation of waveforms: what is taken, levels, lengths, files, and the result as files."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audio_bundle import HOP, LEVELS, RATE, SAMPLES, STEMS, make_bundle, song, stems
from safetensors.torch import load_file
from torch import Tensor

from mlass_ppl import (
    BP,
    SMC,
    Feature,
    Mean,
    Nearest,
    Refine,
    Sample,
    Separation,
    Soft,
    Token,
    separate,
)
from mlass_ppl.audio import read_audio, write_audio
from mlass_ppl.bundle import Bundle
from mlass_ppl.declare import mix, source
from mlass_ppl.errors import CodecError, OptionError, PriorError, SignalError
from mlass_ppl.shapes import additive, chain, joint, star

LINEAR = Feature(linear=True)
SIX = SMC(6)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle()


@pytest.fixture(scope="module")
def quiet(bundle: Bundle) -> Bundle:
    """One that does not know how loud it was trained."""
    return replace(bundle, card={})


def mixtures(number: int = 3, samples: int = SAMPLES) -> Tensor:
    return torch.stack(list(stems(number, samples).values())).mean(0)


def run(bundle: Bundle, given: Any, program: Any = None, **options: Any) -> Separation:
    program = program or chain(STEMS, evidence=LINEAR)
    return separate(given, program, bundle, **{"search": SIX, "infer": BP(), **options})


def same(one: Separation, other: Separation) -> None:
    for name in one.signals:
        assert torch.equal(one[name], other[name])
        assert torch.equal(one.candidate_tokens[name], other.candidate_tokens[name])
    assert torch.equal(one.errors, other.errors)
    assert torch.equal(one.evidence, other.evidence)


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        chain(STEMS, evidence=LINEAR), chain(STEMS), chain(STEMS, evidence=Soft()),
        additive(STEMS), joint(STEMS),
    ],
    ids=lambda program: program.__name__,
)  # fmt: skip
def test_signals_of_every_shape(bundle: Bundle, program: Any) -> None:
    found = run(bundle, mixtures(), program, infer=None)
    assert found.sample_rate == RATE
    assert list(found.signals) == list(STEMS)
    for name in STEMS:
        assert found[name].shape == (3, 1, SAMPLES)
        assert found[name].isfinite().all()
        assert found.tokens[name].shape == (3, SAMPLES // HOP)
        assert found.tokens[name].max() < 16
    assert torch.equal(found.observed["mixture"], mixtures())
    assert "3 mixtures into bass, drums, piano" in repr(found)


def test_a_candidate_is_what_its_own_codecs_decode(bundle: Bundle) -> None:
    """At the level of the mixture, and its error is that to the mixture."""
    given = 0.01 * mixtures()
    found = run(bundle, given, estimate=Nearest(), keep_candidates=True)
    level = math.sqrt(sum((LEVELS[name] / 3) ** 2 for name in STEMS))
    gains = level / given.double().square().mean((1, 2)).sqrt()
    assert found.candidates is not None
    for row in range(3):
        for name in STEMS:
            codec = bundle.codecs[name]
            own = codec.decode(found.candidate_tokens[name][row]) / gains[row]
            torch.testing.assert_close(found.candidates[name][row], own.float())
    sums = torch.stack(list(found.candidates.values())).mean(0)
    errors = (sums - given[:, None]).square().flatten(2).mean(2)
    torch.testing.assert_close(found.errors, errors, rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(found.reconstruction_error(), errors.amin(1), rtol=1e-3, atol=1e-12)


def test_the_same_whatever_the_batch(bundle: Bundle) -> None:
    given = torch.cat([mixtures(4), 0.03 * mixtures(2)[:1], torch.zeros(1, 1, SAMPLES)])
    for infer in (BP(), BP(keep=6)):
        whole = run(bundle, given, infer=infer)
        same(run(bundle, given, infer=infer, batch_size=4), whole)
        for row in (0, 4, 5):
            alone = run(bundle, given[row : row + 1], infer=infer, streams=[row])
            for name in STEMS:
                assert torch.equal(alone[name][0], whole[name][row])
            assert torch.equal(alone.evidence[0], whole.evidence[row])


# --- lengths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 63, 64, 65, 1_000])
def test_any_length_comes_back(bundle: Bundle, samples: int) -> None:
    given = mixtures(2)[..., :samples]
    found = run(bundle, given)
    for name in STEMS:
        assert found[name].shape == (2, 1, samples)
        assert found.tokens[name].shape == (2, -(-samples // HOP))
    assert found.reconstruction().shape == given.shape
    # what is missing to a token is silence
    padded = torch.nn.functional.pad(given, (0, -samples % HOP))
    level = float(given[0].square().mean().sqrt())
    one = run(bundle, given[:1], level=level)
    other = run(bundle, padded[:1], level=level)
    for name in STEMS:
        assert torch.equal(one[name], other[name][..., :samples])


def test_longer_than_the_priors_know(bundle: Bundle) -> None:
    with pytest.raises(PriorError, match="20"):
        run(bundle, torch.cat([mixtures(1), mixtures(1)[..., :1]], 2))


@pytest.mark.parametrize("shape", [(SAMPLES,), (1, SAMPLES), (1, 1, SAMPLES)])
@pytest.mark.parametrize("kind", ["tensor", "array", "double", "list", "reversed"])
def test_shapes_and_kinds_of_waveforms(bundle: Bundle, shape: tuple[int, ...], kind: str) -> None:
    one = mixtures(1)
    given: Any = one.reshape(shape)
    if kind == "array":
        given = given.numpy()
    elif kind == "double":
        given = given.double().requires_grad_()
    elif kind == "list":
        given = given.tolist()
    elif kind == "reversed":
        given = np.ascontiguousarray(given.numpy()[..., ::-1])[..., ::-1]
    same(run(bundle, given), run(bundle, one))


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0**-9, 0.5, 4.0, 2.0**20])
def test_louder_in_louder_out(bundle: Bundle, factor: float) -> None:
    """Tokens do not change with the volume; signals follow it, and errors its square."""
    one, other = run(bundle, mixtures()), run(bundle, factor * mixtures())
    for name in STEMS:
        assert torch.equal(one.tokens[name], other.tokens[name])
        torch.testing.assert_close(factor * one[name], other[name], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(factor**2 * one.errors, other.errors, rtol=1e-4, atol=0.0)


def test_without_levels_nothing_is_scaled(quiet: Bundle) -> None:
    one, other = run(quiet, mixtures()), run(quiet, 0.1 * mixtures())
    assert any(not torch.equal(one.tokens[name], other.tokens[name]) for name in STEMS)
    for name in STEMS:
        peak = quiet.codecs[name].decode(one.candidate_tokens[name][0]).abs().max()
        assert one[name][0].abs().max() <= peak + 1e-6


def test_the_level_of_the_recording_counts_for_its_quiet_parts(bundle: Bundle) -> None:
    """A quiet chunk of a loud song is separated as quiet as it is."""
    given = mixtures(2)
    rms = float(given[0].square().mean().sqrt())
    own = run(bundle, given[:1], estimate=Mean())
    told = run(bundle, given[:1], level=rms)
    for name in STEMS:
        assert torch.equal(own.tokens[name], told.tokens[name])
    quiet = run(bundle, 0.05 * given[:1], level=rms, estimate=Mean())
    assert any(not torch.equal(quiet.tokens[name], own.tokens[name]) for name in STEMS)
    for name in STEMS:
        assert quiet[name].abs().max() < own[name].abs().max()


@pytest.mark.parametrize("level", [0, -1.0, math.nan, math.inf, 1e30, "loud", True])
def test_levels_that_are_none(bundle: Bundle, level: Any) -> None:
    with pytest.raises(OptionError, match="level is the RMS of a recording, above 0"):
        run(bundle, mixtures(1), level=level)


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e-6, 1e12])
def test_silence_and_noise_give_numbers(bundle: Bundle, factor: float) -> None:
    given = factor * mixtures(2).clamp(-1, 1)
    found = run(bundle, given)
    for values in (*found.signals.values(), found.errors, found.reconstruction_error()):
        assert values.isfinite().all()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(0), r"at least one sample, at 8,000 Hz; got \[0\]"),
        (torch.zeros(0, 1, 640), r"got \[0, 1, 640\]"),
        (torch.zeros(2, 640), r"\[S\], \[1, S\] or \[M, 1, S\].*got \[2, 640\].*Average the chan"),
        (torch.zeros(3, 2, 640), r"got \[3, 2, 640\]"),
        (torch.zeros(1, 1, 1, 640), r"got \[1, 1, 1, 640\]"),
        (torch.zeros(640, dtype=torch.int16), "got torch.int16. Divide 16-bit samples by 32768"),
        (torch.full((640,), math.nan), "NaN or infinite"),
        (torch.full((640,), -math.inf), "NaN or infinite"),
        (torch.full((640,), 1e300, dtype=torch.float64), r"samples of 1e\+300, where full scale"),
        (torch.full((640,), 1e30), "samples of 1e"),
        ([[0.0, 1.0], [0.0]], "expected a waveform tensor, an array or a path, got list"),
        (None, "got NoneType"),
        (3.5, r"got \[\]"),
        ({"mixture": torch.zeros(2, 640)}, r"observed site 'mixture': expected mono"),
        (["a.wav", torch.zeros(3)], "paths only, or tensors only, got a path and a Tensor"),
    ],
    ids=str,
)
def test_what_is_no_waveform_is_refused(bundle: Bundle, given: Any, message: str) -> None:
    with pytest.raises(SignalError, match=f"(?s){message}"):
        run(bundle, given)


def test_refinements_and_levels_belong_to_images(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match=r"refinements are of images.*'bass' has a codec of its"):
        run(bundle, mixtures(1), refine=Refine(steps=1))
    plain = replace(bundle, codecs={}, counts={})
    with pytest.raises(OptionError, match=r"refinements are of images.*this bundle is of sound"):
        run(plain, mixtures(1), refine=Refine(steps=1))
    import tiny

    images = tiny.make_bundle(sources=(2,))
    with pytest.raises(OptionError, match="level is of waveforms, but this bundle is of images"):
        separate(tiny.mixtures(1), chain(2), images, level=0.1)


def test_codecs_of_images_and_of_sound_do_not_mix(bundle: Bundle) -> None:
    import tiny

    mixed = replace(bundle, codecs={**bundle.codecs, "picture": tiny.make_codec()})
    with pytest.raises(CodecError, match="ImageVQVAE is no audio codec, but another codec"):
        run(mixed, mixtures(1))


# --- files ----------------------------------------------------------------------------------------


def test_files_are_read_at_the_codecs_rate_and_as_mono(bundle: Bundle, tmp_path: Path) -> None:
    given, _ = song(0.1, 16_000)
    write_audio(tmp_path / "one.wav", torch.stack([given, given]), 16_000)
    found = run(bundle, tmp_path / "one.wav")
    read = read_audio(tmp_path / "one.wav", rate=RATE, mono=True)
    assert found.observed["mixture"].shape == (1, 1, 800)
    assert torch.equal(found.observed["mixture"][0], read.samples)
    assert any(notice.startswith("one.wav: ") for notice in found.notices)
    several = run(bundle, [str(tmp_path / "one.wav")] * 2)
    assert len(several) == 2
    assert torch.equal(several["bass"][0], found["bass"][0])


def test_files_of_several_lengths_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    for name, samples in (("a", 800), ("b", 801)):
        write_audio(tmp_path / f"{name}.wav", mixtures(1)[0, :, :samples], RATE)
    with pytest.raises(SignalError, match="equally long, got 800, 801 samples"):
        run(bundle, [tmp_path / "a.wav", tmp_path / "b.wav"])
    with pytest.raises(SignalError, match=re.escape("missing.wav")):
        run(bundle, tmp_path / "missing.wav")


# --- several observed signals ---------------------------------------------------------------------


def _stereo() -> Any:
    bass, drums = source("bass"), source("drums")
    left = mix("left", bass, drums, weights=(0.75, 0.25), evidence=Token())
    return left, mix("right", bass, drums, weights=(0.25, 0.75), evidence=Token())


@pytest.fixture(scope="module")
def wide(bundle: Bundle) -> Bundle:
    return bundle.count(_stereo, stems(60, seed=0), mixtures=300)


def channels(number: int = 1, samples: int = 700) -> dict[str, Tensor]:
    own = stems(number, samples)
    return {
        "left": 0.75 * own["bass"] + 0.25 * own["drums"],
        "right": 0.25 * own["bass"] + 0.75 * own["drums"],
    }


def test_channels_keep_their_balance(wide: Bundle) -> None:
    """Both are scaled by one number: that of their mean power."""
    given = channels(2)
    one = run(wide, given, _stereo, infer=None)
    other = run(wide, {name: 0.5 * own for name, own in given.items()}, _stereo, infer=None)
    for name in ("bass", "drums"):
        assert torch.equal(one.tokens[name], other.tokens[name])
        torch.testing.assert_close(0.5 * one[name], other[name])
    unlike = run(wide, {**given, "left": 0.01 * given["left"]}, _stereo, infer=None)
    assert any(not torch.equal(unlike.tokens[n], one.tokens[n]) for n in ("bass", "drums"))
    with pytest.raises(SignalError, match="one shape at every observed site"):
        run(wide, {**given, "left": given["left"][..., :600]}, _stereo)


def test_one_signal_at_several_sites(bundle: Bundle) -> None:
    program = star(STEMS[:2])
    counted = bundle.count(program, stems(60, seed=0), mixtures=200)
    found = run(counted, mixtures(2), program, infer=None)
    assert found["bass"].shape == (2, 1, SAMPLES)
    assert len(found.importance) == 1


# --- saved, drawn, heard --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one(bundle: Bundle) -> Separation:
    return run(bundle, 0.5 * mixtures(1)[..., :900])


@pytest.fixture(scope="module")
def three(bundle: Bundle) -> Separation:
    return run(bundle, mixtures(3)[..., :900])


def test_one_mixture_is_saved_as_stems_that_add_up(one: Separation, tmp_path: Path) -> None:
    written = one.save(tmp_path / "out")
    names = [*(f"{name}.wav" for name in STEMS), "mixture.wav", "tokens.safetensors"]
    assert written == [tmp_path / "out" / name for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    back = {path.stem: read_audio(path) for path in written[:-1]}
    assert {audio.rate for audio in back.values()} == {RATE}
    assert torch.equal(back["mixture"].samples, one.mixtures[0])  # every bit, as float32
    for name in STEMS:
        torch.testing.assert_close(back[name].samples, one[name][0] / 3)
    total = torch.stack([back[name].samples for name in STEMS]).sum(0)
    torch.testing.assert_close(total, one.reconstruction()[0])
    tokens = load_file(written[-1])
    assert all(torch.equal(tokens[name], one.tokens[name]) for name in STEMS)


def test_several_mixtures_get_a_folder_each(three: Separation, tmp_path: Path) -> None:
    written = three.save(tmp_path)
    assert len(written) == 3 * 4 + 1
    for row in range(3):
        audio = read_audio(tmp_path / f"{row:04d}" / "drums.wav")
        torch.testing.assert_close(audio.samples, three["drums"][row] / 3)


def test_observed_channels_become_those_of_the_files(wide: Bundle, tmp_path: Path) -> None:
    given = channels()
    found = run(wide, given, _stereo, infer=None)
    found.save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == [
        "bass.wav", "drums.wav", "mixture.wav"
    ]  # fmt: skip
    mixture = read_audio(tmp_path / "mixture.wav").samples
    assert torch.equal(mixture, torch.cat([given["left"][0], given["right"][0]]))
    bass = read_audio(tmp_path / "bass.wav").samples
    torch.testing.assert_close(bass, torch.cat([0.75 * found["bass"][0], 0.25 * found["bass"][0]]))


def test_what_is_there_is_kept_unless_forced(one: Separation, tmp_path: Path) -> None:
    (tmp_path / "piano.wav").write_text("mine")
    with pytest.raises(OptionError, match=r"piano\.wav exists \(1 files in all\).*force=True"):
        one.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["piano.wav"]
    assert (tmp_path / "piano.wav").read_text() == "mine"
    one.save(tmp_path, force=True)
    torch.testing.assert_close(read_audio(tmp_path / "piano.wav").samples, one["piano"][0] / 3)


def test_names_that_no_file_can_have(one: Separation, tmp_path: Path) -> None:
    """Found before anything is written."""

    def named(name: str) -> Separation:
        def program() -> Any:
            return mix("song", source(name), source("b"))

        from mlass_ppl.declare import compile_program

        graph = compile_program(program)
        signals = {name: one["bass"], "b": one["drums"]}
        return replace(one, graph=graph, signals=signals, observed={"song": one.mixtures})

    with pytest.raises(OptionError, match=r"'a/b' cannot be written to 'a/b\.wav'"):
        named("a/b").save(tmp_path)
    with pytest.raises(OptionError, match=r"source 'mixture' and the mixture .* 'mixture\.wav'"):
        named("mixture").save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_sounds_are_no_images(one: Separation) -> None:
    with pytest.raises(SignalError, match=r"these are sounds, not images: save\(directory\)"):
        one.images()


def test_plots_are_spectrograms_of_mixture_and_stems(
    one: Separation, three: Separation, tmp_path: Path
) -> None:
    for found, names in (
        (one, ["mixture", *STEMS]),
        (three, [f"{name} {row}" for row in range(3) for name in ("mixture", *STEMS)]),
    ):
        figure = found.plot(tmp_path / "plot.png")
        assert [axes.get_ylabel().split("\n")[0] for axes in figure.get_axes()] == names
        assert (tmp_path / "plot.png").stat().st_size > 1_000


def test_notebooks_have_players(one: Separation, three: Separation, bundle: Bundle) -> None:
    pytest.importorskip("IPython")
    html = one._repr_html_()
    assert html is not None
    assert html.count("<audio") == 4
    assert "Separation of 1 mixture into bass, drums, piano" in html
    assert [html.index(f"<th>{name}</th>") for name in ("mixture", *STEMS)] == sorted(
        html.index(f"<th>{name}</th>") for name in ("mixture", *STEMS)
    )
    assert (three._repr_html_() or "").count("<audio") == 12
    six = run(bundle, mixtures(6)[..., :64], search=Sample(1))
    assert (six._repr_html_() or "").count("<audio") == 16  # of the first four
    import tiny

    images = separate(tiny.mixtures(1), chain(2), tiny.make_bundle(sources=(2,)), search=Sample(2))
    assert images._repr_html_() is None
    assert images.sample_rate is None
