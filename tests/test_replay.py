"""A position of a separation, asked for again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from audio_bundle import make_bundle as make_sounds
from audio_bundle import stems
from tiny import TOKENS, blobs, make_bundle, make_gpt2, mixtures, without

from mlass_ppl import (
    BP,
    SMC,
    Auto,
    Beam,
    Exact,
    OptionError,
    Sample,
    UnseenToken,
    additive,
    chain,
    separate,
)
from mlass_ppl.draw import draw_messages
from mlass_ppl.replay import replay


def chosen(found) -> torch.Tensor:
    """Log evidence [M, T] of the chosen candidates."""
    return found.evidence[torch.arange(len(found)), found.chosen]


@pytest.mark.parametrize(
    ("sources", "options"),
    [
        (2, {"search": SMC(8, temperature=(0.5, 1.5), top_k=4)}),
        (2, {"search": Beam(6), "infer": Exact()}),
        (3, {"search": SMC(8, threshold=1.0), "infer": Auto()}),
        (2, {"search": Sample(4, top_p=0.9)}),
    ],
    ids=str,
)
def test_every_position_has_the_evidence_that_the_separation_tells(sources, options) -> None:
    bundle = replace(make_bundle(), priors={"blob": make_gpt2()})
    options = {"infer": BP(), "on_unseen": "prior", **options}
    found = separate(mixtures(3, sources), chain(sources), bundle, **options)
    seen = 0
    for position in range(TOKENS):
        try:
            again = replay(found, bundle, position)
        except UnseenToken:
            continue
        seen += 1
        told = chosen(found)[:, position]
        skipped = told == 0
        assert again.position.shape == (3, 1)
        assert torch.allclose(again.log_evidence[~skipped, 0].float(), told[~skipped], atol=1e-4)
        for name, belief in again.marginals().items():
            if name in found.tokens:  # what was drawn was possible
                own = belief[:, 0].gather(1, found.tokens[name][:, position : position + 1])[:, 0]
                assert (own[told > float("-inf")] > 0).all()
    assert seen > TOKENS // 2


def test_it_is_the_past_that_counts() -> None:
    bundle = replace(make_bundle(), priors={"blob": make_gpt2()})
    found = separate(mixtures(1), chain(2), bundle, infer=BP(), search=SMC(8), on_unseen="prior")
    other = {name: (own + 1) % bundle.codec.alphabet for name, own in found.tokens.items()}
    forged = replace(found, tokens=other)
    one, two = (replay(one, bundle, 4).position.unary["source_1"] for one in (found, forged))
    assert not torch.allclose(one, two)
    first = (replay(one, bundle, 0).position.unary["source_1"] for one in (found, forged))
    assert torch.equal(*first)


def test_another_engine_answers_the_same_position() -> None:
    bundle = make_bundle()
    found = separate(mixtures(2), chain(2), bundle, infer=Exact(), search=SMC(4), on_unseen="prior")
    place = int((chosen(found) < 0).all(0).nonzero()[0])
    again = replay(found, bundle, place, infer=BP())
    assert torch.allclose(again.log_evidence[:, 0].float(), chosen(found)[:, place], atol=1e-4)
    draw_messages(again, mixture=1)  # which Exact() has none of


@pytest.mark.parametrize("level", [None, 0.5])
def test_sounds_are_brought_to_their_level_again(level) -> None:
    bundle = make_sounds()
    signals = torch.stack(list(stems(2, 1_250).values())).mean(0)  # no multiple of a token
    program = additive(["bass", "drums"])
    found = separate(signals, program, bundle, search=SMC(4), level=level)
    for position in (0, 7, 19):
        again = replay(found, bundle, position)
        told = chosen(found)[:, position]
        assert torch.allclose(again.log_evidence[:, 0].float(), told, rtol=1e-4, atol=1e-3)
    if level is not None:
        loud = replay(found, bundle, 7, level=5.0).log_evidence[:, 0].float()
        assert not torch.allclose(loud, chosen(found)[:, 7], rtol=1e-3)


def test_refusals() -> None:
    bundle = make_bundle()
    found = separate(mixtures(1), chain(2), bundle, infer=BP(), search=SMC(4), on_unseen="prior")
    for position in (-1, TOKENS, 1.0, True):
        with pytest.raises(OptionError, match=f"0 to {TOKENS - 1}, got {position!r}"):
            replay(found, bundle, position)
    with pytest.raises(OptionError, match=r"made with bundle 'tiny', got 'other'"):
        replay(found, replace(bundle, name="other"), 0)
    with pytest.raises(OptionError, match="level is of waveforms"):
        replay(found, bundle, 0, level=0.1)
    with pytest.raises(OptionError, match="settings lack"):
        replay(replace(found, settings={}), bundle, 0)


def test_a_skipped_position_has_no_posterior() -> None:
    image = blobs(1)
    token = int(make_bundle().codec.encode(image)[0, 3])
    bundle = without(make_bundle(), token)
    found = separate(image, chain(2), bundle, infer=BP(), search=SMC(4), on_unseen="prior")
    assert found.notices
    with pytest.raises(UnseenToken, match=str(token)):
        replay(found, bundle, 3)
