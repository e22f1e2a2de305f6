"""Tables checked against a graph and made ready for an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import TableError
from ..evidence import Feature, Token
from ..graph import Factor, MixingGraph
from ..tables.feature import FeatureTable
from ..tables.table import Table
from .base import AnyTable


def ready_tables(
    graph: MixingGraph, factors: tuple[Factor, ...], tables: Mapping[str, AnyTable]
) -> tuple[dict[str, AnyTable], dict[str, int]]:
    """The table of each factor, raised to its site's likelihood power, and {site: K}.

    Raises TableError when one is missing, of the wrong kind or arity, or disagrees on an alphabet.
    """
    sizes = graph.alphabets()
    out: dict[str, AnyTable] = {}
    for factor in factors:
        table = tables.get(factor.name)
        given = ", ".join(factor.parents)
        if table is None:
            raise TableError(
                f"'{graph.name}' needs a table for '{factor.name}', p({factor.child} | {given}); "
                f"given are {sorted(tables)}."
            )
        _check_kind(factor, table)
        shape = table.parents if isinstance(table, FeatureTable) else table.shape
        axes = factor.parents if factor.feature else (*factor.parents, factor.child)
        if len(shape) != len(axes):
            last = "" if factor.feature else f", and last {factor.child}"
            raise TableError(
                f"the table of '{factor.name}' has {len(shape)} axes {shape}; expected "
                f"{len(axes)}: {given}{last}."
            )
        for name, size in zip(axes, shape, strict=True):
            if sizes.setdefault(name, size) != size:
                raise TableError(
                    f"site '{name}' has {sizes[name]} tokens elsewhere, but the table of "
                    f"'{factor.name}' was counted for {shape} ({', '.join(axes)})."
                )
        evidence = graph.evidence(factor.child) if factor.child in graph.observed else Token()
        power = evidence.power if isinstance(evidence, (Token, Feature)) else 1.0
        out[factor.name] = table if power == 1 else table.raised(power)
    return out, sizes


def _check_kind(factor: Factor, table: Any) -> None:
    gaussian = isinstance(table, FeatureTable)
    if not isinstance(table, (Table, FeatureTable)):
        raise TableError(
            f"the table of '{factor.name}' is a {type(table).__name__}; expected a Table, as from "
            "Table.from_array(probabilities)."
        )
    if gaussian and not factor.feature:
        raise TableError(
            f"the table of '{factor.name}' is Gaussian, but its site has a token: declare "
            f"mix('{factor.child}', ..., evidence=Feature()), or give a Table."
        )
    if factor.feature and not gaussian:
        raise TableError(
            f"'{factor.child}' is observed as a feature, so its table must be a GaussianTable, as "
            "from GaussianTable.from_arrays(mean, std), or a LinearGaussianTable, as from "
            "LinearGaussianTable.from_cells(cells, weights); got a Table of tokens."
        )


def seen_tokens(
    graph: MixingGraph, factors: tuple[Factor, ...], tables: Mapping[str, AnyTable]
) -> dict[str, Tensor]:
    """Which tokens of each site with a given token have any probability: {site: bool [K]}."""
    out: dict[str, Tensor] = {}
    for factor in factors:
        table = tables[factor.name]
        if factor.child in graph.known and isinstance(table, Table):
            seen = table.seen()
            out[factor.child] = out.get(factor.child, torch.ones_like(seen)) & seen
    return out
