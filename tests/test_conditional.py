"""The posterior mean of stems given their tokens and the mixture."""

import pytest
import torch

import mlass_ppl as mlass
from mlass_ppl import OptionError
from mlass_ppl.codecs import AudioVQ, AudioVQConfig
from mlass_ppl.priors import NGram
from mlass_ppl.refine import Conditional

HOP, SAMPLES = 16, 320


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    config = AudioVQConfig(
        samples=SAMPLES, sample_rate=8_000, hop=HOP, alphabet=8, latent=8, features=4, width=8,
        blocks=1,
    )  # fmt: skip
    return AudioVQ.fit(0.1 * torch.randn(30, SAMPLES), config)


@pytest.fixture(scope="module")
def bundle(codec):
    torch.manual_seed(1)
    other = AudioVQ.fit(0.3 * torch.randn(30, SAMPLES), codec.config)
    codec.fit_deviations(0.1 * torch.randn(20, SAMPLES))
    other.fit_deviations(0.3 * torch.randn(20, SAMPLES))
    priors = {"low": NGram.uniform(8), "high": NGram.uniform(8)}
    return mlass.Bundle("two", codec, priors, codecs={"low": codec, "high": other})


def shared(bundle, weights):
    random = torch.Generator().manual_seed(2)
    signals = {name: torch.randn(3, 1, SAMPLES, generator=random) for name in ("low", "high")}
    tokens = {name: torch.randint(8, (3, SAMPLES // HOP), generator=random) for name in signals}
    observed = {"mixture": torch.randn(3, 1, SAMPLES, generator=random)}
    own = dict(zip(signals, weights, strict=True))
    out = Conditional()(bundle, signals, tokens, {"mixture": own}, observed)
    return signals, tokens, observed["mixture"], own, out


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.8, 0.2)])
def test_it_is_the_mean_of_the_joint_gaussian_given_the_sum(bundle, weights):
    """Against the textbook formula, with the covariance of one frame written out."""
    signals, tokens, mixture, own, out = shared(bundle, weights)
    cosines = bundle.codec.cosines.double()
    for row, frame in ((0, 0), (2, 7)):
        here = slice(frame * HOP, (frame + 1) * HOP)
        covariance = {}
        for name in signals:
            spread = bundle.codecs[name].deviations[tokens[name][row, frame]].double() ** 2
            covariance[name] = cosines @ torch.diag(spread) @ cosines.T
        whole = sum(own[name] ** 2 * covariance[name] for name in own)
        rest = mixture[row, 0, here].double() - sum(
            own[name] * signals[name][row, 0, here].double() for name in own
        )
        for name in own:
            mean = own[name] * covariance[name] @ torch.linalg.solve(whole, rest)
            expected = signals[name][row, 0, here].double() + mean
            torch.testing.assert_close(
                out[name][row, 0, here].double(), expected, atol=1e-4, rtol=0
            )


def test_the_stems_sum_to_the_mixture(bundle):
    _, _, mixture, own, out = shared(bundle, (0.3, 0.7))
    total = sum(own[name] * out[name] for name in own)
    torch.testing.assert_close(total, mixture, atol=1e-5, rtol=0)


def test_what_is_better_known_changes_less(bundle):
    signals, _, _, _, out = shared(bundle, (0.5, 0.5))
    change = {name: float((out[name] - signals[name]).square().mean()) for name in signals}
    assert change["low"] < 0.5 * change["high"]


def test_deviations_are_those_of_the_frames(codec):
    random = torch.Generator().manual_seed(5)
    signals = 0.1 * torch.randn(40, SAMPLES, generator=random)
    codec.fit_deviations(signals, strength=1e-9)
    tokens = codec.encode(signals[:, None])
    rest = (signals - codec.decode(tokens)[:, 0]).unflatten(1, (-1, HOP))
    token = int(tokens[0, 0])
    own = 10 * rest[tokens == token] @ codec.cosines
    expected = own.double().square().mean(0).sqrt()
    torch.testing.assert_close(codec.deviations[token].double(), expected, rtol=2e-3, atol=1e-4)


def test_by_separate_whatever_the_sources_are_called(bundle):
    def program():
        bass = mlass.source("bass", prior="low")
        drums = mlass.source("drums", prior="high")
        return mlass.mix("mixture", bass, drums, evidence=mlass.Feature(linear=True))

    signals = {"low": 0.1 * torch.randn(20, 1, SAMPLES), "high": 0.3 * torch.randn(20, 1, SAMPLES)}
    ready = bundle.count(program, signals, mixtures=10)
    mixture = 0.5 * (signals["low"][:2, :, :300] + signals["high"][:2, :, :300])
    out = mlass.separate(mixture, program, ready, search=mlass.SMC(4), refine=Conditional(), seed=3)
    total = 0.5 * (out["bass"] + out["drums"])
    torch.testing.assert_close(total, mixture, atol=1e-5, rtol=0)
    assert not torch.allclose(out.signals["bass"], out["bass"])


def test_it_says_what_it_needs(bundle, codec):
    plain = AudioVQ.fit(0.1 * torch.randn(30, SAMPLES), codec.config)
    without = mlass.Bundle("plain", plain, {"low": NGram.uniform(8)})
    assert not Conditional.suits(without)
    assert Conditional.suits(bundle)
    with pytest.raises(OptionError, match="fit_deviations"):
        Conditional().check(without)
    signals = {"other": torch.zeros(1, 1, SAMPLES)}
    tokens = {"other": torch.zeros(1, SAMPLES // HOP, dtype=torch.int64)}
    weights, observed = {"mixture": {"other": 1.0}}, {"mixture": torch.zeros(1, 1, SAMPLES)}
    with pytest.raises(OptionError, match="which codec source 'other' has"):
        Conditional()(bundle, signals, tokens, weights, observed)
