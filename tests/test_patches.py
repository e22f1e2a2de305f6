"""Codecs of patches: nearest centres, k-means of what differs, and their files."""

from __future__ import annotations

import pytest
import torch
from tiny import SIZE, blobs, make_codec, make_gpt2, mixtures
from torch import Tensor
from torch.nn.functional import unfold

from mlass_ppl import BP, separate
from mlass_ppl.bundle import Bundle, load
from mlass_ppl.codecs import Codec, FeatureCodec, PatchCodec, PatchCodecConfig, SoftCodec
from mlass_ppl.errors import BundleError, CodecError, SignalError
from mlass_ppl.evidence import Soft
from mlass_ppl.shapes import chain, joint
from mlass_ppl.testing import check_codec

K = 20


def patches(images: Tensor) -> Tensor:
    return unfold(images, 4, stride=4).transpose(1, 2)


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return PatchCodec.fit(mixtures(200), K)


# --- the codec -----------------------------------------------------------------------------------


def test_it_keeps_the_protocol(codec):
    assert isinstance(codec, Codec)
    assert isinstance(codec, SoftCodec)
    assert isinstance(codec, FeatureCodec)
    assert (codec.alphabet, codec.signal_shape, codec.token_shape) == (K, (1, SIZE, SIZE), (3, 3))
    check_codec(codec, blobs(12, 7))


@pytest.mark.parametrize("size", [4, 12, 28])
def test_a_token_is_the_nearest_centre_and_decodes_to_it(size):
    codec, images = PatchCodec.fit(blobs(60, 1, size), 16), blobs(9, 2, size)
    images[:2, :, :4] = 0  # a row of blank patches
    images[2] = 0
    tokens = codec.encode(images)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, torch.cdist(patches(images), codec.centres).argmin(-1))
    assert torch.equal(patches(codec.decode(tokens)), codec.centres[tokens])
    assert torch.equal(codec.log_weights(images).argmax(-1), tokens)
    assert codec.encode(images[:0]).shape == (0, codec.token_shape[0] ** 2)


def test_what_is_decoded_keeps_its_tokens_and_lies_in_the_unit_interval(codec):
    tokens = torch.arange(18).reshape(2, 9)
    assert torch.equal(codec.encode(codec.decode(tokens)), tokens)
    assert codec.decode_latents(torch.full((1, 16, 3, 3), 7.0)).max() == 1
    with pytest.raises(CodecError, match=r"tokens must lie in \[0, 20\)"):
        codec.decode(tokens + 10)


