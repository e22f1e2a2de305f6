"""Sequential Monte Carlo: resampling, and what it may not change."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from tiny import make_bundle, mixtures, same
from torch import Tensor

from mlass_ppl import BP, SMC, Bundle, Exact, NGram, Sample, Table, chain, joint, separate
from mlass_ppl.errors import OptionError
from mlass_ppl.search.smc import effective_size, systematic


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_effective_size_is_between_one_and_all():
    log = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, -1e9, -1e9, -1e9], [3.0, 3.0, -1e9, -1e9]])
    assert effective_size(log).tolist() == pytest.approx([4.0, 1.0, 2.0])


@pytest.mark.parametrize("seed", range(5))
def test_systematic_children_are_what_the_weights_say(seed):
    log = torch.randn(20, 16, generator=generator(seed)) * 3
    log[0, ::2] = float("-inf")
    parents = systematic(log, generator(seed))
    expected = log.double().softmax(1) * 16
    for row, share in zip(parents, expected, strict=True):
        children = torch.bincount(row, minlength=16)
        assert (children >= (share - 1e-9).floor()).all()
        assert (children <= (share + 1e-9).ceil()).all()
    assert (parents[0] % 2 == 1).all()  # a candidate of no weight has no child


def test_systematic_resampling_is_unbiased():
    log = torch.tensor([[0.0, 1.0, -1.0]]).expand(4000, 3)
    children = torch.bincount(systematic(log, generator(1)).flatten(), minlength=3).double()
    assert chisquare(children, log[0].double().softmax(0) * 12000).pvalue > 1e-3


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(OptionError, match="threshold"):
        SMC(threshold=threshold)
    with pytest.raises(OptionError, match="candidates"):
        SMC(0)


def test_without_resampling_it_is_ancestral_sampling(bundle):
    x = mixtures(3)
    same(
        separate(x, chain(2), bundle, search=SMC(6, threshold=0.0)),
        separate(x, chain(2), bundle, search=Sample(6)),
    )


def test_neighbours_in_the_batch_change_nothing(bundle):
    x = mixtures(5)
    together = separate(x, chain(2), bundle, search=SMC(8, threshold=1.0))
    alone = separate(x[[3]], chain(2), bundle, search=SMC(8, threshold=1.0), streams=[3])
    same(alone, together, [3])


class Levels:
    """Three numbers in [0, 1], of two levels each; a mixture has three."""

    alphabet, signal_shape, token_shape = 3, (3,), (3,)

    def encode(self, signals: Tensor) -> Tensor:
        return (signals * 2).round().long()

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens / 2

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents

    def decode(self, tokens: Tensor) -> Tensor:
        return self.decode_latents(self.embed(tokens))


@pytest.mark.parametrize("engine", [BP(), Exact()])
def test_particles_follow_the_posterior_over_whole_sequences(engine, bundle):
    """Against every pair of sequences: what many particles hold is p(both sequences | mixture),
    which ancestral sampling misses, since it never goes back on a past."""
    # Sources keep their level, so that the last observation tells about the first.
    context = torch.tensor([[0.9, 0.1, 0], [0.1, 0.9, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]])
    prior = NGram(context.double())
    table = torch.full((3, 3, 3), 0.2)
    for a, b in product(range(3), range(3)):
        table[a, b, min(a + b, 2)] = 0.6
    found = Table.from_array(table.double() / table.double().sum(-1, keepdim=True))

    class Toy(type(bundle)):
        def tables(self, graph, factors):
            return {factor.name: found for factor in factors}

    toy = Toy("toy", Levels(), {"any": prior})
    observed = torch.tensor([[0.5, 0.5, 1.0]])
    tokens = Levels().encode(observed)[0]
    truth = {}
    for first, second in product(product(range(2), repeat=3), repeat=2):
        p = 1.0
        for t in range(3):
            for z in (first, second):
                p *= float(prior.table[z[t - 1] if t else 3, z[t]])
            p *= float(table[first[t], second[t], tokens[t]])
        truth[first + second] = p
    total = sum(truth.values())
    count = 20_000

    def distance(search) -> float:
        out = separate(observed, joint(2), toy, infer=engine, search=search)
        both = torch.cat([out.candidate_tokens[f"source_{i}"][0] for i in (1, 2)], 1)
        seen = dict.fromkeys(truth, 0)
        for row in both.tolist():
            seen[tuple(row)] += 1
        return sum(abs(seen[key] / count - truth[key] / total) for key in truth) / 2

    assert distance(SMC(count, threshold=1.0)) < 0.025
    assert distance(Sample(count)) > 0.06  # or the test shows nothing


def test_the_weights_carry_what_is_not_resampled(bundle):
    """Between resamplings weights add up: with a low threshold the estimate still converges."""
    x = mixtures(2)
    often = separate(x, chain(2), bundle, search=SMC(512, threshold=1.0))
    seldom = separate(x, chain(2), bundle, search=SMC(512, threshold=0.3))
    assert torch.allclose(often.evidence.mean(), seldom.evidence.mean(), atol=0.3)


def test_impossible_candidates_die_out(bundle):
    x = mixtures(4)
    exact = replace(bundle, smoothing=None)
    kept = separate(x, chain(2), exact, search=SMC(32, threshold=1.0), on_unseen="prior")
    free = separate(x, chain(2), exact, search=Sample(32), on_unseen="prior")
    dead = [float((s.evidence == float("-inf")).float().mean()) for s in (kept, free)]
    assert dead[0] <= dead[1]
