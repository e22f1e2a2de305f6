"""The engines that tests of engines run: one table for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch

from mlass_ppl import BP, Auto, Engine, Exact, Extractor, LoopyBP, MixingGraph, Truncated

ENGINES: dict[str, Engine] = {
    "exact": Exact(),
    "dense": BP(),
    "sparse": BP(dense_limit=0),
    "loopy": LoopyBP(),
    "loopy-sparse": LoopyBP(dense_limit=0),
    "auto": Auto(),
    "auto-loopy": Auto(operations_limit=1),  # cannot afford Exact() where there are cycles
    "truncated": Truncated(),  # whose lists hold all tuples of toys
    "cover": BP(cover=1.0),  # which drops nothing, so that its posteriors are exact
    "marginals": BP(draw="marginals"),
    "extractor": Extractor(),
}
"""Dense and sparse: tables in linear space, and their positive cells in logarithms."""

ON_TREES = ("exact", "dense", "sparse", "loopy", "loopy-sparse", "auto")
"""Exact on every tree."""

WITH_TOKENS = tuple(name for name in ENGINES if name != "truncated")
"""Take tokens as evidence."""

SAMPLERS = ("exact", "dense", "sparse", "loopy", "auto")
"""Draw joint samples on every tree."""

TYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)], ids=["f64", "f32"]
)


def each(names: Iterable[str] = WITH_TOKENS) -> pytest.MarkDecorator:
    """Run a test with each of these engines, by default with all that take tokens."""
    return pytest.mark.parametrize("engine", [ENGINES[name] for name in names], ids=list(names))


def exact_on(graph: MixingGraph) -> Iterator[Engine]:
    """The engines whose answers on a graph are exact."""
    return (engine for engine in ENGINES.values() if engine.is_exact(graph))
