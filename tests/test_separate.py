"""Separation end to end: what comes back, with every engine, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import (
    ALPHABET,
    TOKENS,
    blobs,
    make_bundle,
    make_gpt2,
    make_ngram,
    mixtures,
    named,
    same,
)

import mlass_ppl
from mlass_ppl import (
    BP,
    Auto,
    Exact,
    Extractor,
    Mean,
    Nearest,
    Refine,
    Sample,
    Separation,
    separate,
)
from mlass_ppl.bundle import Bundle
from mlass_ppl.declare import compile_program, mix, source
from mlass_ppl.errors import (
    BundleError,
    GraphError,
    OptionError,
    PlanError,
    PriorError,
    TableError,
)
from mlass_ppl.estimate import Candidates
from mlass_ppl.infer.base import Engine
from mlass_ppl.priors import NGram
from mlass_ppl.shapes import chain, joint, star

SIX = Sample(6)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Counted often enough that every token of a mixture was seen; many pairs were not."""
    return make_bundle()


def test_fields_and_shapes(bundle):
    given = mixtures(5)
    found = separate(given, chain(2), bundle, search=SIX, seed=3)
    assert isinstance(found, Separation)
    assert found.graph == compile_program(chain(2))
    assert torch.equal(found.mixtures, given)
    assert list(found.signals) == list(found.tokens) == list(found) == ["source_1", "source_2"]
    for name in found:
        assert found.signals[name].shape == (5, 1, 12, 12)
        assert found.signals[name].dtype == torch.float32
        assert found.tokens[name].shape == (5, TOKENS)
        assert found.tokens[name].dtype == torch.int64
        assert 0 <= int(found.tokens[name].min()) <= int(found.tokens[name].max()) < ALPHABET
        assert torch.equal(found[name], found.signals[name])
        assert found.candidate_tokens[name].shape == (5, 6, TOKENS)
    assert found.evidence.shape == (5, 6, TOKENS)
    assert found.errors.shape == (5, 6)
    assert found.chosen.shape == (5,)
    assert len(found) == 5
    assert found.refined is None
    assert found.candidates is None
    assert found.seconds > 0
    assert found.refine_seconds == 0
    assert found.notices == ()
    assert found.settings["infer"] == Auto()
    assert found.settings["picked"] == BP()  # the graph is a tree
    assert "picked=BP(" in repr(found)
    assert found.settings["seed"] == 3
    for word in ("5 mixtures", "source_1, source_2", "BP(", "6 candidates of 9 tokens"):
        assert word in repr(found)
    with pytest.raises(OptionError, match=r"no source 'drums' here; there are \['source_1'"):
        found["drums"]


def test_candidates_are_kept_on_request(bundle):
    found = separate(
        mixtures(3), chain(2), bundle, search=SIX, estimate=Nearest(), keep_candidates=True
    )
    assert found.candidates is not None
    rows = torch.arange(3)
    for name, kept in found.candidates.items():
        tokens = found.candidate_tokens[name]
        assert kept.shape == (3, 6, 1, 12, 12)
        decoded = bundle.codec.decode(tokens.flatten(0, 1)).unflatten(0, (3, 6))
        assert torch.allclose(kept, decoded, atol=1e-6)
        assert torch.equal(kept[rows, found.chosen], found.signals[name])
        assert torch.equal(tokens[rows, found.chosen], found.tokens[name])
    assert len(found.candidate_tokens["source_1"].flatten(0, 1).unique(dim=0)) > 6


@pytest.mark.parametrize("program", [chain(2), chain(3), star(2)])
def test_the_candidate_nearest_to_the_mixture_is_chosen(bundle, program):
    engine = Extractor() if "star" in program.__name__ else BP()
    given = mixtures(4)
    found = separate(
        given, program, bundle, infer=engine, search=SIX, estimate=Nearest(), keep_candidates=True
    )
    assert found.candidates is not None
    made = torch.stack(list(found.candidates.values())).mean(0)  # equal weights
    errors = (made - given[:, None]).square().mean((2, 3, 4))
    assert torch.allclose(found.errors, errors, atol=1e-6)
    assert torch.equal(found.chosen, found.errors.argmin(1))
    assert torch.allclose(found.reconstruction_error(), errors.amin(1), atol=1e-6)


