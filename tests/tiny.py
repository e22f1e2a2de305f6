"""The real codec, priors and bundle, small and hardly trained, for tests of what uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from mlass_ppl.bundle import Bundle
from mlass_ppl.codecs import ImageVQVAE, ImageVQVAEConfig
from mlass_ppl.declare import compile_program
from mlass_ppl.infer import BP, Engine, Extractor
from mlass_ppl.priors import CausalLM, NGram, gpt2_config
from mlass_ppl.separation import Separation
from mlass_ppl.shapes import chain, joint, star
from mlass_ppl.tables import Additive, Counts, count

SIZE, ALPHABET = 12, 6
TOKENS = (SIZE // 4) ** 2


def blobs(number: int, seed: int = 0, size: int = SIZE) -> Tensor:
    """Smooth grey images [N, 1, size, size] in [0, 1]."""
    noise = torch.rand(number, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return interpolate(noise, size, mode="bilinear").clamp(0, 1)


def make_codec(
    alphabet: int = ALPHABET, size: int = SIZE, seed: int = 0, steps: int = 0
) -> ImageVQVAE:
    """A codec whose codes are the k-means of real latents, its decoder trained for some steps."""
    torch.manual_seed(seed)
    config = ImageVQVAEConfig(size=size, alphabet=alphabet, latent=8, encoder=16, decoder=8)
    codec, images = ImageVQVAE(config), blobs(200, seed, size)
    codec.encoder[-1].momentum = 1.0  # the statistics of this very batch
    codec.train()(images)
    codec.eval()
    latents = codec.embed(codec.encode(images))
    optimiser = torch.optim.Adam(codec.decoder.parameters(), 1e-2)
    for _ in range(steps):
        loss = binary_cross_entropy_with_logits(codec.decoder(latents), images)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return codec.requires_grad_(False)


def make_gpt2(alphabet: int = ALPHABET, length: int = TOKENS, seed: int = 0) -> CausalLM:
    from transformers import GPT2LMHeadModel

    torch.manual_seed(seed)
    config = gpt2_config(alphabet, length, width=16, layers=2, heads=2)
    config.initializer_range = 0.5  # far from uniform, so that contexts matter
    return CausalLM(GPT2LMHeadModel(config), alphabet).eval().requires_grad_(False)


def make_ngram(codec: ImageVQVAE, seed: int = 0) -> NGram:
    tokens = codec.encode(blobs(200, seed))
    return NGram.fit(tokens, codec.alphabet, order=2, alpha=0.5)


SHAPES: tuple[tuple[Callable[[int], Any], Engine], ...] = (
    (chain, BP()),
    (joint, BP()),
    (star, Extractor()),
)


def count_tables(
    bundle: Bundle, sources: Sequence[int] = (2, 3), mixtures: int = 600, seed: int = 0
) -> Bundle:
    """The bundle with the tables of chains, joints and extractors counted on blobs."""
    counts = dict(bundle.counts)
    for n in sources:
        for shape, engine in SHAPES:
            graph = compile_program(shape(n))
            counts |= count(
                graph,
                bundle.codec,
                blobs(300, seed),
                factors=engine.factors(graph),
                mixtures=mixtures,
                seed=seed,
                kind=lambda source, graph=graph: bundle.prior_key(graph, source),
            )
    return replace(bundle, counts=counts)


@cache
def make_bundle(smoothing: Additive | None = None, **options: Any) -> Bundle:
    codec = make_codec()
    return count_tables(
        Bundle("tiny", codec, {"blob": make_ngram(codec)}, smoothing=smoothing), **options
    )


def mixtures(number: int, sources: int = 2, seed: int = 1) -> Tensor:
    """Means of blobs of the kind that the tables were counted on."""
    return blobs(number * sources, seed).unflatten(0, (number, sources)).mean(1)


def named(value: Any) -> str:
    """What a parameter is called: programs by name, engines as they print themselves."""
    return getattr(value, "__name__", repr(value))


def without(bundle: Bundle, token: int) -> Bundle:
    """The bundle with tables that never saw a token of the mixture."""
    counts = {}
    for recipe, table in bundle.counts.items():
        array = table.dense()
        array[..., token] = 0
        counts[recipe] = Counts.from_dense(array)
    return replace(bundle, counts=counts)


def same(a: Separation, b: Separation, rows: slice | list[int] = slice(None)) -> None:
    """Row r of `a` is row rows[r] of `b`."""
    for name in a.tokens:
        assert torch.equal(a.tokens[name], b.tokens[name][rows])
        assert torch.equal(a.candidate_tokens[name], b.candidate_tokens[name][rows])
        assert torch.allclose(a.signals[name], b.signals[name][rows], atol=1e-5)
    assert torch.allclose(a.evidence, b.evidence[rows], atol=1e-5)
    assert torch.allclose(a.errors, b.errors[rows], atol=1e-5)
    assert torch.equal(a.chosen, b.chosen[rows])
