"""The token loop: priors, engine and search, position by position, for one chunk of mixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from ._inputs import one_signal
from .bundle import Bundle
from .errors import CodecError, PriorError, UnseenToken
from .graph import MixingGraph
from .infer import Engine, Plan
from .infer.random import draw, uniforms
from .priors import Prior
from .search import Search

Unseen = Literal["error", "prior"]


class TokenLoop:
    """One plan and its priors, run over chunks of mixtures.

    Raises the errors of planning, SignalError when the observed sites are not one signal, and
    PriorError when a prior does not fit the codec. `unseen` counts the skipped tokens.
    """

    def __init__(
        self,
        graph: MixingGraph,
        bundle: Bundle,
        engine: Engine,
        search: Search,
        on_unseen: Unseen,
        keep: bool,
    ) -> None:
        self.graph, self.codec, self.search = graph, bundle.codec, search
        self.on_unseen, self.keep, self.unseen = on_unseen, keep, 0
        self.weights = one_signal(graph)
        self.plan: Plan = engine.plan(graph, bundle.tables(graph, engine.factors(graph)))
        self.groups: dict[str, list[str]] = {}
        for source in graph.sources:
            self.groups.setdefault(bundle.prior_key(graph, source), []).append(source)
        self.priors: Mapping[str, Prior] = {key: bundle.priors[key] for key in self.groups}
        self.length = prod(self.codec.token_shape)
        for key, prior in self.priors.items():
            if prior.alphabet != self.codec.alphabet:
                raise PriorError(
                    f"prior '{key}' has {prior.alphabet} tokens, the codec {self.codec.alphabet}: "
                    "train the prior on this codec's tokens."
                )
            if prior.length is not None and prior.length < self.length:
                raise PriorError(
                    f"prior '{key}' knows {prior.length} tokens, a signal has {self.length}."
                )

    def run(
        self,
        mixtures: Tensor,
        random: list[torch.Generator],
        progress: Callable[[int], None] | None,
    ) -> dict[str, Any]:
        """Separate mixtures [M, *signal], each with its own random stream; the fields of a
        `Separation` by name. progress: called with the number of positions done."""
        m, c = len(mixtures), self.search.candidates
        observed = self.codec.encode(mixtures)
        if observed.shape != (m, self.length):
            raise CodecError(f"expected tokens [{m}, {self.length}], got {list(observed.shape)}.")
        states = {
            key: self.priors[key].start(len(group) * m * c) for key, group in self.groups.items()
        }
        fed: dict[str, Tensor | None] = dict.fromkeys(self.groups)
        tokens = {name: observed.new_zeros(m, c, self.length) for name in self.graph.sources}
        evidence = torch.zeros(m, c, self.length)
        for t in range(self.length):
            log_priors: dict[str, Tensor] = {}
            for key, group in self.groups.items():
                log, states[key] = self.priors[key].step(fed[key], states[key])
                log = self.search.temper(log).reshape(len(group), m, c, -1)
                log_priors.update(zip(group, log, strict=True))
            wide = reduce(torch.promote_types, (log.dtype for log in log_priors.values()))
            log_priors = {name: log.to(wide) for name, log in log_priors.items()}
            try:
                found = self._position(observed[:, t], log_priors, random)
            except UnseenToken as error:
                raise UnseenToken(f"at position {t} of {self.length}: {error}") from error
            drawn, parents, evidence[..., t] = found
            if parents is not None:
                states = self._reorder(states, tokens, evidence, parents, t)
            for key, group in self.groups.items():
                fed[key] = torch.stack([drawn[name] for name in group]).flatten()
            for name in self.graph.sources:
                tokens[name][..., t] = drawn[name]
            if progress is not None:
                progress(t + 1)
        return self._choose(mixtures, tokens, evidence)

    def _position(
        self, observed: Tensor, log_priors: dict[str, Tensor], random: list[torch.Generator]
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """Tokens of one position, which candidate each continues, and the evidence [M, C]."""
        skip, evidence = self._evidence(observed)
        posterior = self.plan.posterior(log_priors, evidence)
        drawn, parents = self.search.step(posterior, random)
        log_evidence = posterior.log_evidence.float()
        if parents is not None:
            log_evidence = log_evidence.gather(1, parents)
        out = {name: drawn[name].clone() for name in self.graph.sources}
        # Where the tables leave a candidate nothing, it goes on from its priors alone. Only the
        # streams of such mixtures move on, so that their neighbours draw what they would alone.
        blind = skip[:, None] | (log_evidence == float("-inf"))
        rows = blind.any(1).nonzero()[:, 0]
        streams = [random[row] for row in rows.tolist()]
        for name, tokens in out.items() if streams else ():
            log_prior = log_priors[name][rows]
            if parents is not None:
                log_prior = log_prior.gather(1, parents[rows, :, None].expand_as(log_prior))
            tokens[rows] = torch.where(blind[rows], _from_prior(log_prior, streams), tokens[rows])
        return out, parents, torch.where(skip[:, None], 0.0, log_evidence)

    def _evidence(self, observed: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mixtures whose token is skipped, bool [M], and the tokens of each observed site, where a
        token that was seen stands in for a skipped one: its answer is dropped."""
        skip = torch.zeros(len(observed), dtype=torch.bool)
        evidence = dict.fromkeys(self.graph.observed, observed)
        if self.on_unseen == "prior":
            for seen in self.plan.seen.values():
                skip |= ~seen[observed]
            self.unseen += int(skip.sum())
            for name, seen in self.plan.seen.items():
                evidence[name] = torch.where(skip, int(seen.nonzero()[0, 0]), observed)
        return skip, evidence

    def _reorder(
        self,
        states: dict[str, Any],
        tokens: dict[str, Tensor],
        evidence: Tensor,
        parents: Tensor,
        t: int,
    ) -> dict[str, Any]:
        m, c = parents.shape
        rows = (torch.arange(m)[:, None] * c + parents).flatten()
        for values in (*tokens.values(), evidence):
            values[..., :t] = values[..., :t].flatten(0, 1)[rows].unflatten(0, (m, c))
        return {
            key: self.priors[key].reorder(
                state, torch.cat([rows + place * m * c for place in range(len(self.groups[key]))])
            )
            for key, state in states.items()
        }

    def _choose(
        self, mixtures: Tensor, tokens: dict[str, Tensor], evidence: Tensor
    ) -> dict[str, Any]:
        """Decode every candidate and choose the one nearest to its mixture."""
        decoded = {
            name: torch.stack([self.codec.decode(rows) for rows in value])
            for name, value in tokens.items()
        }
        mixed = torch.stack([w * decoded[name] for name, w in self.weights.items()]).sum(0)
        errors = (mixed - mixtures[:, None]).square().flatten(2).mean(2)
        chosen = errors.argmin(1)
        rows = torch.arange(len(mixtures))
        return {
            "signals": {name: value[rows, chosen] for name, value in decoded.items()},
            "tokens": {name: value[rows, chosen] for name, value in tokens.items()},
            "evidence": evidence,
            "errors": errors,
            "chosen": chosen,
            "candidates": decoded if self.keep else None,
            "candidate_tokens": tokens,
        }


def _from_prior(log_prior: Tensor, random: list[torch.Generator]) -> Tensor:
    m, c = log_prior.shape[:2]
    uniform = uniforms(random, m, c, 1).flatten()
    return draw(log_prior.exp().flatten(0, 1), uniform).reshape(m, c)
