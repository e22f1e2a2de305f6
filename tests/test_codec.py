"""The image codec: shapes, its own quantiser's tokens, patches, and its errors."""

from __future__ import annotations

import pytest
import torch
from tiny import blobs, make_codec
from torch import Tensor

from mlass_ppl.codecs import Codec, ImageVQVAE, ImageVQVAEConfig
from mlass_ppl.errors import CodecError, SignalError

K = 16


@pytest.fixture(scope="module")
def codec() -> ImageVQVAE:
    return make_codec(alphabet=K, size=28)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return blobs(40, seed=3, size=28)


def test_shapes_ranges_and_types(codec, images):
    assert isinstance(codec, Codec)
    assert (codec.alphabet, codec.signal_shape, codec.token_shape) == (K, (1, 28, 28), (7, 7))
    tokens = codec.encode(images)
    assert tokens.shape == (40, 49)
    assert tokens.dtype == torch.int64
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < K
    assert len(tokens.unique()) > K / 2  # the codes are in use
    decoded = codec.decode(tokens)
    assert decoded.shape == (40, 1, 28, 28)
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    assert codec.embed(tokens).shape == (40, 8, 7, 7)


def test_tokens_are_those_of_the_quantiser(codec, images):
    with torch.no_grad():
        quantised, expected, _ = codec.quantiser(codec.encoder(images))
    tokens = codec.encode(images)
    assert torch.equal(tokens, expected.flatten(1))
    assert torch.allclose(codec.embed(tokens), quantised, atol=1e-6)


def test_decoding_is_embedding_and_then_decoding_latents(codec, images):
    tokens = codec.encode(images[:5])
    assert torch.equal(codec.decode(tokens), codec.decode_latents(codec.embed(tokens)))


def test_forward_trains_what_decode_shows(codec, images):
    with torch.no_grad():
        logits, tokens, loss = codec(images[:5])
    assert torch.allclose(logits.sigmoid(), codec.decode(tokens.flatten(1)), atol=1e-5)
    assert loss.numel() == 1


def test_gradients_reach_the_latents(codec, images):
    latents = codec.embed(codec.encode(images[:2])).clone().requires_grad_()
    codec.decode_latents(latents).sum().backward()
    assert latents.grad is not None
    assert (latents.grad != 0).any(1).all()


def test_a_token_sees_its_own_patch_alone(codec, images):
    image, random = images[:1], torch.Generator().manual_seed(0)
    before = codec.encode(image)[0]
    changed = 0
    for place in range(49):
        row, column = divmod(place, 7)
        other = image.clone()
        patch = (0, 0, slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
        other[patch] = torch.rand(4, 4, generator=random)
        after = codec.encode(other)[0]
        neighbours = torch.arange(49) != place
        assert torch.equal(after[neighbours], before[neighbours])
        changed += int(after[place] != before[place])
    assert changed > 10  # and of that it does depend


def test_images_do_not_know_of_each_other(codec, images):
    whole = codec.encode(images)
    alone = torch.cat([codec.encode(image[None]) for image in images])
    assert torch.equal(whole, alone)
    decoded = codec.decode(whole)
    assert torch.allclose(codec.decode(whole[3:4])[0], decoded[3], atol=1e-6)


def test_other_sizes_and_double_precision(images):
    small = make_codec(alphabet=4, size=8)
    assert small.token_shape == (2, 2)
    assert small.decode(small.encode(images[..., :8, :8])).shape == (40, 1, 8, 8)
    assert torch.equal(
        small.encode(images[..., :8, :8].double()), small.encode(images[..., :8, :8])
    )


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 28, 28), (2, 3, 28, 28), (2, 1, 28, 32), (2,)])
def test_other_shapes_are_refused(codec, shape):
    with pytest.raises(SignalError, match=r"expected images \[B, 1, 28, 28\], got"):
        codec.encode(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_no_numbers_are_refused(codec, images, value):
    broken = images[:2].clone()
    broken[1, 0, 5, 5] = value
    with pytest.raises(SignalError, match="NaN or infinite"):
        codec.encode(broken)


def test_pixels_out_of_range_are_refused(codec, images):
    with pytest.raises(SignalError, match="Divide 8-bit images by 255"):
        codec.encode(images * 255)
    with pytest.raises(SignalError, match=r"must lie in \[0, 1\]"):
        codec.encode(images - 0.5)
    codec.encode((images - images.amin()) / (images.amax() - images.amin()) * (1 + 1e-6))


def test_wrong_tokens_are_refused(codec):
    with pytest.raises(CodecError, match=r"\[0, 16\), got \[0, 16\]"):
        codec.decode(torch.arange(49).clamp(max=16)[None])
    with pytest.raises(CodecError, match=r"got \[-1, -1\]"):
        codec.decode(torch.full((1, 49), -1))
    with pytest.raises(CodecError, match=r"expected tokens \[B, 49\], got \[1, 50\]"):
        codec.decode(torch.zeros(1, 50, dtype=torch.long))
    with pytest.raises(CodecError, match=r"got \[49\]"):
        codec.embed(torch.zeros(49, dtype=torch.long))
    with pytest.raises(CodecError, match="must be integers"):
        codec.embed(torch.zeros(1, 49))


def test_encoding_needs_evaluation_mode(images):
    codec = make_codec(size=28)
    codec.train()
    with pytest.raises(CodecError, match="training mode"):
        codec.encode(images)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"size": 30}, "multiples of 4, got 30"),
        ({"decoder": 6}, "multiples of 4"),
        ({"alphabet": 0}, "positive integers"),
        ({"latent": 2.5}, "positive integers"),
        ({"encoder": "wide"}, "positive integers"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(CodecError, match=message):
        ImageVQVAEConfig(**sizes)


def test_with_a_context_a_token_sees_its_neighbours():
    """And without one nothing but its own patch."""
    image = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[..., :4, :4] = 1 - other[..., :4, :4]  # the first patch
    for context, touched in ((0, 1), (1, 4), (2, 9)):
        torch.manual_seed(0)
        codec = ImageVQVAE(ImageVQVAEConfig(size=12, encoder=8, decoder=8, context=context)).eval()
        latents = codec.encoder(torch.cat([image, other]))
        changed = (latents[0] - latents[1]).abs().amax(0) > 1e-6  # but for rounding
        assert int(changed.sum()) == touched
        assert codec.encode(image).shape == (1, 9)
        told = codec.describe()
        assert told.get("context", 0) == context
        assert ("context" in told) == (context > 0)
    with pytest.raises(CodecError, match="context 0 or more"):
        ImageVQVAEConfig(context=-1)


def test_a_codec_describes_itself():
    codec = ImageVQVAE(ImageVQVAEConfig(size=8, alphabet=4, latent=3, encoder=5, decoder=8))
    told = codec.describe()
    assert told.pop("kind") == "image-vqvae"
    assert ImageVQVAEConfig(**told) == codec.config