def test_declared_weights_make_the_reconstruction(bundle):
    def loud():
        return mix("m", source("quiet"), source("loud"), weights=(0.2, 0.8))

    graph = compile_program(loud)
    (recipe,) = {bundle.recipe(graph, factor) for factor in graph.factors}
    tables = dict(zip([recipe], bundle.counts.values(), strict=False))
    found = separate(
        mixtures(2), loud, replace(bundle, counts=tables), search=SIX, estimate=Nearest()
    )
    expected = 0.2 * found["quiet"] + 0.8 * found["loud"]
    assert torch.allclose(found.reconstruction(), expected, atol=1e-6)
    errors = (expected - found.mixtures).square().mean((1, 2, 3))
    assert torch.allclose(found.errors.amin(1), errors, atol=1e-6)


ENGINES: list[tuple[Any, Engine]] = [
    (joint(2), Exact()),
    (joint(3), Exact()),
    (chain(2), Exact()),
    (chain(3), Exact()),
    (joint(2), BP()),
    (joint(3), BP()),
    (chain(2), BP()),
    (chain(3), BP()),
    (chain(3), BP(draw="marginals")),
    (star(2), Extractor()),
    (star(3), Extractor()),
    (chain(3), Extractor()),
    (joint(3), Extractor()),
]


@pytest.mark.parametrize(("program", "engine"), ENGINES, ids=named)
def test_every_engine_separates_on_its_shape(bundle, program, engine):
    found = separate(mixtures(3), program, bundle, infer=engine, search=SIX)
    assert torch.isfinite(found.errors).all()
    assert not found.evidence.isnan().any()
    assert (found.evidence[..., 0] > float("-inf")).all()  # the first token has no past to rule out
    assert all(int(tokens.min()) >= 0 for tokens in found.candidate_tokens.values())


def test_priors_of_different_precision_go_together(bundle):
    def program():
        return mix("m", source("a"), source("b"))

    priors = {"a": make_gpt2(), "b": make_ngram(bundle.codec)}  # float32 and float64
    used = count_of(replace(bundle, priors=priors), program)
    for engine in (BP(), Exact(), Extractor()):
        found = separate(mixtures(2), program, used, infer=engine, search=SIX)
        assert torch.isfinite(found.errors).all()


def count_of(bundle: Bundle, program: Any) -> Bundle:
    """The bundle with the joint and extractor tables of a program over several priors."""
    graph = compile_program(program)
    counts = {}
    for engine in (BP(), Extractor()):
        for factor in engine.factors(graph):
            counts[bundle.recipe(graph, factor)] = mlass_ppl.count(
                graph, bundle.codec, blobs(300), factors=[factor], mixtures=600
            ).popitem()[1]
    return replace(bundle, counts=counts)


def test_temperature_and_top_k_reach_the_priors(bundle):
    given = mixtures(2)
    plain = separate(given, chain(2), bundle, search=Sample(32))
    narrow = separate(given, chain(2), bundle, search=Sample(32, top_k=2))
    tokens = narrow.candidate_tokens["source_1"][..., 0]
    best = bundle.priors["blob"].step(None, bundle.priors["blob"].start(1))[0][0].topk(2).indices
    assert set(tokens.unique().tolist()) <= set(best.tolist())
    assert len(plain.candidate_tokens["source_1"][..., 0].unique()) > 2


def test_refinement_is_reported_apart(bundle):
    given = mixtures(3)
    raw = separate(given, chain(2), bundle, search=SIX)
    found = separate(given, chain(2), bundle, search=SIX, refine=Refine(steps=30))
    same(found, raw)
    assert found.refined is not None
    assert found.refine_seconds > 0
    assert torch.equal(found["source_1"], found.refined["source_1"])
    assert not torch.equal(found["source_1"], found.signals["source_1"])
    assert (found.reconstruction_error() < raw.reconstruction_error()).all()
    assert "refined in" in repr(found)
    assert not found["source_1"].requires_grad


