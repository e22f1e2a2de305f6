"""Separation from soft weights and continuous features, and by engines that may not converge."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tiny import ALPHABET, TOKENS, blobs, make_bundle, make_codec, mixtures, same
from torch import Tensor

from mlass_ppl import BP, Exact, Feature, Sample, Separation, Soft, Token, separate
from mlass_ppl.bundle import Bundle
from mlass_ppl.codecs import (
    FeatureCodec,
    ImageVQVAE,
    SoftCodec,
    encode_features,
    encode_tokens,
    encode_weights,
)
from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.errors import CodecError, ConvergenceWarning, SignalError
from mlass_ppl.evidence import Evidence
from mlass_ppl.infer import Engine, LoopyBP, Posterior
from mlass_ppl.shapes import chain, joint

SIX = Sample(6)


def counted(bundle: Bundle, program: Any) -> Bundle:
    return bundle.count(program, blobs(300), mixtures=600)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle(sources=(2,))


@pytest.fixture(scope="module")
def codec() -> ImageVQVAE:
    return make_codec()


# --- the codec's weights and features ------------------------------------------------------------


def test_weights_are_those_of_gaussians_around_the_codes(codec):
    images = blobs(5, 3)
    weights = codec.log_weights(images)
    assert weights.shape == (5, TOKENS, ALPHABET)
    assert isinstance(codec, SoftCodec)
    assert torch.allclose(weights.exp().sum(-1), torch.ones(5, TOKENS), atol=1e-5)
    assert torch.equal(weights.argmax(-1), codec.encode(images))
    book = codec.embed(torch.arange(ALPHABET).repeat(2)[:TOKENS][None])[0].flatten(1).T[:ALPHABET]
    away = torch.cdist(book, book) + torch.diag(torch.full((ALPHABET,), float("inf")))
    variance = away.amin(1).square().mean() / book.shape[1] / 12
    latents = codec.encoder(images).flatten(2).transpose(1, 2)
    distance = (latents[:, :, None] - book).square().sum(-1)
    expected = (-distance / (2 * variance)).log_softmax(-1)
    assert torch.allclose(weights, expected, atol=1e-3)


def test_features_are_the_pixels_of_each_patch_and_linear(codec):
    one, other = blobs(4, 3), blobs(4, 4)
    features = codec.features(one)
    assert isinstance(codec, FeatureCodec)
    assert features.shape == (4, TOKENS, 16)
    assert torch.equal(features[2, 5].view(4, 4), one[2, 0, 4:8, 8:12])
    mixed = codec.features(0.3 * one + 0.7 * other)
    assert torch.allclose(mixed, 0.3 * features + 0.7 * codec.features(other), atol=1e-6)


def test_weights_and_features_of_a_row_are_its_own(codec):
    images = blobs(6, 3)
    for method in (codec.log_weights, codec.features):
        whole = method(images)
        for row in range(6):
            assert torch.allclose(method(images[row : row + 1])[0], whole[row], atol=1e-5)
        assert method(images[:0]).shape[0] == 0
        with pytest.raises(SignalError, match=r"pixels must lie in \[0, 1\]"):
            method(images * 255)
        with pytest.raises(SignalError, match="expected images"):
            method(images[0])


def test_a_codebook_without_distances_gives_no_weights():
    codec = make_codec()
    codec.quantiser._codebook.embed.fill_(0.5)
    with pytest.raises(CodecError, match="all 6 codes of this codec are the same"):
        codec.log_weights(blobs(1))
    with pytest.raises(CodecError, match="training mode"):
        make_codec().train().log_weights(blobs(1))
    assert torch.equal(make_codec(alphabet=1).log_weights(blobs(2)), torch.zeros(2, TOKENS, 1))


@dataclass(frozen=True)
class Plain:
    """A codec without weights and features, or with whatever they are said to be."""

    alphabet: int = 3
    signal_shape: tuple[int, ...] = (4,)
    token_shape: tuple[int, ...] = (4,)

    def encode(self, signals: Tensor) -> Tensor:
        return (signals * 2).round().long()

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens / 2

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents

    def decode(self, tokens: Tensor) -> Tensor:
        return tokens / 2


@dataclass(frozen=True)
class Says(Plain):
    value: Any = None

    def encode(self, signals: Tensor) -> Tensor:
        return self.value

    def log_weights(self, signals: Tensor) -> Tensor:
        return self.value

    def features(self, signals: Tensor) -> Tensor:
        return self.value


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("encode", "value", "message"),
    [
        (encode_tokens, torch.zeros(2, 3), r"expected tokens \[2, 4\], got \[2, 3\]"),
        (encode_weights, torch.zeros(2, 4), r"float \[2, 4, 3\] of Says.log_weights, got"),
        (encode_weights, torch.zeros(2, 4, 3).long(), "got torch.int64"),
        (encode_weights, torch.full((2, 4, 3), NAN), r"gave NaN, \+inf or a position without"),
        (encode_weights, torch.full((2, 4, 3), INF), r"gave NaN, \+inf"),
        (encode_weights, torch.full((2, 4, 3), -INF), "position without any weight"),
        (encode_features, torch.zeros(2, 4), r"float \[2, 4, D\] of Says.features, got"),
        (encode_features, torch.zeros(2, 3, 5), r"got torch.float32 \[2, 3, 5\]"),
        (encode_features, torch.zeros(2, 4, 5).long(), "got torch.int64"),
        (encode_features, torch.full((2, 4, 5), INF), "NaN or infinite"),
    ],
)
def test_what_a_codec_says_is_checked(encode, value, message):
    with pytest.raises(CodecError, match=message):
        encode(Says(value=value), torch.zeros(2, 4))


def test_impossible_tokens_may_have_no_weight():
    given = torch.tensor([0.0, 1.0, -INF]).expand(2, 4, 3)
    weights = encode_weights(Says(value=given), torch.zeros(2, 4))
    assert torch.equal(weights, given.log_softmax(-1))


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (Soft(), r"Plain has no log_weights\(signals\) -> float \[B, T, 6\], which Soft\(\)"),
        (Feature(), r"Plain has no features\(signals\) -> float \[B, T, D\], which Feature\(\)"),
    ],
)
def test_a_codec_without_the_method_is_told_its_name(bundle, evidence, message):
    program = joint(2, evidence=evidence)
    used = counted(bundle, program)
    plain = Plain(bundle.codec.alphabet, bundle.codec.signal_shape, bundle.codec.token_shape)
    with pytest.raises(CodecError, match=message):
        separate(mixtures(1), program, replace(used, codec=plain), infer=Exact())


def test_a_codec_of_another_rate_is_refused(bundle):
    def program():
        a, b = source("a"), source("b")
        return mix("m", a, b, codec="short")

    short = Plain(ALPHABET, bundle.codec.signal_shape, (TOKENS - 1,))
    used = replace(bundle, codecs={"short": short})
    with pytest.raises(CodecError, match=r"'m' .* 8 tokens a signal; the sources have 9"):
        separate(mixtures(1), program, used)


# --- evidence of every kind ----------------------------------------------------------------------


ENGINES: list[Engine] = [BP(), Exact()]


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
@pytest.mark.parametrize("evidence", [Soft(), Feature(), Token(0.5)], ids=repr)
@pytest.mark.parametrize("shape", [joint, chain])
def test_every_kind_of_evidence_is_separated(bundle, evidence, engine, shape):
    n = 3 if shape is chain else 2
    program = shape(n, evidence=evidence)
    used = counted(bundle, program)
    found = separate(mixtures(3, n), program, used, infer=engine, search=SIX, on_unseen="prior")
    assert list(found.tokens) == [f"source_{i + 1}" for i in range(n)]
    assert torch.isfinite(found.errors).all()
    assert not found.evidence.isnan().any()
    assert (found.evidence[..., 0] > float("-inf")).all()
    again = separate(
        mixtures(3, n)[1:2], program, used, infer=engine, search=SIX, on_unseen="prior", streams=[1]
    )
    same(again, found, [1])


def first_evidence(bundle: Bundle, evidence: Evidence, given: Tensor) -> Tensor:
    """log p(what is observed at the first position), where no past tells candidates apart."""
    program = joint(2, evidence=evidence)
    return separate(given, program, counted(bundle, program), search=Sample(1)).evidence[..., 0]


def test_soft_evidence_is_what_the_codec_says_over_the_table(bundle):
    given = mixtures(4)
    graph = compile_program(joint(2))
    table = bundle.tables(graph, graph.factors)["mixture"].dense(torch.float64)
    prior = bundle.priors["blob"].step(None, bundle.priors["blob"].start(1))[0][0].double().exp()
    says = torch.einsum("a,b,abm->m", prior, prior, table)  # p(token of the mixture)
    for temperature in (0.5, 1.0, 20.0):
        weights = (bundle.codec.log_weights(given)[:, 0] / temperature).softmax(-1).double()
        found = first_evidence(bundle, Soft(temperature), given)[:, 0]
        assert torch.allclose(found, (weights @ says).log().float(), atol=1e-4)
    cold = first_evidence(bundle, Soft(1e-4), given)
    assert torch.allclose(cold, first_evidence(bundle, Token(), given), atol=1e-4)


def test_features_are_read_by_their_gaussian_table(bundle):
    given, program = mixtures(4), joint(2, evidence=Feature())
    used = counted(bundle, program)
    graph = compile_program(program)
    table = used.tables(graph, graph.factors)["mixture"]
    log = table.log_likelihood(used.codec.features(given)[:, 0].double())
    prior = used.priors["blob"].step(None, used.priors["blob"].start(1))[0][0].double()
    joined = log + prior[:, None] + prior[None, :]
    expected = joined.flatten(1).logsumexp(1)
    found = first_evidence(bundle, Feature(), given)[:, 0]
    assert torch.allclose(found, expected.float(), rtol=1e-4, atol=1e-3)


def test_features_tell_more_than_tokens(bundle):
    """Of many candidates for each mixture, those drawn from features are nearer to the truth."""
    images = blobs(80, 5).unflatten(0, (2, 40))
    errors = {}
    for evidence in (Token(), Feature()):
        program = joint(2, evidence=evidence)
        found = separate(
            images.mean(0), program, counted(bundle, program), search=Sample(32), on_unseen="prior"
        )
        errors[evidence] = found.reconstruction_error().mean()
    assert errors[Feature()] <= errors[Token()] * 1.05


def test_unseen_tokens_are_an_error_of_token_sites_alone(bundle):
    """Beside a token that no table explains, features are skipped; alone they never are."""
    from tiny import without

    def program():
        a, b = source("a"), source("b")
        return mix("m", a, b), mix("x", a, b, evidence=Feature())

    used = counted(bundle, program)
    given = mixtures(2)
    token = int(bundle.codec.encode(given)[0, 4])
    counts = dict(used.counts)
    counts |= without(replace(used, counts={k: v for k, v in counts.items() if not k.feature}),
                      token).counts  # fmt: skip
    found = separate(given, program, replace(used, counts=counts), infer=Exact(), search=SIX,
                     on_unseen="prior")  # fmt: skip
    skipped = bundle.codec.encode(given) == token
    assert (found.evidence.movedim(1, 2)[skipped] == 0).all()
    assert "observed tokens never occur" in found.notices[0]
    alone = joint(2, evidence=Feature())
    assert separate(given, alone, counted(bundle, alone), search=SIX).notices == ()


# --- engines that may not converge ---------------------------------------------------------------


@dataclass(frozen=True)
class Unsure(BP):
    """`BP` that says of some candidates that they did not converge, and warns each time."""

    share: float = 0.5

    def plan(self, graph: Any, tables: Any) -> Any:
        plan = super().plan(graph, tables)
        inner, engine = plan.posterior, self

        def posterior(log_priors: Any, evidence: Any) -> Posterior:
            out = inner(log_priors, evidence)
            m, c = out.log_evidence.shape
            out.converged = (torch.arange(c) >= engine.share * c).expand(m, c)
            warnings.warn("not yet", ConvergenceWarning, stacklevel=2)
            return out

        plan.posterior = posterior  # type: ignore[method-assign]
        return plan


def run(bundle: Bundle, engine: Engine) -> Separation:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        return separate(mixtures(3), chain(2), bundle, infer=engine, search=SIX, batch_size=2)


def test_what_did_not_converge_is_told_once(bundle):
    count, total = 3 * 3 * TOKENS, 3 * 6 * TOKENS
    (notice,) = run(bundle, Unsure()).notices
    assert notice.startswith(f"50.0% of the token positions ({count} of {total}, over all cand")
    assert "share=0.5) answers approximately there" in notice
    assert run(bundle, Unsure(share=0.0)).notices == ()
    assert run(bundle, BP()).notices == ()


def test_loops_are_separated_and_told_where_they_do_not_settle(bundle):
    def program():
        a, b = source("a"), source("b")
        return mix("left", a, b, weights=(0.8, 0.2)), mix("right", a, b, weights=(0.3, 0.7))

    images = blobs(6, 5).unflatten(0, (2, 3))
    given = {
        "left": 0.8 * images[0] + 0.2 * images[1],
        "right": 0.3 * images[0] + 0.7 * images[1],
    }
    used = counted(bundle, program)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        hasty = separate(
            given, program, used, infer=LoopyBP(max_steps=1), search=SIX, on_unseen="prior"
        )
    assert any("did not converge: LoopyBP(" in notice for notice in hasty.notices)
    assert torch.isfinite(hasty.errors).all()
    picked = separate(given, program, used, search=SIX, on_unseen="prior")  # Auto()
    assert picked.settings["picked"] == Exact()
    assert picked.notices == tuple(n for n in hasty.notices if "converge" not in n)
