"""What every answer owes, exact or not: shapes, no NaN, and one mind about impossible rows."""

from __future__ import annotations

import torch
from torch import Tensor

from ..infer.base import Posterior
from ._verdict import Case, Row

_NEVER = float("-inf")


def check_sound(case: Case, answer: Posterior) -> None:
    shape, sizes = case.problem.shape, case.problem.sizes
    log_evidence = answer.log_evidence
    if tuple(log_evidence.shape) != shape or not log_evidence.is_floating_point():
        found = f"{log_evidence.dtype} {list(log_evidence.shape)}"
        case.fail("log_evidence", found, f"floats [M, C] = {list(shape)}")
    for row in _where(torch.isnan(log_evidence) | (log_evidence == float("inf"))):
        case.fail("log evidence", float(log_evidence[row]), "a number or -inf", row)
    impossible = log_evidence == _NEVER
    for name in case.problem.graph.sources:
        for row in _where((case.problem.log_priors[name] == _NEVER).all(-1) & ~impossible.cpu()):
            hint = f"The prior of '{name}' has no mass."
            case.fail("log evidence", float(log_evidence[row]), "-inf", row, hint)
    marginals = case.ask("marginals()", answer.marginals)
    _check_names(case, "marginals()", set(marginals))
    for name, values in marginals.items():
        if tuple(values.shape) != (*shape, sizes[name]) or not values.is_floating_point():
            found = f"{values.dtype} {list(values.shape)}"
            case.fail(f"marginals()['{name}']", found, f"floats {[*shape, sizes[name]]}")
        for row in _where(~(torch.isfinite(values) & (values >= 0)).all(-1)):
            case.fail(f"p({name})", values[row], "finite and not negative", row)
        total = torch.where(impossible, 0.0, 1.0).to(values)
        for row in _where((values.sum(-1) - total).abs() > 1e-4):
            wanted = "zeros, since its log evidence is -inf" if impossible[row] else "a sum of 1"
            case.fail(f"p({name})", values[row], wanted, row)
    mode = case.ask("mode()", answer.mode)
    check_tokens(case, "mode()", mode, impossible, set(marginals))


def check_tokens(
    case: Case, what: str, tokens: dict[str, Tensor], impossible: Tensor, names: set[str]
) -> None:
    """Assignments [M, C] of the sites `names`: in range, and -1 in impossible rows alone."""
    if set(tokens) != names:
        case.fail(f"the sites of {what}", sorted(tokens), f"those of marginals(): {sorted(names)}")
    for name, values in tokens.items():
        size = case.problem.sizes[name]
        if values.shape != impossible.shape or values.dtype != torch.int64:
            found = f"{values.dtype} {list(values.shape)}"
            case.fail(f"{what}['{name}']", found, f"torch.int64 {list(impossible.shape)}")
        for row in _where((values == -1) != impossible):
            wanted = "-1, since its log evidence is -inf" if impossible[row] else "a token"
            case.fail(f"{what}['{name}']", int(values[row]), wanted, row)
        for row in _where((values < -1) | (values >= size)):
            case.fail(f"{what}['{name}']", int(values[row]), f"a token in [0, {size})", row)


def _check_names(case: Case, what: str, names: set[str]) -> None:
    graph = case.problem.graph
    if not set(graph.sources) <= names <= set(graph.latent):
        wanted = f"the sources {list(graph.sources)} at least, of the latent {list(graph.latent)}"
        case.fail(f"the sites of {what}", sorted(names), wanted)


def _where(mask: Tensor) -> list[Row]:
    """Rows of a mask [M, C]."""
    return [(m, c) for m, c in mask.nonzero().tolist()]
