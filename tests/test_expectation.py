"""`Expectation` against a plain retelling of it, from what `watch` shows of each position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from audio_bundle import HOP, STEMS, make_bundle, stems
from torch import Tensor

from mlass_ppl import BP, SMC, Extractor, Feature, Mean, Sample, Separation, Watched, separate
from mlass_ppl.errors import CodecError, OptionError
from mlass_ppl.estimate import Expectation
from mlass_ppl.refine import Conditional
from mlass_ppl.shapes import chain, star

LINEAR = Feature(linear=True)


def mixtures(number: int) -> Tensor:
    return torch.stack(list(stems(number).values())).mean(0)


def watched(
    lag: int, search: Any, number: int = 3, **options: Any
) -> tuple[Separation, list[Watched]]:
    seen: list[Watched] = []
    program = chain(STEMS, evidence=LINEAR)
    options = {"infer": BP(), "estimate": Expectation(lag), **options}
    found = separate(
        mixtures(number), program, make_bundle(), search=search, watch=seen.append, **options
    )
    return found, seen


def retold(seen: list[Watched], name: str, lag: int, mixture: int) -> Tensor:
    """p(token) of each position [T, K]: the candidates' marginals, each weighted by the weights
    that its descendants have `lag` positions later."""
    before = [torch.zeros_like(seen[0].weights)] + [step.weights for step in seen[:-1]]
    out = []
    for t, step in enumerate(seen):
        later = min(t + lag, len(seen) - 1)
        told = before[later][mixture] + seen[later].posterior.log_evidence[mixture].double()
        shares = told.softmax(0)
        own = torch.zeros_like(shares)
        for number, share in enumerate(shares):  # the candidate before `later`, and its ancestors
            place = number
            for between in reversed(seen[t:later]):
                if between.parents is not None:
                    place = int(between.parents[mixture, place])
            own[place] += share
        marginals = step.posterior.marginals()[name][mixture].double()
        out.append((own[:, None] * marginals).sum(0) / own.sum())
    return torch.stack(out)


@pytest.mark.parametrize(
    ("lag", "search"),
    [
        (0, Sample(1)),
        (0, SMC(6, threshold=1.0)),
        (2, SMC(6, threshold=1.0)),
        (2, Sample(4)),
        (99, SMC(5)),
    ],
    ids=repr,
)
def test_signals_are_decoded_from_what_all_candidates_expect(lag: int, search: Any) -> None:
    found, seen = watched(lag, search, batch_size=64)
    bundle = make_bundle()
    if isinstance(search, SMC) and search.candidates > 5:
        assert any(step.parents is not None for step in seen)
    for name in STEMS:
        codec = bundle.codecs[name].lasting(found.mixtures.shape[-1])
        gain = found.signals[name].new_tensor(0.0)
        for mixture in range(len(found)):
            latents = retold(seen, name, lag, mixture).float() @ codec.codes
            signal = codec.decode_latents(latents.T[None])[0]
            gain = (signal * found.signals[name][mixture]).sum() / signal.square().sum()
            assert torch.allclose(found.signals[name][mixture], gain * signal, atol=1e-5)
            assert 0.1 < gain < 10  # the level that it was separated at, and given back


def test_variances_are_those_of_frames_whose_token_is_not_known() -> None:
    bundle = make_bundle()
    for name in STEMS:
        bundle.codecs[name].fit_deviations(stems(20)[name][:, 0])
    found, seen = watched(1, SMC(6))
    assert found.variances is not None
    for name in STEMS:
        codec = bundle.codecs[name]
        p = retold(seen, name, 1, 0)
        means = torch.zeros(codec.alphabet, HOP, dtype=torch.float64)
        means[:, : codec.codes.shape[1]] = codec.codes.double()
        draws = means + codec.deviations.double() * torch.randn(
            2_000, *means.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        mean = torch.einsum("tk,skd->td", p, draws) / len(draws)
        square = torch.einsum("tk,skd->td", p, draws.square()) / len(draws)
        drawn = square - mean.square()
        told = found.variances[name][0].double()
        assert told.shape == drawn.shape
        assert ((told - drawn).abs() < 0.15 * drawn + 0.02 * drawn.mean()).all()
    refined = Conditional().apply(found, bundle)
    assert torch.allclose(refined.reconstruction(), found.mixtures, atol=1e-5)


def test_the_batch_around_a_mixture_changes_nothing() -> None:
    program, options = chain(STEMS, evidence=LINEAR), {"infer": BP(), "search": SMC(6)}
    together = separate(mixtures(3), program, make_bundle(), **options)
    for number in range(3):
        alone = separate(
            mixtures(3)[number : number + 1], program, make_bundle(), streams=[number], **options
        )
        for name in STEMS:
            assert torch.equal(alone.signals[name][0], together.signals[name][number])
    again = separate(mixtures(3), program, make_bundle(), batch_size=2, **options)
    assert all(torch.equal(again.signals[name], together.signals[name]) for name in STEMS)
    assert repr(together.settings["estimate"]) == "Expectation(lag=2)"


def test_tokens_that_are_certain_decode_as_they_are() -> None:
    """An alphabet that the priors cut down to one token leaves nothing open."""
    found, _ = watched(2, SMC(3, top_k=1))
    mean, _ = watched(2, SMC(3, top_k=1), estimate=Mean())
    for name in STEMS:
        assert torch.allclose(found.signals[name], mean.signals[name], atol=1e-6)


def test_skipped_positions_and_engines_without_a_joint() -> None:
    """Tokens that no table explains leave the prior's expectation; nothing is NaN."""
    bundle = make_bundle()
    bundle = bundle.count(star(STEMS), stems(40))
    found = separate(
        mixtures(2), star(STEMS), bundle, infer=Extractor(), search=SMC(4), on_unseen="prior"
    )
    assert all(signal.isfinite().all() for signal in found.signals.values())
    loud = 40 * torch.randn(1, 1, 640, generator=torch.Generator().manual_seed(0))
    found = separate(
        loud, chain(STEMS), bundle, infer=BP(), search=SMC(4), level=0.01, on_unseen="prior"
    )
    assert all(signal.isfinite().all() for signal in found.signals.values())


