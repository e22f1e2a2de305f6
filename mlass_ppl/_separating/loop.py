"""The token loop: priors, engine and search, position by position, for one chunk of mixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..bundle import Bundle
from ..errors import UnseenToken
from ..estimate import Candidates, Estimate
from ..graph import MixingGraph
from ..infer import Engine, Plan, Posterior
from ..search import Search
from .observations import Observer, unseen
from .pasts import SourcePriors
from .signals import importance, interchangeable, mixed

Unseen = Literal["error", "prior"]


class TokenLoop:
    """One plan and its priors, run over chunks of mixtures.

    Raises the errors of planning, of `Observer` and of `SourcePriors`.
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
    ) -> None:
        self.graph, self.codec, self.search = graph, bundle.codec, search
        self.estimate, self.on_unseen, self.keep = estimate, on_unseen, keep
        self._groups = interchangeable(graph, bundle.prior_key)
        self.observer = Observer(graph, bundle)
        self.plan: Plan = engine.plan(graph, bundle.tables(graph, engine.factors(graph)))
        self.priors = SourcePriors(graph, bundle)
        self.length = self.observer.length
        self._skipped = self._asked = self._unsettled = 0
        self._engine = engine

    def run(
        self,
        observed: Mapping[str, Tensor],
        random: list[torch.Generator],
        progress: Callable[[int], None] | None,
    ) -> dict[str, Any]:
        """Separate mixtures {observed site: [M, *signal]}, each with its own random stream; the
        fields of a `Separation` by name. progress: called with the number of positions done."""
        m, c = len(random), self.search.candidates
        given = self.observer(observed)
        pasts = self.priors.start(m, c)
        drawn: dict[str, Tensor] | None = None
        tokens = {
            name: torch.zeros(m, c, self.length, dtype=torch.int64) for name in self.graph.sources
        }
        evidence, weights = torch.zeros(m, c, self.length), self.search.start(m)
        log_prior = torch.zeros(m, c, dtype=torch.float64)
        for t in range(self.length):
            temper = partial(self.search.temper, position=t, length=self.length)
            log_priors = pasts.step(drawn, temper)
            here = {name: values[:, t] for name, values in given.items()}
            try:
                found = self._position(here, log_priors, random, weights)
            except UnseenToken as error:
                raise UnseenToken(f"at position {t} of {self.length}: {error}") from error
            drawn, parents, weights, evidence[..., t] = found
            told = pasts.score(drawn, parents)
            if parents is not None:
                log_prior = log_prior.gather(1, parents)
                rows = (torch.arange(m)[:, None] * c + parents).flatten()
                for values in (*tokens.values(), evidence):
                    values[..., :t] = values[..., :t].flatten(0, 1)[rows].unflatten(0, (m, c))
                pasts.reorder(rows)
            log_prior += told
            for name in self.graph.sources:
                tokens[name][..., t] = drawn[name]
            if progress is not None:
                progress(t + 1)
        decoded = {
            name: torch.stack([self.codec.decode(rows) for rows in value])
            for name, value in tokens.items()
        }
        candidates = Candidates(
            decoded, self._errors(observed, decoded), log_prior, weights, self._groups
        )
        chosen = self.estimate.choose(candidates)
        every = torch.arange(m)
        return {
            "signals": self.estimate.signals(candidates, chosen),
            "tokens": {name: value[every, chosen] for name, value in tokens.items()},
            "errors": candidates.errors,
            "chosen": chosen,
            "candidates": decoded if self.keep else None,
            "candidate_tokens": tokens,
            "evidence": evidence,
            "log_prior": log_prior,
            "log_weights": weights,
        }

    def notices(self) -> tuple[str, ...]:
        """What the user should know of the positions so far, each told once."""
        out = []
        if self._skipped:
            out.append(
                f"{self._skipped} observed tokens never occur in the tables and were skipped."
            )
        if self._unsettled:
            out.append(
                f"{self._unsettled / self._asked:.1%} of the token positions ({self._unsettled:,} "
                f"of {self._asked:,}, over all candidates) did not converge: {self._engine!r} "
                "answers approximately there. Allow more steps or more damping."
            )
        return tuple(out)

    def _position(
        self,
        evidence: dict[str, Tensor],
        log_priors: dict[str, Tensor],
        random: list[torch.Generator],
        weights: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor, Tensor]:
        """Tokens of one position, which candidate each continues, the candidates' weights and the
        evidence [M, C]."""
        skip = torch.zeros(len(random), dtype=torch.bool)
        if self.on_unseen == "prior":
            skip, evidence = unseen(self.graph, self.plan.seen, evidence)
            self._skipped += int(skip.sum())
        posterior = self.plan.posterior(log_priors, evidence)
        drawn, parents, now = self.search.step(posterior, random, weights)
        self._note(posterior, skip)
        if parents is not None and skip.any():  # a skipped position prefers no candidate
            parents = torch.where(skip[:, None], torch.arange(parents.shape[1]), parents)
        weights = torch.where(skip[:, None], weights, now)
        log_evidence = posterior.log_evidence.float()
        if parents is not None:
            log_evidence = log_evidence.gather(1, parents)
        out = {name: drawn[name].clone() for name in self.graph.sources}
        # Where the tables leave a candidate nothing, or the engine finds nothing that they leave,
        # it goes on from its priors alone. Only the streams of such mixtures move on, so that their
        # neighbours draw what they would alone.
        blind = skip[:, None] | (log_evidence == float("-inf"))
        blind = blind | (torch.stack(list(out.values())) < 0).any(0)
        rows = blind.any(1).nonzero()[:, 0]
        streams = [random[row] for row in rows.tolist()]
        for name, tokens in out.items() if streams else ():
            log_prior = log_priors[name][rows]
            if parents is not None:
                log_prior = log_prior.gather(1, parents[rows, :, None].expand_as(log_prior))
            onwards = self.search.blind(log_prior, streams)
            tokens[rows] = torch.where(blind[rows], onwards, tokens[rows])
        return out, parents, weights, torch.where(skip[:, None], 0.0, log_evidence)

    def _note(self, posterior: Posterior, skip: Tensor) -> None:
        """Count the positions, less the skipped ones, at which an iterative engine did not
        settle."""
        if posterior.converged is not None:
            self._engine = posterior.plan.engine  # which `Auto` may have picked
            settled = posterior.converged.cpu()[~skip]
            self._asked += settled.numel()
            self._unsettled += int((~settled).sum())

    def _errors(self, observed: Mapping[str, Tensor], decoded: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error between the candidates' mixtures and what was observed, [M, C]."""
        weights = {name: self.graph.leaf_weights(name) for name in observed}
        return torch.stack(
            [
                share * _errors(mixed(decoded, weights[name]), observed[name])
                for name, share in importance(weights, observed).items()
            ]
        ).sum(0)


def _errors(mixtures: Tensor, signals: Tensor) -> Tensor:
    """Mean squared error of the candidates' mixtures [M, C, *signal], [M, C]."""
    return (mixtures - signals[:, None]).square().flatten(2).mean(2)
