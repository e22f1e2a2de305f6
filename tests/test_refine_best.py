"""The best few refined: the choice among them, and what becomes of the separation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tiny import make_bundle, mixtures
from torch import Tensor

from mlass_ppl import (
    BP,
    SMC,
    Bundle,
    BundleError,
    Learned,
    MostProbable,
    Nearest,
    OptionError,
    Refine,
    Refinement,
    Refiner,
    Sample,
    Separation,
    chain,
    mix,
    separate,
    source,
)
from mlass_ppl.estimate import Candidates
from mlass_ppl.refine import RefinerConfig
from mlass_ppl.refine.best import BestOf

M, C = 5, 12


@dataclass(frozen=True)
class Shift(Refinement):
    """Moves every source by a number that its own tokens say, so that ranks change."""

    scale: float = 0.5

    def __call__(
        self,
        bundle: Bundle,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        weights: Any,
        observed: Mapping[str, Tensor],
        progress: Any = None,
    ) -> dict[str, Tensor]:
        size = bundle.codec.alphabet
        step = {name: (own.sum(1) * 7 % size) / size for name, own in tokens.items()}
        return {
            name: (own + self.scale * (step[name] - 0.5)[:, None, None, None]).clamp(0, 1)
            for name, own in signals.items()
        }


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(3)
    return replace(make_bundle(), refiner=Refiner(RefinerConfig(width=4)).eval())


@pytest.fixture(scope="module")
def found(bundle: Bundle) -> Separation:
    return separate(
        mixtures(M), chain(2), bundle, search=Sample(C), estimate=Nearest(), keep_candidates=True
    )


def alone(bundle: Bundle, found: Separation, refine: Refinement, row: int, c: int) -> Any:
    """One candidate refined by itself, its signals, mixture error and log prior."""
    weights = {site: found.graph.leaf_weights(site) for site in found.observed}
    assert found.candidates is not None
    out = refine(
        bundle,
        {name: kept[row, c][None] for name, kept in found.candidates.items()},
        {name: kept[row, c][None] for name, kept in found.candidate_tokens.items()},
        weights,
        {site: given[row : row + 1] for site, given in found.observed.items()},
    )
    errors = [
        (sum(share * out[name] for name, share in weights[site].items()) - given[row])
        .square()
        .mean()
        for site, given in found.observed.items()
    ]
    return out, float(sum(errors)) / len(errors), float(found.log_prior[row, c])


@pytest.mark.parametrize("estimate", [Nearest(), MostProbable(0.05), MostProbable(1.0)])
@pytest.mark.parametrize("refine", [Shift(), Refine(steps=5)], ids=["shift", "descent"])
def test_the_best_after_refinement_is_kept(bundle, found, refine, estimate):
    """By hand, candidate for candidate, over those that are ranked first before it."""
    best = BestOf(4, refine, estimate).apply(found, bundle)
    ranking, moved = found.ranking(4), 0
    for row in range(M):
        scores = {}
        for c in ranking[row][ranking[row] >= 0].tolist():
            _, error, log_prior = alone(bundle, found, refine, row, c)
            size = found.mixtures[0].numel()
            std = getattr(estimate, "std", None)
            scores[c] = -error if std is None else log_prior - error * size / (2 * std**2)
        assert scores[int(best.chosen[row])] == pytest.approx(max(scores.values()), rel=1e-4)
        moved += int(best.chosen[row] != found.chosen[row])
        expected = alone(bundle, found, refine, row, int(best.chosen[row]))[0]
        for name, own in best.refined.items():
            torch.testing.assert_close(own[row], expected[name][0], atol=1e-5, rtol=1e-5)
    assert moved or not isinstance(refine, Shift)


def test_the_separation_is_that_of_the_candidate_kept(bundle, found):
    best = BestOf(5, Shift()).apply(found, bundle)
    every = torch.arange(M)
    for name in found:
        assert torch.equal(best.tokens[name], found.candidate_tokens[name][every, best.chosen])
        kept = found.candidates[name][every, best.chosen]
        torch.testing.assert_close(best.signals[name], kept)
        assert torch.equal(best[name], best.refined[name])
    assert best.refine_seconds > 0
    assert found.refined is None  # what was given stays as it was
    assert torch.equal(best.errors, found.errors)


def test_of_one_it_is_the_refinement_of_the_nearest(bundle, found):
    for refine in (Learned(), Refine(steps=5)):
        weights = {site: found.graph.leaf_weights(site) for site in found.observed}
        plain = refine(bundle, found.signals, found.tokens, weights, found.observed)
        best = BestOf(1, refine).apply(found, bundle)
        called = BestOf(3, refine)(bundle, found.signals, found.tokens, weights, found.observed)
        assert torch.equal(best.chosen, found.chosen)
        for name in found:
            torch.testing.assert_close(best.refined[name], plain[name], atol=1e-5, rtol=1e-5)
            assert torch.equal(called[name], plain[name])


def test_more_candidates_than_there_are(bundle):
    """One distinct candidate of some mixtures: nothing is chosen that is not there."""
    few = separate(mixtures(4), chain(2), bundle, search=SMC(3, top_k=1))
    best = BestOf(50, Shift()).apply(few, bundle)
    assert (few.ranking(50)[:, 3:] < 0).all()
    for row in range(4):
        assert int(best.chosen[row]) in few.ranking(3)[row].tolist()


def test_mixtures_do_not_depend_on_each_other(bundle, found):
    whole = BestOf(4, Shift()).apply(found, bundle)
    for row in range(M):
        one = separate(
            found.mixtures[row : row + 1], chain(2), bundle, search=Sample(C),
            estimate=Nearest(), streams=[row],
        )  # fmt: skip
        alone = BestOf(4, Shift()).apply(one, bundle)
        assert torch.equal(alone.chosen[0], whole.chosen[row])
        for name in found:
            torch.testing.assert_close(alone[name][0], whole[name][row], atol=1e-5, rtol=1e-5)


def test_several_observed_signals_all_count(bundle):
    def stereo():
        a, b = source("a"), source("b")
        left = mix("left", a, b, weights=(0.7, 0.3))
        return left, mix("right", a, b, weights=(0.3, 0.7))

    counted = bundle.count(stereo, mixtures(60), infer=BP(), mixtures=300)
    given = {"left": mixtures(3, seed=4), "right": mixtures(3, seed=5)}
    found = separate(
        given, stereo, counted, search=Sample(8), on_unseen="prior", keep_candidates=True
    )
    best = BestOf(6, Shift()).apply(found, counted)
    for row in range(3):
        ranked = found.ranking(6)[row]
        errors = {
            c: alone(counted, found, Shift(), row, c)[1] for c in ranked[ranked >= 0].tolist()
        }
        assert errors[int(best.chosen[row])] == pytest.approx(min(errors.values()), rel=1e-4)


def test_an_estimate_of_ones_own_is_given_what_it_asks_for(bundle, found):
    seen = []

    class Last(Nearest):
        def choose(self, candidates: Candidates) -> Tensor:
            seen.append(candidates)
            return torch.full((M,), 2)

    best = BestOf(3, Shift(), Last()).apply(found, bundle)
    assert torch.equal(best.chosen, found.ranking(3)[:, 2])
    (given,) = seen
    rows = torch.arange(M)[:, None]
    assert torch.equal(given.log_prior, found.log_prior[rows, found.ranking(3)])
    assert torch.equal(given.log_weights, found.log_weights[rows, found.ranking(3)])
    assert given.interchangeable == [["source_1", "source_2"]]


def test_progress_counts_candidates(bundle, found):
    calls = []
    refine = Learned(batch_size=8)
    BestOf(4, refine).apply(found, bundle, lambda *call: calls.append(call))
    assert calls == [(8, 20), (16, 20), (20, 20)]


def test_impossible_options_are_refused(bundle):
    for count in (0, 2.0, "many"):
        with pytest.raises(OptionError, match=r"BestOf\(count=\.\.\.\) must be a whole number"):
            BestOf(count)
    with pytest.raises(OptionError, match=r"refine=\.\.\.\) takes a refinement"):
        BestOf(3, "learned")
    with pytest.raises(OptionError, match=r"estimate=\.\.\.\) takes an estimate"):
        BestOf(3, estimate=Nearest)
    with pytest.raises(BundleError, match="has no refiner"):
        BestOf(3).check(replace(bundle, refiner=None))
    BestOf(3, Refine()).check(replace(bundle, refiner=None))
    assert eval(repr(BestOf(3))) == BestOf(3)
