"""One row of a problem, checked: a graph with its tables, priors and evidence, for the bridges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import EngineError, TableError
from ..graph import MixingGraph
from ..tables.feature import FeatureTable
from ..tables.table import Table

if TYPE_CHECKING:
    from ..infer.base import AnyTable


@dataclass(frozen=True)
class Row:
    """tables: as counted, likelihood powers not applied. sizes: {site with a token: K}.
    log_priors: {source: nats [K]}. tokens, weights, features: what is given of the observed sites,
    by kind: int64 [], log weights [K], [D]; in the priors' type and on their device. For a Pyro
    plate all of them may have axes in front."""

    graph: MixingGraph
    tables: Mapping[str, AnyTable]
    sizes: Mapping[str, int]
    log_priors: Mapping[str, Tensor]
    tokens: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    features: Mapping[str, Tensor]

    @property
    def like(self) -> Tensor:
        """A tensor of the priors' type and device."""
        return next(iter(self.log_priors.values()))

    def power(self, name: str) -> float:
        """Exponent of an observed site's likelihood."""
        return getattr(self.graph.evidence(name), "power", 1.0)

    def gaussian(self, name: str) -> FeatureTable:
        """A feature's table. Raises TableError when it was raised to a power already."""
        table = self.tables[name]
        assert isinstance(table, FeatureTable)  # check_row
        if table.power != 1:
            raise TableError(
                f"the table of '{name}' was raised to the power {table.power:g} already. Give it "
                f"as counted, and declare mix('{name}', ..., evidence=Feature(power=...))."
            )
        return table

    def dense(self, name: str) -> Tensor:
        """A site's table, float64 [K_parents..., K]. Raises TableError when its rows are no
        distributions, or it is too large to be dense."""
        table = self.tables[name]
        assert isinstance(table, Table)  # check_row
        dense = table.dense()
        total = dense.sum(-1)
        if not (((total - 1).abs() < 1e-6) | (total == 0)).all():
            raise TableError(
                f"rows of the table of '{name}' sum to [{total.min():.4g}, {total.max():.4g}], not "
                "to 1. Was it raised to a power already? Give it as counted, and declare "
                f"mix('{name}', ..., evidence=Token(power=...))."
            )
        return dense


def check_row(
    graph: MixingGraph,
    tables: Mapping[str, AnyTable],
    log_priors: Mapping[str, Any],
    evidence: Mapping[str, Any] | None,
    *,
    plates: bool = False,
) -> Row:
    """Check one row. evidence: of some or all observed sites. plates: whether priors and evidence
    may have axes in front.

    Raises TableError on missing or ill-shaped tables, EngineError on ill-shaped priors and
    evidence, GraphError on evidence of sites that are not observed.
    """
    from ..infer.ready import ready_tables

    sizes = ready_tables(graph, graph.factors, tables)[1]
    priors: dict[str, Tensor] = {}
    for name in graph.sources:
        if name not in log_priors:
            raise EngineError(
                f"log_priors lacks '{name}', float [K] in nats; given are {sorted(log_priors)}."
            )
        given = log_priors[name]
        priors[name] = _floats(f"log_priors['{name}']", given, sizes.get(name), plates)
        sizes.setdefault(name, priors[name].shape[-1])
    like = next(iter(priors.values()))
    tokens, weights, features = {}, {}, {}
    for name, value in (evidence or {}).items():
        graph.evidence(name)  # it is observed
        if name in graph.features:
            width = tables[name].width  # type: ignore[union-attr]
            features[name] = _floats(f"the feature of '{name}'", value, width, plates).to(like)
            if not torch.isfinite(features[name]).all():
                raise EngineError(f"the feature of '{name}' must be finite.")
        elif name in graph.soft:
            what = f"the log weights of '{name}'"
            weights[name] = _floats(what, value, sizes[name], plates).to(like)
        else:
            tokens[name] = _tokens(name, value, sizes[name], plates).to(like.device)
    names = {factor.name for factor in graph.factors}
    kept = {name: table for name, table in tables.items() if name in names}
    return Row(graph, kept, sizes, priors, tokens, weights, features)


def _floats(what: str, value: Any, size: int | None, plates: bool) -> Tensor:
    out = _tensor(what, value, torch.float64)
    shaped = out.ndim == 1 or (plates and out.ndim > 1)
    if not out.is_floating_point() or not shaped or (size is not None and out.shape[-1] != size):
        last = "K" if size is None else size
        raise EngineError(
            f"{what} must be float [{last}]{f' (or [..., {last}] in a plate)' if plates else ''}, "
            f"got {out.dtype} {list(out.shape)}."
            + ("" if plates else " Of priors [M, C, K] take a row: log_prior[0, 0].")
        )
    if torch.isnan(out).any() or (out == float("inf")).any():
        raise EngineError(f"{what} must not hold NaN or +inf.")
    return out


def _tokens(name: str, value: Any, size: int, plates: bool) -> Tensor:
    out = _tensor(f"evidence['{name}']", value)
    if out.is_floating_point() or out.dtype == torch.bool or (out.numel() != 1 and not plates):
        raise EngineError(
            f"evidence['{name}'] must be one integer token, got {out.dtype} {list(out.shape)}. "
            f"For weights over tokens declare mix('{name}', ..., evidence=Soft())."
        )
    if not 0 <= int(out.min()) <= int(out.max()) < size:
        found = int(out) if out.numel() == 1 else [int(out.min()), int(out.max())]
        raise EngineError(f"evidence['{name}'] must lie in [0, {size}), got {found}.")
    return (out.reshape(()) if out.numel() == 1 else out).long()


def _tensor(what: str, value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor or array as it is, and lists of numbers in the type given."""
    try:
        listed = isinstance(value, (list, tuple))
        return torch.tensor(value, dtype=dtype) if listed else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EngineError(f"{what} must be numbers, got {value!r}.") from error
