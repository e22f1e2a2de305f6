"""Programs that observe several signals: what they take, how they choose, refine, draw and save."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ALPHABET, blobs, make_bundle, make_codec, same, without
from torch import Tensor

from mlass_ppl import BP, Exact, Extractor, Nearest, Refine, Sample, Separation, separate
from mlass_ppl.bundle import Bundle
from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.errors import BundleError, CodecError, MlassError, OptionError, SignalError
from mlass_ppl.shapes import chain, star
from mlass_ppl.tables import count

SIX = Sample(6)
LEFT, RIGHT = (0.8, 0.2), (0.3, 0.7)


def stereo():
    a, b = source("a"), source("b")
    return mix("left", a, b, weights=LEFT), mix("right", a, b, weights=RIGHT)


def pairwise():
    """Three sources, each two of them heard together: every source sounds in two mixtures."""
    a, b, c = source("a"), source("b"), source("c")
    return mix("ab", a, b), mix("bc", b, c), mix("ca", c, a)


def counted(bundle: Bundle, *programs: Any) -> Bundle:
    counts = dict(bundle.counts)
    for program in programs:
        counts |= count(program, bundle.codec, blobs(300), mixtures=600, kind=lambda source: "blob")
    return replace(bundle, counts=counts)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return counted(make_bundle(sources=(2,)), stereo, pairwise)


def observed(number: int, program: Any = stereo, seed: int = 1) -> dict[str, Tensor]:
    """What a program observes of random blobs."""
    graph = compile_program(program)
    n = len(graph.sources)
    sources = dict(
        zip(graph.sources, blobs(number * n, seed).unflatten(0, (n, number)), strict=True)
    )
    return {
        site: torch.stack([w * sources[k] for k, w in graph.leaf_weights(site).items()]).sum(0)
        for site in graph.observed
    }


def found(bundle: Bundle, given: Any, program: Any = stereo, **options: Any) -> Separation:
    options = {
        "infer": Exact(), "search": SIX, "estimate": Nearest(), "on_unseen": "prior", **options
    }  # fmt: skip
    return separate(given, program, bundle, **options)


# --- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize("program", [stereo, pairwise])
def test_the_candidate_nearest_to_all_observed_signals_is_chosen(bundle, program):
    given = observed(4, program)
    out = found(bundle, given, program, keep_candidates=True)
    assert list(out.observed) == list(given) == list(out.importance)
    assert all(torch.equal(out.observed[site], given[site]) for site in given)
    assert torch.equal(out.mixtures, given[out.graph.observed[0]])
    assert out.candidates is not None
    errors = torch.stack(
        [
            (
                sum(w * out.candidates[name] for name, w in out.graph.leaf_weights(site).items())
                - given[site][:, None]
            ).square().mean((2, 3, 4))
            for site in given
        ]
    ).mean(0)  # fmt: skip
    assert torch.allclose(out.errors, errors, atol=1e-7)
    assert torch.equal(out.chosen, out.errors.argmin(1))
    assert torch.allclose(out.reconstruction_error(), errors.amin(1), atol=1e-7)
    assert f"({', '.join(given)})" in repr(out)
    with pytest.raises(MlassError, match="has no site 'centre'"):
        out.reconstruction("centre")


def test_both_channels_are_heard(bundle):
    """Given the right channel of another recording, another separation is found."""
    given, other = observed(4), observed(4, seed=7)
    out = found(bundle, given)
    assert not torch.equal(
        out.candidate_tokens["a"],
        found(bundle, {**given, "right": other["right"]}).candidate_tokens["a"],
    )
    swapped = {"right": given["right"], "left": given["left"]}  # by name, whatever the order
    same(found(bundle, swapped), out)


def test_two_channels_tell_more_than_one(bundle):
    """Sources that one mixture leaves open are closed by a second one."""
    images = blobs(60, 5).unflatten(0, (2, 30))
    given = {
        "left": LEFT[0] * images[0] + LEFT[1] * images[1],
        "right": RIGHT[0] * images[0] + RIGHT[1] * images[1],
    }

    def only_left():
        return mix("left", source("a"), source("b"), weights=LEFT)

    used = counted(bundle, only_left)
    errors = []
    for program, mixture in ((stereo, given), (only_left, given["left"])):
        out = found(used, mixture, program, search=Sample(32))
        truth = torch.stack([used.codec.encode(part) for part in images])
        tokens = torch.stack([out.tokens["a"], out.tokens["b"]])
        errors.append((tokens != truth).float().mean())
    assert errors[0] < errors[1] - 0.03


def test_one_mixture_in_a_batch_is_as_alone(bundle):
    given = observed(5)
    whole = found(bundle, given, refine=Refine(steps=3))
    for size in (1, 2):
        same(found(bundle, given, batch_size=size), whole)
    one = {site: signals[3] for site, signals in given.items()}
    alone = found(bundle, one, streams=[3], refine=Refine(steps=3))
    same(alone, whole, [3])
    assert torch.allclose(alone["a"][0], whole["a"][3], atol=1e-4)


def test_refinement_fits_all_observed_signals(bundle):
    given = observed(4)
    raw = found(bundle, given)
    fine = found(bundle, given, refine=Refine(steps=60))
    assert (fine.reconstruction_error() < raw.reconstruction_error()).all()
    for site in given:
        before, after = (
            (out.reconstruction(site) - given[site]).square().mean() for out in (raw, fine)
        )
        assert after < before


def test_a_token_that_one_site_has_not_seen_skips_the_position(bundle):
    given = observed(3)
    tokens = {site: bundle.codec.encode(signals) for site, signals in given.items()}
    token = int(tokens["left"][0, 4])
    blind = without(bundle, token)
    out = found(blind, given)
    skipped = (tokens["left"] == token) | (tokens["right"] == token)
    assert (out.evidence.movedim(1, 2)[skipped] == 0).all()
    assert (out.evidence.movedim(1, 2)[~skipped] != 0).all()
    assert out.notices == (
        f"{int(skipped.sum())} observed tokens never occur in the tables and were skipped.",
    )


# --- one signal for sites that mix alike ---------------------------------------------------------


def test_sites_that_mix_alike_share_one_signal(bundle):
    given = observed(3, chain(2))["mixture"]
    program = star(2)
    one = found(bundle, given, program, infer=Extractor())
    assert list(one.observed) == ["mixture_1", "mixture_2"]
    assert list(one.importance) == ["mixture_1"]
    both = found(
        bundle, {"mixture_1": given, "mixture_2": given.clone()}, program, infer=Extractor()
    )
    same(both, one)
    assert torch.equal(both.errors, one.errors)
    assert list(both.importance) == ["mixture_1"]
    named = found(bundle, {"mixture": given}, chain(2), infer=BP())
    same(named, found(bundle, given, chain(2), infer=BP()))


def test_two_takes_of_one_mixture_both_count(bundle):
    given = observed(3, chain(2))["mixture"]
    takes = {"mixture_1": given, "mixture_2": (given + 0.1).clamp(0, 1)}
    out = found(bundle, takes, star(2), infer=Extractor())
    assert dict(out.importance) == {"mixture_1": 0.5, "mixture_2": 0.5}
    errors = sum(
        0.5 * (out.reconstruction() - take).square().flatten(1).mean(1) for take in takes.values()
    )
    assert torch.allclose(out.errors.amin(1), errors, atol=1e-6)


def test_ways_of_mixing_count_the_same_however_many_sites_hear_them(bundle):
    def program():
        a, b = source("a"), source("b")
        left = [mix(f"left_{i}", a, b, weights=LEFT) for i in range(3)]
        return (*left, mix("right", a, b, weights=RIGHT))

    given = observed(2)
    takes = {f"left_{i}": given["left"] * (1 - 0.1 * i) for i in range(3)}
    out = found(bundle, {**takes, "right": given["right"]}, program)
    assert dict(out.importance) == pytest.approx(
        {"left_0": 1 / 6, "left_1": 1 / 6, "left_2": 1 / 6, "right": 1 / 2}
    )
    assert torch.allclose(out.reconstruction_error(), out.errors.amin(1), atol=1e-7)


# --- codecs of their own -------------------------------------------------------------------------


def two_codecs():
    a, b = source("a"), source("b")
    return mix("coarse", a, b), mix("fine", a, b, codec="fine")


def test_a_site_may_have_a_codec_of_its_own(bundle):
    fine = make_codec(alphabet=2 * ALPHABET, seed=3)
    signals = blobs(300)
    counts = count(
        two_codecs, bundle.codec, signals, codecs={"fine": fine}, mixtures=600,
        kind=lambda source: "blob",
    )  # fmt: skip
    used = replace(bundle, codecs={"fine": fine}, counts=counts)
    out = found(used, observed(3, chain(2))["mixture"], two_codecs)
    assert list(out.importance) == ["coarse"]  # one signal, encoded twice
    assert (out.evidence > float("-inf")).float().mean() > 0.8
    message = r"no codec 'fine' for site 'fine'; .* it has \[\]"
    with pytest.raises(BundleError, match=message):
        found(bundle, observed(1, chain(2))["mixture"], two_codecs)
    for size, error in ((16, r"takes signals \[1, 16, 16\]"), (24, "takes signals")):
        other = replace(used, codecs={"fine": make_codec(size=size)})
        with pytest.raises(CodecError, match=error):
            found(other, observed(1, chain(2))["mixture"], two_codecs)


# --- what does not fit ---------------------------------------------------------------------------


IMAGE = blobs(2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (IMAGE, r"'stereo' observes 'left' and 'right', which mix their sources differently, but "
                r"one signal was given\. Give one for each: \{'left': \.\.\., 'right': \.\.\.\}"),
        ({"left": IMAGE}, "no signal for 'right': 'stereo' observes 'left', 'right', given is 'le"),
        ({}, "no signal for 'left', 'right': .* given are none"),
        ({"left": IMAGE, "right": IMAGE, "rear": IMAGE}, "does not observe 'rear'; expected a sig"),
        ({"left": IMAGE, 2: IMAGE}, "does not observe 2; expected"),
        ({"left": IMAGE, "right": IMAGE[:1]}, "as many mixtures .* got 'left': 2, 'right': 1"),
        ({"left": IMAGE, "right": IMAGE * 255}, "observed site 'right': pixels must lie in"),
        ({"left": IMAGE, "right": "nowhere.png"}, "observed site 'right': .*'nowhere.png'"),
    ],
)  # fmt: skip
def test_signals_that_do_not_fit_the_sites_are_refused(bundle, given, message):
    with pytest.raises(SignalError, match=message):
        found(bundle, given)


def test_sites_of_one_signal_need_it_everywhere(bundle):
    with pytest.raises(SignalError, match="no signal for 'mixture_2'"):
        found(bundle, {"mixture_1": IMAGE}, star(2), infer=Extractor())


# --- pictures and files --------------------------------------------------------------------------


def test_every_observed_signal_is_saved(bundle, tmp_path):
    out = found(bundle, observed(2))
    written = {path.relative_to(tmp_path).as_posix() for path in out.save(tmp_path)}
    names = ("a.png", "b.png", "left.png", "right.png")
    expected = {f"{row:04d}/{name}" for row in range(2) for name in names}
    assert written == {*expected, "tokens.safetensors"}
    pixels = np.array(Image.open(tmp_path / "0001" / "right.png"))
    assert np.array_equal(pixels, (out.observed["right"][1, 0] * 255).round().byte().numpy())


def test_names_that_cannot_be_files_are_refused(bundle, tmp_path):
    out = found(bundle, observed(1, chain(2))["mixture"], chain(2))
    graph = compile_program(lambda: mix("m", source("mixture"), source("a/b")))
    signals = dict(zip(graph.sources, out.signals.values(), strict=True))
    renamed = replace(out, graph=graph, observed={"m": out.mixtures}, signals=signals)
    with pytest.raises(OptionError, match=r"both be written to 'mixture\.png'"):
        renamed.save(tmp_path)
    graph = compile_program(lambda: mix("m", source("c"), source("a/b")))
    signals = dict(zip(graph.sources, out.signals.values(), strict=True))
    with pytest.raises(OptionError, match=r"'a/b' cannot be written to 'a/b\.png'"):
        replace(renamed, graph=graph, signals=signals).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_observed_signal_is_drawn(bundle):
    from mlass_ppl.draw import draw_candidates, draw_separation

    out = found(bundle, observed(2), refine=Refine(steps=2), keep_candidates=True)
    truths = torch.stack([blobs(2), blobs(2, 3)], 1)
    for figure, words in (
        (draw_separation(out), {"left, right", "a, b", "refined", "sums"}),
        (draw_separation(out, truths=truths), {"truth", "left, right", "a, b", "refined"}),
        (draw_candidates(out, 1), {"left, right", "a", "b", "sum, left", "sum, right"}),
    ):
        assert words <= {text.get_text() for text in figure.axes[0].texts}
        canvas = figure.axes[0].images[0].get_array().filled(np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(canvas, (12, 12))
        for site in out.observed:
            assert np.isclose(windows, out.observed[site][1, 0].numpy()).all((2, 3)).any(), site
