"""On what the result of one mixture may depend: seed and stream, never batch and neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import (
    ALPHABET,
    blobs,
    count_tables,
    make_bundle,
    make_gpt2,
    mixtures,
    same,
)

from mlass_ppl import Sample, separate
from mlass_ppl.bundle import Bundle
from mlass_ppl.declare import compile_program
from mlass_ppl.errors import (
    OptionError,
)
from mlass_ppl.priors import NGram
from mlass_ppl.shapes import chain, joint
from mlass_ppl.tables import Counts

SIX = Sample(6)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Counted often enough that every token of a mixture was seen; many pairs were not."""
    return make_bundle()


@pytest.fixture(scope="module")
def deep(bundle) -> Bundle:
    """The same with a language model for a prior."""
    return replace(bundle, priors={"blob": make_gpt2()})


@pytest.fixture(scope="module")
def sparse(bundle) -> Bundle:
    """Counted so little that observations are met which the candidates' pasts rule out."""
    return count_tables(replace(bundle, counts={}), mixtures=6)


def test_a_seed_decides_everything(bundle):
    given = mixtures(3)
    one, again, other = (
        separate(given, chain(3), bundle, search=SIX, seed=seed) for seed in (4, 4, 5)
    )
    same(one, again)
    assert not torch.equal(
        one.candidate_tokens["source_1"], other.candidate_tokens["source_1"]
    )  # fmt: skip


def test_the_global_random_state_is_neither_used_nor_moved(bundle):
    torch.manual_seed(11)
    one = separate(mixtures(2), chain(2), bundle, search=SIX)
    torch.manual_seed(12)
    before = torch.get_rng_state()
    same(one, separate(mixtures(2), chain(2), bundle, search=SIX))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("which", ["bundle", "deep", "sparse"])
@pytest.mark.parametrize("program", [chain(3), joint(2)])
def test_batch_size_and_neighbours_change_nothing(which, program, request):
    used, given = request.getfixturevalue(which), mixtures(7)
    search = Sample(6, top_k=2 if which == "sparse" else None)
    options: dict[str, Any] = {"search": search, "on_unseen": "prior"}
    whole = separate(given, program, used, **options)
    for size in (1, 3, 7):
        same(separate(given, program, used, batch_size=size, **options), whole)
    for row in (0, 4):
        alone = separate(given[row], program, used, streams=[row], **options)
        same(alone, whole, [row])
    others = torch.cat([given[:2], blobs(3, 9), given[5:6]])
    streams = [0, 1, 20, 21, 22, 5]
    mixed = separate(others, program, used, streams=streams, **options)
    for name in mixed.tokens:
        assert torch.equal(mixed.candidate_tokens[name][[0, 1, 5]],
                           whole.candidate_tokens[name][[0, 1, 5]])  # fmt: skip
    ruled_out = (whole.evidence == float("-inf")).flatten(1).any(1)
    assert ruled_out.any() == (which == "sparse")


def test_a_neighbour_that_leaves_its_tables_does_not_move_the_others_streams(bundle):
    """The mixtures differ in their middle patch, whose token in the second was seen with (0, 0)
    alone: candidates that hold on to token 1 are ruled out there and go on from their priors."""
    first, encode = mixtures(1, seed=8)[0], bundle.codec.encode
    own = encode(first[None])[0].unique()
    patches = blobs(200, 4)[..., 4:8, 4:8]
    second = first.expand(200, -1, -1, -1).clone()
    second[..., 4:8, 4:8] = patches
    tokens = encode(second)
    foreign = (tokens[:, 4, None] != own).all(1).nonzero()[0, 0]
    second = second[foreign]
    counts = torch.zeros(ALPHABET, ALPHABET, ALPHABET, dtype=torch.int64)
    counts[..., own] = 1
    counts[0, 0, tokens[foreign, 4]] = 1
    graph = compile_program(joint(2))
    tables = {bundle.recipe(graph, graph.factors[0]): Counts.from_dense(counts)}
    # after token 1 nothing but 1 follows
    table = torch.full((ALPHABET + 1, ALPHABET), 1 / ALPHABET, dtype=torch.float64)
    table[1] = torch.eye(ALPHABET, dtype=torch.float64)[1]
    ruled = replace(bundle, counts=tables, priors={"blob": NGram(table)})
    alone = separate(first, joint(2), ruled, search=SIX)
    both = separate(torch.stack([first, second]), joint(2), ruled, search=SIX)
    assert (both.evidence[0] > float("-inf")).all()
    assert (both.evidence[1, :, 4] == float("-inf")).any()
    same(alone, both, [0])


def test_each_stream_is_its_own(bundle):
    given = mixtures(1).expand(3, -1, -1, -1)
    found = separate(given, chain(2), bundle, search=SIX, streams=[5, 6, 5])
    tokens = found.candidate_tokens["source_1"]
    assert torch.equal(tokens[0], tokens[2])
    assert not torch.equal(tokens[0], tokens[1])
    with pytest.raises(OptionError, match="expected 3 streams, one a mixture, got 2"):
        separate(given, chain(2), bundle, streams=[1, 2])
