"""One posterior of one token position, without codec or bundle: for notebooks and teaching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..declare import Program, compile_program
from ..errors import EngineError
from ..graph import MixingGraph
from ..tables.table import Table
from .base import Engine, Posterior
from .bp import BP


def posterior(
    program: Program | MixingGraph,
    tables: Mapping[str, Table | Tensor],
    priors: Mapping[str, Tensor | Sequence[float]],
    evidence: Mapping[str, int],
    *,
    infer: Engine | None = None,
) -> Posterior:
    """Posterior of a toy graph given its observed tokens.

    tables: p(child | parents) by the engine's factor names, as `Table` or array with the child on
    the last axis. priors: probabilities [K] of each source (or [M, C, K] of many rows). evidence:
    the token of each observed site. infer: the engine (default BP()). Answers have M = C = 1 for
    priors of one axis: `posterior(...).marginals()["a"][0, 0]`.

    Raises GraphError, TableError, EngineError, PlanError or UnseenToken.
    """
    graph = compile_program(program)
    engine: Engine = infer if infer is not None else BP()
    ready = {
        name: table if isinstance(table, Table) else Table.from_array(table)
        for name, table in tables.items()
    }
    log_priors = {}
    for name, prior in priors.items():
        values = torch.as_tensor(prior, dtype=torch.float64)
        if values.ndim not in (1, 3) or (values < 0).any() or not torch.isfinite(values).all():
            raise EngineError(
                f"priors['{name}'] must be probabilities [K] or [M, C, K], got shape "
                f"{list(values.shape)} with values in [{values.min():.3g}, {values.max():.3g}]."
            )
        log_priors[name] = (values if values.ndim == 3 else values[None, None]).log()
    rows = max((len(log) for log in log_priors.values()), default=1)
    tokens = {name: torch.full((rows,), int(token)) for name, token in evidence.items()}
    return engine.plan(graph, ready).posterior(log_priors, tokens)
