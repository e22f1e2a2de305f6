"""The token loop: priors, engine and search, position by position, for one chunk of mixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..bundle import Bundle
from ..errors import UnseenToken
from ..estimate import Estimate, Expectation
from ..graph import MixingGraph
from ..infer import Engine, Plan, Posterior
from ..search import Search
from ..watch import Watch, Watched
from .estimating import Estimating, check_told_apart
from .expecting import Expecting
from .observations import Observer, unseen
from .pasts import SourcePriors
from .signals import interchangeable

Unseen = Literal["error", "prior"]


@dataclass
class _Counts:
    """skipped: observed tokens. asked, unsettled: rows of an iterative `engine`, and those that did
    not converge."""

    engine: Engine
    skipped: int = 0
    asked: int = 0
    unsettled: int = 0


class _Found(NamedTuple):
    """One position: the posterior of the candidates before it, which mixtures were skipped [M],
    tokens and parents of those after it, their weights and evidence [M, C]."""

    posterior: Posterior
    skip: Tensor
    tokens: dict[str, Tensor]
    parents: Tensor | None
    weights: Tensor
    evidence: Tensor


class TokenLoop:
    """One plan and its priors, run over chunks of mixtures.

    shares: how much each observed signal counts in a candidate's error. Raises the errors of
    planning, of `Observer` and of `SourcePriors`.
    """

    def __init__(
        self,
        graph: MixingGraph,
        bundle: Bundle,
        engine: Engine,
        search: Search,
        estimate: Estimate,
        on_unseen: Unseen,
        keep: bool,
        shares: Mapping[str, float],
    ) -> None:
        self.graph, self.search, self.on_unseen = graph, search, on_unseen
        groups = interchangeable(graph, bundle.prior_key)
        self._codecs = {name: bundle.codec_of(graph, name) for name in graph.sources}
        self._lag = estimate.lag if isinstance(estimate, Expectation) else None
        if self._lag is not None:
            check_told_apart(groups)
        self._estimated = Estimating(graph, self._codecs, estimate, groups, shares, keep)
        self.observer = Observer(graph, bundle)
        self.plan: Plan = engine.plan(graph, bundle.tables(graph, engine.factors(graph)))
        self.priors = SourcePriors(graph, bundle)
        self.length = self.observer.length
        self._counts: list[_Counts] = []
        self._engine = engine

    def run(
        self,
        observed: Mapping[str, Tensor],
        random: list[torch.Generator],
        progress: Callable[[int], None] | None,
        watch: Watch | None = None,
        first: int = 0,
    ) -> dict[str, Any]:
        """Separate mixtures {observed site: [M, *signal]}, each with its own random stream; the
        fields of a `Separation` by name. progress: called with the number of positions done. first:
        number of the first mixture, for `watch`."""
        m, c = len(random), self.search.candidates
        given = self.observer(observed)
        pasts = self.priors.start(m, c)
        drawn: dict[str, Tensor] | None = None
        history: list[tuple[dict[str, Tensor], Tensor | None, Tensor]] = []
        expecting = None if self._lag is None else Expecting(self._codecs, self._lag)
        weights, counts = self.search.start(m), _Counts(self._engine)
        log_prior = torch.zeros(m, c, dtype=torch.float64)
        for t in range(self.length):
            temper = partial(self.search.temper, position=t, length=self.length)
            log_priors = pasts.step(drawn, temper)
            if not t:  # everything follows the priors to their device
                device = next(iter(log_priors.values())).device
                weights, log_prior = weights.to(device), log_prior.to(device)
            here = {name: values[:, t] for name, values in given.items()}
            try:
                found = self._position(here, log_priors, random, weights, counts)
            except UnseenToken as error:
                raise UnseenToken(f"at position {t} of {self.length}: {error}") from error
            if expecting is not None:
                expecting.add(_marginals(found, log_priors), _told(found, weights), found.parents)
            drawn, parents, weights = found.tokens, found.parents, found.weights
            history.append((drawn, parents, found.evidence))
            if watch is not None:
                place = first, t, self.length
                watch(Watched(*place, found.posterior, drawn, parents, weights))
            told = pasts.score(drawn, parents)
            if parents is not None:
                log_prior = log_prior.gather(1, parents)
                rows = torch.arange(m, device=parents.device)[:, None] * c
                pasts.reorder((rows + parents).flatten())
            log_prior += told
            if progress is not None:
                progress(t + 1)
        del pasts, log_priors  # what comes now needs memory of its own
        tokens, evidence = _traced(history)
        expected = None if expecting is None else expecting.expected()
        self._counts.append(counts)  # a chunk that runs out of memory counts when it is done again
        return {
            **self._estimated(observed, tokens, log_prior, weights, expected),
            "candidate_tokens": tokens,
            "evidence": evidence,
            "log_prior": log_prior,
            "log_weights": weights,
        }

    def notices(self) -> tuple[str, ...]:
        """What the user should know of the positions so far, each told once."""
        out = []
        if skipped := sum(counts.skipped for counts in self._counts):
            out.append(f"{skipped} observed tokens never occur in the tables and were skipped.")
        if unsettled := sum(counts.unsettled for counts in self._counts):
            asked = sum(counts.asked for counts in self._counts)
            out.append(
                f"{unsettled / asked:.1%} of the token positions ({unsettled:,} of {asked:,}, over "
                f"all candidates) did not converge: {self._counts[-1].engine!r} answers "
                "approximately there. Allow more steps or more damping."
            )
        return tuple(out)

    def _position(
        self,
        evidence: dict[str, Tensor],
        log_priors: dict[str, Tensor],
        random: list[torch.Generator],
        weights: Tensor,
        counts: _Counts,
    ) -> _Found:
        """One position of mixtures that have each its own random stream."""
        skip = torch.zeros(len(random), dtype=torch.bool, device=weights.device)
        if self.on_unseen == "prior":
            skip, evidence = unseen(self.graph, self.plan.seen, evidence)
            counts.skipped += int(skip.sum())
            skip = skip.to(weights.device)
        posterior = self.plan.posterior(log_priors, evidence)
        drawn, parents, now = self.search.step(posterior, random, weights)
        _note(posterior, skip, counts)
        if parents is not None and skip.any():  # a skipped position prefers no candidate
            own = torch.arange(parents.shape[1], device=parents.device)
            parents = torch.where(skip[:, None], own, parents)
        weights = torch.where(skip[:, None], weights, now)
        log_evidence = posterior.log_evidence.float()
        if parents is not None:
            log_evidence = log_evidence.gather(1, parents)
        out = {name: drawn[name] for name in self.graph.sources}
        # Where the tables leave a candidate nothing, or the engine finds nothing that they leave,
        # it goes on from its priors alone. Only the streams of such mixtures move on, so that their
        # neighbours draw what they would alone.
        blind = skip[:, None] | (log_evidence == float("-inf"))
        blind = blind | (torch.stack(list(out.values())) < 0).any(0)
        rows = blind.any(1).nonzero()[:, 0]
        streams = [random[row] for row in rows.tolist()]
        for name in out if streams else ():
            log_prior = log_priors[name][rows]
            if parents is not None:
                log_prior = log_prior.gather(1, parents[rows, :, None].expand_as(log_prior))
            onwards = self.search.blind(log_prior, streams)
            out[name] = out[name].clone()
            out[name][rows] = torch.where(blind[rows], onwards, out[name][rows])
        told = torch.where(skip[:, None], 0.0, log_evidence)
        return _Found(posterior, skip, out, parents, weights, told)


def _traced(
    history: list[tuple[dict[str, Tensor], Tensor | None, Tensor]],
) -> tuple[dict[str, Tensor], Tensor]:
    """Tokens {source: int64 [M, C, T]} and evidence [M, C, T] of the last candidates, each followed
    back through those that it continues.

    history: of each position, tokens, parents and evidence [M, C].
    """
    line: Tensor | None = None
    tokens: dict[str, list[Tensor]] = {name: [] for name in history[0][0]}
    evidence: list[Tensor] = []
    for drawn, parents, told in reversed(history):
        for name, own in drawn.items():
            tokens[name].append(own if line is None else own.gather(1, line))
        evidence.append(told if line is None else told.gather(1, line))
        if parents is not None:
            line = parents if line is None else parents.gather(1, line)
    found = {name: torch.stack(own[::-1], 2) for name, own in tokens.items()}
    return found, torch.stack(evidence[::-1], 2)


def _told(found: _Found, weights: Tensor) -> Tensor:
    """Log weights [M, C] of the candidates before a position with the evidence of it."""
    told = weights + found.posterior.log_evidence.to(weights)
    lost = found.skip | (told == float("-inf")).all(1)
    return torch.where(lost[:, None], weights, told)


def _marginals(found: _Found, log_priors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """p(token) of each source [M, C, K]; by its prior alone where a mixture is skipped or the
    tables leave a candidate nothing."""
    marginals, out = found.posterior.marginals(), {}
    for name, log_prior in log_priors.items():
        own = marginals[name]
        alone = found.skip[:, None, None] | (own.sum(-1, keepdim=True) <= 0)
        out[name] = torch.where(alone, log_prior.exp().to(own), own)
    return out


def _note(posterior: Posterior, skip: Tensor, counts: _Counts) -> None:
    """Count the positions, less the skipped ones, at which an iterative engine did not settle."""
    if posterior.converged is not None:
        counts.engine = posterior.plan.engine  # which `Auto` may have picked
        settled = posterior.converged.to(skip.device)[~skip]
        counts.asked += settled.numel()
        counts.unsettled += int((~settled).sum())