def test_sources_that_nothing_tells_apart_are_refused() -> None:
    bundle = make_bundle(("bass",))
    with pytest.raises(OptionError, match=r"can be told apart, but \['source_1', 'source_2'\]"):
        separate(mixtures(1), chain(2, evidence=LINEAR), bundle, estimate=Expectation())


@pytest.mark.parametrize("lag", [-1, 1.5, True, "2"])
def test_a_lag_is_a_number_of_positions(lag: Any) -> None:
    with pytest.raises(OptionError, match=r"lag=...\) is a number of positions"):
        Expectation(lag)


def test_a_watcher_ends_a_separation_by_raising() -> None:
    class Enough(Exception):
        pass

    places: list[tuple[int, int]] = []

    def watch(step: Watched) -> None:
        assert step.length == mixtures(3).shape[-1] // HOP
        assert {tokens.shape for tokens in step.tokens.values()} == {step.weights.shape}
        places.append((step.first, step.position))
        if len(places) == 25:
            raise Enough

    with pytest.raises(Enough):
        separate(
            mixtures(3),
            chain(STEMS, evidence=LINEAR),
            make_bundle(),
            infer=BP(),
            search=SMC(4),
            batch_size=2,
            watch=watch,
        )
    assert places == [(0, t) for t in range(20)] + [(2, t) for t in range(5)]


def test_codecs_whose_latents_are_no_codes_are_refused() -> None:
    from mlass_ppl._separating.expecting import Expecting

    class Pooled:
        alphabet, token_shape, signal_shape = 4, (6,), (1, 12)

        def embed(self, tokens: Tensor) -> Tensor:
            return tokens.float()[:, None, ::2]

    with pytest.raises(CodecError, match="not one code for each token"):
        Expecting({"a": Pooled()}, 1)  # type: ignore[dict-item]
