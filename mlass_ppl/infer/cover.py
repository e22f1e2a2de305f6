"""Belief propagation between the tokens that cover most of every prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .base import AnyTable, Plan
from .bp import BP, BPPlan, BPPosterior
from .cost import Cost
from .covered import CoverPosterior, Part
from .cut import Cutter
from .position import Position

_NEVER = float("-inf")


class CoverPlan(Plan):
    """A plan of `BP` that is cut down to the tokens that matter, for each mixture anew.
    `print(plan)` tells what all tokens would cost."""

    engine: BP

    def __init__(self, whole: BPPlan, cover: float) -> None:
        self.engine, self.graph, self.tables, self.seen = (
            whole.engine, whole.graph, whole.tables, whole.seen
        )  # fmt: skip
        self.sizes, self.whole, self._cover = whole.sizes, whole, cover
        self._cutter = Cutter(whole.graph, whole.tables)

    @property
    def cost(self) -> Cost:
        """At most, which is that of all tokens."""
        return self.whole.cost

    def __str__(self) -> str:
        _, *lines = str(self.whole).splitlines()
        title = f"{self.engine!r} on {self.graph.name}: messages from the leaves up, a lower bound"
        note = f"  so much for all tokens; a mixture takes those that cover {self._cover:.6g} of "
        return "\n".join([title, *lines, f"{note}each prior, and what they reach"])

    def position(
        self,
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, Tensor],
        tables: Mapping[str, AnyTable] | None = None,
    ) -> Position:
        position = self.whole.position(log_priors, evidence, tables)
        self.sizes = self.whole.sizes
        return position

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> CoverPosterior:
        position = self.position(log_priors, evidence)
        lost = position.like.new_full(position.shape, _NEVER, dtype=torch.float64)
        parts = []
        for mixture in range(position.shape[0]):
            own = _of_mixture(position, mixture)
            logs = {name: own.unary[name] for name in self.graph.sources}
            masks = {name: covering(log, self._cover) for name, log in logs.items()}
            dropped = log_dropped(logs, masks) + self._log_highest(own)
            part = self._part(own, masks)
            if ((part.answer.log_evidence[0] == _NEVER) & (dropped > _NEVER)).any():
                part = self._all(own)
            else:
                lost[mixture] = dropped
            parts.append(part)
        return CoverPosterior(self, position, parts, lost)

    def _log_highest(self, position: Position) -> Tensor:
        """Logarithm of a bound on p(evidence | sources) over all tuples of these, [R].

        Tables of tokens are at most 1, so that the weights of soft evidence and the densities of
        features bound what these give.
        """
        top = position.like.new_zeros(len(position), dtype=torch.float64)
        for name in self.graph.soft:
            top += position.unary[name].amax(-1)
        for log in position.likelihood.values():
            top += log.amax()
        return top

    def _part(self, position: Position, masks: Mapping[str, Tensor]) -> Part:
        """The answer for one mixture. masks: of the sources, bool [K]."""
        allowed = {name: torch.ones(size, dtype=torch.bool) for name, size in self.sizes.items()}
        for name, log in position.unary.items():
            allowed[name] = masks.get(name, (log > _NEVER).any(0)).cpu()
        for name, tokens in position.known.items():
            allowed[name] = torch.arange(self.sizes[name]) == tokens[:1].cpu()
        kept, tables = self._cutter.cut(allowed)
        sizes = {name: len(tokens) for name, tokens in kept.items()}
        plan = self.whole.restricted({**self.tables, **tables}, sizes)
        kept = {name: tokens.to(position.like.device) for name, tokens in kept.items()}
        likelihood = {}
        for factor in self.graph.factors:
            if factor.feature:
                log = position.likelihood[factor.name]
                for axis, name in enumerate(factor.parents, 1):
                    log = log.index_select(axis, kept[name])
                likelihood[factor.name] = log
        small = replace(
            position,
            unary={name: log.index_select(1, kept[name]) for name, log in position.unary.items()},
            known={name: torch.zeros_like(tokens) for name, tokens in position.known.items()},
            likelihood=likelihood,
        )
        return Part(kept, BPPosterior(plan, small))

    def _all(self, position: Position) -> Part:
        """The answer for one mixture between all tokens."""
        device = position.like.device
        every = {name: torch.arange(size, device=device) for name, size in self.sizes.items()}
        return Part(every, BPPosterior(self.whole, position))


def covering(log: Tensor, cover: float) -> Tensor:
    """The tokens that cover a share of the mass of each candidate's prior, most probable first,
    together, and at least one: bool [K]. log: nats [C, K], not necessarily normalised.

    Tokens as probable as the last one that is needed are taken with it. A share of 1 takes all that
    are possible.
    """
    chosen = log > _NEVER
    if cover < 1:
        ordered = np.sort(log.detach().cpu().numpy(), -1)  # far faster than torch
        ranked = torch.from_numpy(ordered).flip(-1)
        mass = (ranked - ranked[:, :1]).exp().nan_to_num_(0.0)  # of a row without any
        below = mass.cumsum(-1, dtype=torch.float64)
        needed = below - mass < cover * below[:, -1:]
        least = ranked.gather(-1, needed.sum(-1, keepdim=True).clamp_min(1) - 1)
        chosen &= log >= least.to(log.device)
    tokens = chosen.any(0)
    tokens[0] |= ~tokens.any()
    return tokens


def log_dropped(logs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
    """Logarithm of the prior mass of all tuples that hold a token outside of `masks`, float64 [C].
    logs: {source: nats [C, K]}; masks: {source: bool [K]}.

    Summed by the first source whose token is outside, so that a small mass is not a difference of
    large ones.
    """
    before, out = torch.zeros(()).double(), torch.tensor(_NEVER).double()
    for name, log in logs.items():
        inside, outside = (
            torch.logsumexp(log[:, mask], 1).double() for mask in (masks[name], ~masks[name])
        )
        total = torch.logaddexp(inside, outside)
        out, before = torch.logaddexp(out + total, before + outside), before + inside
    return out


def _of_mixture(position: Position, mixture: int) -> Position:
    """The position of one mixture alone."""
    candidates = position.shape[1]
    begin = mixture * candidates
    rows = torch.arange(begin, begin + candidates, device=position.like.device)
    own = position.rows(rows)
    likelihood = {name: log[mixture : mixture + 1] for name, log in position.likelihood.items()}
    return replace(
        own, shape=(1, candidates), mixture=torch.zeros_like(rows), likelihood=likelihood
    )
