"""One posterior of one token position, without codec or bundle: for notebooks and teaching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..declare import Program, compile_program
from ..errors import EngineError
from ..evidence import Evidence, Feature, Soft, Token
from ..graph import MixingGraph
from ..tables.feature import FeatureTable
from ..tables.table import Table
from .auto import Auto
from .base import AnyTable, Engine, Posterior


def posterior(
    program: Program | MixingGraph,
    tables: Mapping[str, AnyTable | Tensor],
    priors: Mapping[str, Tensor | Sequence[float]],
    evidence: Mapping[str, int | Sequence[float] | Tensor],
    *,
    infer: Engine | None = None,
) -> Posterior:
    """Posterior of a toy graph given what was observed.

    tables: p(child | parents) by the engine's factor names, as `Table` or array with the child on
    the last axis, or as `GaussianTable` or `LinearGaussianTable`. priors: probabilities [K] of each
    source (or [M, C, K] of many rows). evidence: for each observed site a token; or weights over
    its tokens [K], not negative, as in `{"mixture": [0.1, 0.9]}`; or a feature [D] where its table
    is Gaussian. It is declared on the site as `Token()`, `Soft()` or `Feature()`; here the
    declaration may be left out. infer: the engine (default Auto()). Answers have M = C = 1 for
    priors of one axis: `posterior(...).marginals()["a"][0, 0]`.

    Raises GraphError, TableError, EngineError, PlanError or UnseenToken.
    """
    graph = compile_program(program)
    engine: Engine = infer if infer is not None else Auto()
    log_priors = {name: _log(name, prior) for name, prior in priors.items()}
    rows = max((len(log) for log in log_priors.values()), default=1)
    given: dict[str, Tensor] = {}
    kinds: dict[str, Evidence] = {}
    for name, value in evidence.items():
        observed = torch.as_tensor(value)
        if observed.ndim == 0 and not observed.is_floating_point():
            given[name] = observed.expand(rows)
            if not isinstance(graph.evidence(name), Token):
                kinds[name] = Token()
            continue
        if observed.ndim != 1:
            raise EngineError(
                f"evidence['{name}'] must be a token, weights [K] or a feature [D], got "
                f"{observed.dtype} {list(observed.shape)}."
            )
        observed = observed.double()
        known = graph.evidence(name)
        if isinstance(tables.get(name), FeatureTable):
            kinds[name] = known if isinstance(known, Feature) else Feature()
        else:
            kinds[name] = known if isinstance(known, Soft) else Soft()
            observed = _log_weights(name, observed)
        given[name] = observed.expand(rows, -1)
    graph = graph.with_evidence(kinds)
    ready = {
        name: table if isinstance(table, (Table, FeatureTable)) else Table.from_array(table)
        for name, table in tables.items()
    }
    plan = engine.plan(graph, ready)
    for name, log in log_priors.items():
        if log.shape[2] != (size := plan.sizes.get(name, log.shape[2])):
            raise EngineError(
                f"priors['{name}'] has {log.shape[2]} probabilities, but in the tables '{name}' "
                f"has {size} tokens: give one probability for each."
            )
    return plan.posterior(log_priors, given)


def _log(name: str, prior: Tensor | Sequence[float]) -> Tensor:
    values = torch.as_tensor(prior, dtype=torch.float64)
    if values.ndim not in (1, 3) or (values < 0).any() or not torch.isfinite(values).all():
        raise EngineError(
            f"priors['{name}'] must be probabilities [K] or [M, C, K], got shape "
            f"{list(values.shape)} with values in [{values.min():.3g}, {values.max():.3g}]."
        )
    return (values if values.ndim == 3 else values[None, None]).log()


def _log_weights(name: str, weights: Tensor) -> Tensor:
    if (weights < 0).any() or not torch.isfinite(weights).all() or not (weights > 0).any():
        raise EngineError(
            f"evidence['{name}'] must be weights over its tokens, not negative, finite and not all "
            f"zero; got {weights.tolist()}."
        )
    return weights.log()
