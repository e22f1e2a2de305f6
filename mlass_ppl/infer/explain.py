"""A posterior in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import OptionError

if TYPE_CHECKING:
    from .base import Posterior

_BIT = math.log(2)


def explain(posterior: Posterior, mixture: int, candidate: int) -> str:
    """What a posterior says of one row: evidence, how much each site was learned about, its most
    probable tokens, the best joint assignment, and how far to trust it.

    Raises OptionError on a row that is not there.
    """
    m, c = posterior.position.shape
    if not (0 <= mixture < m and 0 <= candidate < c):
        raise OptionError(f"no row ({mixture}, {candidate}) among {m} mixtures x {c} candidates.")
    row, place = (mixture, candidate), mixture * c + candidate
    graph, engine = posterior.graph, posterior.plan.engine
    lines = [f"{engine!r} on {graph.name}: {_trust(posterior, row)}"]
    evidence = float(posterior.log_evidence[row])
    told = ", ".join(_observed(posterior, name, place) for name in graph.observed)
    if evidence == float("-inf"):
        lines.append(
            f"  {told}: impossible. No joint assignment has both positive priors and positive "
            "table entries here; smooth the tables, or look for a prior with zeros."
        )
        return "\n".join(lines)
    kind = "log density" if graph.features else "log probability"
    lines.append(f"  {told}: {kind} {evidence:.2f} nats.")
    marginals = posterior.marginals()
    mode = posterior.mode()
    for name in (name for name in graph.latent if name in marginals):
        p = marginals[name][row].double()
        after = float(torch.special.entr(p).sum().clamp_min(0)) / _BIT
        prior = posterior.position.unary.get(name) if name in graph.sources else None
        learned = ""
        if prior is not None:
            learned = f", {_entropy(prior[place]):.2f} bits before"
        top = p.topk(min(3, int((p > 0).sum())))
        best = ", ".join(
            f"{int(token)} ({100 * float(share):.0f} %)"
            for token, share in zip(top.indices, top.values, strict=True)
        )
        lines.append(f"  {name}: {best}; {after:.2f} bits uncertain{learned}.")
    together = ", ".join(f"{name}={int(mode[name][row])}" for name in mode)
    lines.append(f"  most probable together: {together}.")
    return "\n".join(lines)


def _trust(posterior: Posterior, row: tuple[int, int]) -> str:
    if posterior.converged is not None and not bool(posterior.converged[row]):
        return "not converged, so take these numbers as hints."
    return "exact." if posterior.exact else "an approximation."


def _observed(posterior: Posterior, name: str, place: int) -> str:
    position = posterior.position
    if name in position.known:
        return f"{name}={int(position.known[name][place])}"
    if name in posterior.graph.soft:
        return f"{name} given by weights"
    return f"{name} given as a feature"


def _entropy(log: Tensor) -> float:
    p = log.double().softmax(-1) if bool((log > float("-inf")).any()) else log.new_zeros(1).double()
    return float(torch.special.entr(p).sum().clamp_min(0)) / _BIT