# --- fitting -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_centres():
    images = mixtures(100)
    one, again, other = (PatchCodec.fit(images, K, seed=seed).centres for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(one, one.half().float())


def test_more_centres_err_less(codec):
    images = mixtures(100, seed=5)
    few = PatchCodec.fit(mixtures(200), 4)
    errors = [(c.decode(c.encode(images)) - images).square().mean() for c in (few, codec)]
    assert errors[1] < 0.6 * errors[0]


def test_centres_are_not_wasted_on_equal_patches():
    images = torch.zeros(400, 1, SIZE, SIZE)
    images[:40] = blobs(40, 3)
    blank = PatchCodec.fit(images, K).centres.norm(dim=1) < 1e-3
    assert blank.sum() <= 1
    distinct = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    centres = PatchCodec.fit(distinct.repeat(50, 1, 1, 1), 5).centres  # each once is enough
    found = torch.cdist(distinct.flatten(1), centres).amin(1)
    assert found.max() < 1e-3


def test_the_number_of_patches_is_bounded_below_by_the_alphabet():
    images = blobs(100, 1)
    every = PatchCodec.fit(images, K, patches=900).centres
    assert torch.equal(every, PatchCodec.fit(images, K, patches=10**6).centres)
    fewest = PatchCodec.fit(images, K, patches=1).centres
    assert torch.equal(fewest, PatchCodec.fit(images, K, patches=20 * K).centres)


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (torch.zeros(3, 28, 28), {}, SignalError, r"square grey images \[N, 1, S, S\].*3, 28, 28"),
        (torch.zeros(3, 3, 8, 8), {}, SignalError, "square grey images"),
        (torch.zeros(3, 1, 8, 12), {}, SignalError, "square grey images"),
        (torch.zeros(3, 1, 10, 10), {}, CodecError, "multiple of 4, got 10"),
        (torch.full((3, 1, 8, 8), float("nan")), {}, SignalError, "NaN"),
        (torch.full((3, 1, 8, 8), 255.0), {}, SignalError, "Divide 8-bit images by 255"),
        (torch.zeros(3, 1, 8, 8), {}, CodecError, "3 images have 1 distinct patches, fewer than"),
        (torch.zeros(0, 1, 8, 8), {}, CodecError, "0 images have 0 distinct patches"),
        (blobs(3), {"alphabet": 0}, CodecError, "positive integers"),
        (blobs(3), {"alphabet": 2.5}, CodecError, "positive integers"),
        (blobs(3), {"patches": 0}, CodecError, "patches must be a positive integer, got 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(images, options, error, message):
    with pytest.raises(error, match=message):
        PatchCodec.fit(images, **{"alphabet": 4, **options})


def test_bad_signals_are_refused(codec):
    for signals, message in (
        (blobs(2, size=28), r"expected images \[B, 1, 12, 12\], got \[2, 1, 28, 28\]"),
        (blobs(2) * float("nan"), "NaN"),
        (blobs(2) + 1, "Divide 8-bit"),
    ):
        for ask in (codec.encode, codec.log_weights, codec.features):
            with pytest.raises(SignalError, match=message):
                ask(signals)


# --- bundles -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    codecs = {
        "fine": PatchCodec.fit(mixtures(200, 3), 40),
        "middle": PatchCodec.fit(mixtures(200), K),
    }
    made = Bundle("tiny", make_codec(), {"blob": make_gpt2()}, codecs=codecs)
    for program in (chain(3, codec="fine", inner="middle"), joint(2, codec="fine")):
        made = made.count(program, blobs(300), mixtures=300)
    return made


def test_codecs_of_mixtures_come_back_with_their_tokens(bundle, tmp_path):
    back = load(bundle.save(tmp_path / "b"))
    images = blobs(40, 11)
    assert back.card["format"] == 3
    assert back.counts == bundle.counts
    for key, codec in bundle.codecs.items():
        assert back.card["codecs"][key]["kind"] == "patches"
        assert back.codecs[key].config == codec.config
        assert torch.equal(back.codecs[key].encode(images), codec.encode(images))
        assert (tmp_path / "b" / f"codec-{key}.safetensors").stat().st_size < 3_000
    again = back.save(tmp_path / "again")
    for file in (tmp_path / "b").iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_it_can_be_the_codec_of_sources(codec, tmp_path):
    bundle = Bundle("patches", codec, {"blob": make_gpt2(K)})
    bundle = bundle.count(chain(2), blobs(300), mixtures=300)
    out = separate(mixtures(3), chain(2), bundle, infer=BP(), on_unseen="prior")
    assert out["source_1"].shape == (3, 1, SIZE, SIZE)
    back = load(bundle.save(tmp_path / "b"))
    assert back.card["format"] == 3
    assert torch.equal(back.codec.encode(blobs(20, 5)), codec.encode(blobs(20, 5)))


def test_centres_of_another_number_than_the_card_tells_are_refused(bundle, tmp_path):
    path = bundle.save(tmp_path / "b")
    card = (path / "bundle.json").read_text("utf-8")
    (path / "bundle.json").write_text(card.replace(f'"alphabet": {K}', '"alphabet": 21'), "utf-8")
    with pytest.raises(BundleError, match=r"codec-middle\.safetensors does not fit the sizes"):
        load(path)


def test_a_codec_without_centres_tells_no_tokens_apart():
    assert not PatchCodec(PatchCodecConfig(8, 4)).centres.any()
    with pytest.raises(CodecError, match="codes of this codec are the same"):
        PatchCodec(PatchCodecConfig(8, 4)).log_weights(blobs(1, size=8))


@pytest.mark.parametrize("evidence", [None, Soft()], ids=["token", "soft"])
def test_mixtures_of_larger_alphabets_are_separated(bundle, evidence):
    options = {} if evidence is None else {"evidence": evidence}
    program = chain(3, codec="fine", inner="middle", **options)
    out = separate(mixtures(4, 3), program, bundle, infer=BP(), on_unseen="prior")
    assert out["source_3"].shape == (4, 1, SIZE, SIZE)
    assert torch.isfinite(out.evidence).all()
