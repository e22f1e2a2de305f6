"""The imported codec and prior compute what the published layers do."""

from __future__ import annotations

import pytest
import torch
from lass_files import TOKENS, K, gpt2_state, vqvae_state, write_published
from torch import Tensor
from torch.nn import functional

import mlass_ppl as mlass
from mlass_ppl.codecs import LassVQVAE
from mlass_ppl.errors import CodecError, PriorError
from mlass_ppl.importing import import_lass_mnist
from mlass_ppl.priors import CausalLM, gpt2_config, score
from mlass_ppl.testing import check_codec, check_prior


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> mlass.Bundle:
    return import_lass_mnist(write_published(tmp_path_factory.mktemp("published")))


def images(number: int, side: int = 12, seed: int = 5) -> Tensor:
    return torch.rand(number, 1, side, side, generator=torch.Generator().manual_seed(seed))


# --- the codec, by its published layers ----------------------------------------------------------


def layer(state: dict[str, Tensor], name: str, x: Tensor, **options: int) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    if f"{name}.running_mean" in state:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, weight, bias)
    up = name in ("decoder.3", "decoder.6")
    return (functional.conv_transpose2d if up else functional.conv2d)(x, weight, bias, **options)


def residual(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = layer(state, f"{name}.block.1", functional.leaky_relu(x), padding=1)
    y = functional.leaky_relu(layer(state, f"{name}.block.2", y))
    return x + layer(state, f"{name}.block.5", layer(state, f"{name}.block.4", y))


def published_tokens(state: dict[str, Tensor], x: Tensor) -> Tensor:
    half = {"stride": 2, "padding": 1}
    x = functional.leaky_relu(layer(state, "encoder.1", layer(state, "encoder.0", x, **half)))
    x = layer(state, "encoder.3", x, **half)
    x = residual(state, "encoder.5", residual(state, "encoder.4", x))
    book = state["codeBook.embedding.weight"]
    distance = (x[:, :, None] - book.T[None, :, :, None, None]).square().sum(1)
    return distance.argmin(1).flatten(1)


def published_images(state: dict[str, Tensor], tokens: Tensor) -> Tensor:
    half = {"stride": 2, "padding": 1}
    side = round(tokens.shape[1] ** 0.5)
    x = state["codeBook.embedding.weight"][tokens].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    x = functional.leaky_relu(residual(state, "decoder.1", residual(state, "decoder.0", x)))
    x = functional.leaky_relu(layer(state, "decoder.4", layer(state, "decoder.3", x, **half)))
    return layer(state, "decoder.6", x, **half).sigmoid()


def test_the_codec_computes_what_the_published_layers_do(bundle):
    state, x = vqvae_state(), images(40)
    tokens = bundle.codec.encode(x)
    assert torch.equal(tokens, published_tokens(state, x))
    assert len(tokens.unique()) > K / 2  # or the comparison would mean little
    assert torch.allclose(bundle.codec.decode(tokens), published_images(state, tokens), atol=1e-5)


def test_the_codec_is_a_codec_of_all_three_kinds_of_evidence(bundle):
    check_codec(bundle.codec, images(6))
    assert isinstance(bundle.codec, mlass.SoftCodec)
    assert isinstance(bundle.codec, mlass.FeatureCodec)


def test_a_token_of_it_sees_26_pixels_each_way():
    torch.manual_seed(0)
    codec = LassVQVAE().double().eval()
    x = torch.rand(1, 1, 28, 28, dtype=torch.float64, requires_grad=True)
    codec.encoder(x)[0, :, 3, 3].sum().backward()
    seen = x.grad[0, 0].nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [26, 26]


def test_in_training_mode_it_neither_encodes_nor_decodes():
    codec = LassVQVAE()
    with pytest.raises(CodecError, match=r"codec\.eval\(\) before encoding"):
        codec.encode(images(2, 28))
    with pytest.raises(CodecError, match=r"codec\.eval\(\) before decoding"):
        codec.decode(torch.zeros(2, 49, dtype=torch.long))


# --- the prior -----------------------------------------------------------------------------------


def test_the_prior_is_their_gpt2_begun_with_token_0(bundle):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": K, "n_positions": TOKENS, "n_embd": 8, "n_layer": 3, "n_head": 2}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0)).eval()  # gelu_new, as they had
    missing, unexpected = theirs.load_state_dict(gpt2_state(), strict=False)
    assert not missing
    assert all("attn.bias" in name or "masked_bias" in name for name in unexpected)
    tokens = torch.randint(0, K, (5, TOKENS), generator=torch.Generator().manual_seed(0))
    fed = torch.cat([torch.zeros(5, 1, dtype=torch.long), tokens[:, :-1]], 1)
    with torch.no_grad():
        logs = theirs(fed).logits.log_softmax(-1)
        assert torch.allclose(bundle.priors["digit"](tokens), logs, atol=1e-5)
    expected = logs.gather(2, tokens[..., None])[..., 0]
    assert torch.allclose(score(bundle.priors["digit"], tokens), expected, atol=1e-5)
    check_prior(bundle.priors["digit"])


def test_a_begin_token_among_the_codes_has_to_be_said():
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel(gpt2_config(K, TOKENS, width=8, layers=1, heads=2, begin=0)).eval()
    assert model.config.vocab_size == K
    with pytest.raises(PriorError, match=r"got 0\. .*CausalLM\(model, alphabet, begin=0\)"):
        CausalLM(model, K)
    for begin in (-1, K):
        with pytest.raises(PriorError, match=rf"does not hold its begin token \({begin}\)"):
            CausalLM(model, K, begin=begin)
    begun = [CausalLM(model, K, begin=begin) for begin in (0, 1)]
    first = [prior.step(None, prior.start(1))[0] for prior in begun]
    assert [prior.begin for prior in begun] == [0, 1]
    assert not torch.allclose(*first)  # it is the token that was said which begins
