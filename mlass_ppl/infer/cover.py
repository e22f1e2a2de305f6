"""Belief propagation between the tokens that matter: most of every prior, or the promising ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..tables.linear import LinearGaussianTable
from .base import AnyTable, Plan
from .bp import BP, BPPlan, BPPosterior
from .cost import Cost
from .covered import CoverPosterior, Part
from .cut import Cutter
from .position import Position, check_feature, log_likelihood
from .promising import Promising

_NEVER = float("-inf")


class CoverPlan(Plan):
    """A plan of `BP` that is cut down to the tokens that matter, for each mixture anew.
    `print(plan)` tells what all tokens would cost."""

    engine: BP

    def __init__(self, whole: BPPlan) -> None:
        self.engine, self.graph, self.tables, self.seen = (
            whole.engine, whole.graph, whole.tables, whole.seen
        )  # fmt: skip
        self.sizes, self.whole = whole.sizes, whole
        self._cutter = Cutter(whole.graph, whole.tables)
        # Their densities are made for the kept tokens alone.
        self._adding = {
            name: table
            for name, table in whole.tables.items()
            if isinstance(table, LinearGaussianTable) and table.diagonal and len(table.means) == 2
        }
        self._promising = None
        if self.engine.keep is not None:
            self._promising = Promising(whole.graph, whole.tables, self._adding)

    @property
    def cost(self) -> Cost:
        """At most, which is that of all tokens."""
        return self.whole.cost

    def __str__(self) -> str:
        _, *lines = str(self.whole).splitlines()
        title = f"{self.engine!r} on {self.graph.name}: messages from the leaves up, a lower bound"
        which = f"those that cover {self.engine.cover} of each prior"
        if self.engine.keep is not None:
            which = f"the {self.engine.keep} most promising of each source"
        note = f"  so much for all tokens; a mixture takes {which}, and what they reach"
        return "\n".join([title, *lines, note])

    def position(
        self,
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, Tensor],
        tables: Mapping[str, AnyTable] | None = None,
    ) -> Position:
        """As of every plan, but without the densities of tables that add up moments."""
        if tables is None:
            tables = {n: table for n, table in self.tables.items() if n not in self._adding}
        position = self.whole.position(log_priors, evidence, tables)
        self.sizes = self.whole.sizes
        for name, table in self._adding.items():
            check_feature(name, table, evidence[name], position.shape[0])
        return position

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> CoverPosterior:
        position = self.position(log_priors, evidence)
        lost = position.like.new_full(position.shape, _NEVER, dtype=torch.float64)
        parts = []
        device = position.like.device
        heard = {name: evidence[name].double().to(device) for name in self._adding}
        for mixture in range(position.shape[0]):
            own = _of_mixture(position, mixture)
            features = {name: feature[mixture : mixture + 1] for name, feature in heard.items()}
            logs = {name: own.unary[name] for name in self.graph.sources}
            masks = self._masks(logs, features)
            dropped = log_dropped(logs, masks) + self._log_highest(own)
            part = self._part(own, masks, features)
            if ((part.answer.log_evidence[0] == _NEVER) & (dropped > _NEVER)).any():
                part = self._all(own, features)
            else:
                lost[mixture] = dropped
            parts.append(part)
        return CoverPosterior(self, position, parts, lost)

    def _masks(
        self, logs: Mapping[str, Tensor], features: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The sources' tokens to keep for one mixture, {source: bool [K]}."""
        if self._promising is not None and (keep := self.engine.keep) is not None:
            return self._promising.masks(logs, features, keep)
        cover = 1.0 if self.engine.cover is None else self.engine.cover
        return {name: covering(log, cover) for name, log in logs.items()}

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
        for table in self._adding.values():
            top += table.log_highest
        return top

    def _part(
        self, position: Position, masks: Mapping[str, Tensor], features: Mapping[str, Tensor]
    ) -> Part:
        """The answer for one mixture. masks: of the sources, bool [K]. features: {factor: [1, D]}
        where the densities are still to be made."""
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
            if factor.name in features:
                own = [kept[name] for name in factor.parents]
                table = self._adding[factor.name]
                likelihood[factor.name] = table.between(features[factor.name], own).to(
                    position.like
                )
            elif factor.feature:
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

    def _all(self, position: Position, features: Mapping[str, Tensor]) -> Part:
        """The answer for one mixture between all tokens."""
        device = position.like.device
        likelihood = dict(position.likelihood)
        for name, feature in features.items():
            log = log_likelihood(name, self._adding[name], feature, 1)
            likelihood[name] = log.to(position.like)
        position = replace(position, likelihood=likelihood)
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