@pytest.mark.parametrize("size", [1, 2, 64])
def test_progress_counts_token_steps_over_all_chunks(bundle, size):
    calls: list[tuple[int, int]] = []
    separate(
        mixtures(3), chain(2), bundle, search=SIX, batch_size=size,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    chunks = -(-3 // size)
    assert calls == [(step + 1, chunks * TOKENS) for step in range(chunks * TOKENS)]


# --- what does not fit ---------------------------------------------------------------------------


def test_exact_says_what_it_would_take(bundle):
    message = r"needs .* joint states \(.* GB\); the limit is .* GB .*BP\(\) needs .* numbers"
    with pytest.raises(PlanError, match=message):
        separate(mixtures(1), chain(3), bundle, infer=Exact(memory_limit=500))
    with pytest.raises(PlanError, match=r"joint states.*Count a chain and use BP\(\)"):
        separate(mixtures(1), joint(3), bundle, infer=Exact(memory_limit=500))


def test_missing_tables_and_priors_are_named(bundle):
    with pytest.raises(TableError, match=r"no table for 'mix_4' of 'chain\(5\)'"):
        separate(mixtures(1), chain(5), bundle)
    with pytest.raises(BundleError, match="no prior for source 'source_1'"):
        separate(mixtures(1), chain(2, prior="piano"), bundle)


def test_priors_that_do_not_fit_are_named(bundle):
    other = replace(bundle, priors={"blob": NGram.uniform(ALPHABET + 1)})
    with pytest.raises(PriorError, match="prior 'blob' has 7 tokens, the codec 6"):
        separate(mixtures(1), chain(2), other)
    short = replace(bundle, priors={"blob": make_gpt2(length=TOKENS - 1)})
    with pytest.raises(PriorError, match="knows 8 tokens, a signal has 9"):
        separate(mixtures(1), chain(2), short)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_unseen": "ignore"}, "'error' or 'prior', got 'ignore'"),
        ({"batch_size": 0}, "at least 1, got 0"),
        ({"batch_size": 1.5}, r"got 1\.5"),
        ({"infer": "bp"}, r"infer takes an engine: BP\(\), .*got 'bp'"),
        ({"infer": BP}, "infer takes an engine"),
        ({"search": 64}, r"search takes a search: SMC\(candidates=64\); got 64"),
        ({"refine": True}, "refine takes None or a refinement"),
        ({"refine": 500}, r"Refine\(steps=500\); got 500"),
    ],
)
def test_impossible_options_are_refused(bundle, options, message):
    with pytest.raises(OptionError, match=message):
        separate(mixtures(1), chain(2), bundle, **options)


def test_the_bundle_must_be_loaded_and_the_program_a_program(bundle):
    with pytest.raises(OptionError, match=r"loaded bundle: load\('mnist'\); got 'mnist'"):
        separate(mixtures(1), chain(2), "mnist")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="expected a program"):
        separate(mixtures(1), "chain", bundle)  # type: ignore[arg-type]


def test_the_posterior_mean_is_the_default(bundle):
    given = mixtures(3)
    options = {"infer": BP(), "search": SIX, "keep_candidates": True}
    found = separate(given, chain(2), bundle, **options)
    assert found.settings["estimate"] == Mean()
    nearest = separate(given, chain(2), bundle, **options, estimate=Nearest())
    again = Candidates(
        nearest.candidates, nearest.errors, nearest.log_prior, nearest.log_weights,
        [["source_1", "source_2"]],
    )  # fmt: skip
    for name, signals in Mean().signals(again, nearest.chosen).items():
        assert torch.equal(found.signals[name], signals)
        assert torch.equal(found.tokens[name], nearest.tokens[name])
        assert not torch.equal(found.signals[name], nearest.signals[name])
