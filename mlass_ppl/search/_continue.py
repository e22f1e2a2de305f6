"""The best continuations of many partial separations together, by runs of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..infer.joint import JointPlan, Kind, Pass, largest
from ..infer.position import Position

_NEVER = float("-inf")


@dataclass(frozen=True)
class Continuations:
    """N continuations, those of one mixture together, the best first.

    row: of the position, which candidate is continued, int64 [N]. tokens: of the sources [N, S].
    score: log weight of the candidate + log p(tokens, evidence | its past), nats, float64 [N].
    """

    row: Tensor
    tokens: Tensor
    score: Tensor

    def of(self, index: Tensor) -> Continuations:
        return Continuations(self.row[index], self.tokens[index], self.score[index])

    def without(self, taken: Continuations) -> Continuations:
        """Those that are not in `taken`."""
        if not len(taken.row):
            return self
        both = torch.cat([torch.cat([own.row[:, None], own.tokens], 1) for own in (taken, self)])
        kind = both.unique(dim=0, return_inverse=True)[1]
        return self.of(~torch.isin(kind[len(taken.row) :], kind[: len(taken.row)]))

    @classmethod
    def joined(cls, parts: list[Continuations]) -> Continuations:
        return cls(
            torch.cat([part.row for part in parts]),
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.score for part in parts]),
        )


class Continuer(Protocol):
    """One position, asked for continuations by a search. Its rows are the candidates, those of one
    mixture together."""

    def best(
        self, rows: Tensor, weights: Tensor, count: Tensor, penalty: Mapping[str, Tensor]
    ) -> Continuations:
        """The best of each mixture, `count` of them, int64 [M], or as many as are possible.

        rows: candidates to continue, int64 [R], in order. weights: log weights of all rows of the
        position, float64. penalty: {source: nats [M, K]}, taken off the score for the choice alone.
        """
        ...


class Expander:
    """Of a plan that runs (`JointPlan`), at one position."""

    def __init__(self, plan: JointPlan, position: Position) -> None:
        self.plan, self.position = plan, position
        self.sources = plan.graph.sources
        self._sizes = [plan.sizes[name] for name in self.sources]
        self._alone = set(plan.graph.latent) == set(self.sources)

    def best(
        self, rows: Tensor, weights: Tensor, count: Tensor, penalty: Mapping[str, Tensor]
    ) -> Continuations:
        """As every `Continuer`.

        Exact where the sources are the only latent sites. Where others are, continuations are
        looked for by their probability together with the best tokens of those, twice as many as
        asked for; of these the best are chosen by the exact score, all others summed out.
        """
        place = self.position
        if penalty:
            off = {name: -log.to(place.like)[place.mixture] for name, log in penalty.items()}
            place = place.weighted(off)
        found = self._pool(place, rows, weights, count if self._alone else 2 * count)
        mixture = self._mixture(found.row)
        fine = fines(penalty, self.sources, mixture, found)
        score = found.score + fine
        if not self._alone:
            clamped = torch.nn.functional.one_hot(found.tokens, max(self._sizes)).bool()
            runs = self._runs(self.position, found.row, clamped, "sum")
            log = [run.log_evidence.to(score) for run in runs]
            score = weights[found.row] + torch.cat([score.new_zeros(0), *log])
        order = leading(mixture, score - fine, count)
        return Continuations(found.row, found.tokens, score).of(order)

    def _pool(self, place: Position, rows: Tensor, weights: Tensor, count: Tensor) -> Continuations:
        """The `count` [M] best of each mixture by the best tokens of all latent sites.

        Every candidate is a part of what is open. The best of a part is known; everything else in
        it falls into one part for each source: the sources before it as in the best, this one
        different, those after it free (Lawler, 1972). A part whose best is not among the `count`
        best known of its mixture holds none of them, so all others are split until none is left.
        """
        device, parts_of = rows.device, len(self.sources)
        token = torch.arange(max(self._sizes), device=device)
        size = torch.tensor(self._sizes, device=device)
        allowed = (token < size[:, None]).expand(len(rows), -1, -1)
        split = torch.zeros(len(rows), dtype=torch.bool, device=device)
        found = self._first(place, rows, weights, allowed)
        site = torch.arange(parts_of, device=device)
        before, here = (site < site[:, None])[..., None], (site == site[:, None])[..., None]
        while True:
            order = leading(self._mixture(found.row), found.score, count)
            found, allowed, split = found.of(order), allowed[order], split[order]
            if split.all():
                return found
            row, inside = found.row[~split], allowed[~split][:, None]  # [N, 1, S, K]
            own = found.tokens[~split][:, None, :, None] == token
            parts = inside & torch.where(before, own, ~(here & own))  # [N, part, S, K]
            some = parts.any(-1).all(-1)
            parts, row = parts[some], row[:, None].expand(-1, parts_of)[some]
            fresh = self._first(place, row, weights, parts)
            found = Continuations.joined([found, fresh])
            allowed = torch.cat([allowed, parts])
            split = torch.cat([torch.ones_like(split), torch.zeros_like(row, dtype=torch.bool)])

    def _first(
        self, place: Position, row: Tensor, weights: Tensor, allowed: Tensor
    ) -> Continuations:
        """The best of each part: rows [N] with the tokens that they allow [N, S, K]."""
        tokens, score = [row.new_zeros(0, len(self.sources))], [weights.new_zeros(0)]
        for run in self._runs(place, row, allowed, "max"):
            found = run.descend(largest)
            tokens.append(torch.stack([found[name] for name in self.sources], 1).to(row))
            score.append(run.log_evidence.to(weights))
        best, log = torch.cat(tokens), torch.cat(score)
        log = log.masked_fill((best < 0).any(1), _NEVER)
        return Continuations(row, best, weights[row] + log)

    def _runs(self, place: Position, row: Tensor, allowed: Tensor, kind: Kind) -> Iterator[Pass]:
        """Runs over rows [N] and the tokens that they allow [N, S, K]; no run has more rows than
        the position, so that it takes no more memory than a posterior did."""
        for begin in range(0, len(row), len(self.position)):
            part = slice(begin, begin + len(self.position))
            clamp = torch.where(allowed[part], 0.0, _NEVER).to(place.like)
            inside = {
                name: clamp[:, axis, :size]
                for axis, (name, size) in enumerate(zip(self.sources, self._sizes, strict=True))
            }
            yield self.plan.run(place.rows(row[part]).weighted(inside), kind)

    def _mixture(self, row: Tensor) -> Tensor:
        return row // self.position.shape[1]


def fines(
    penalty: Mapping[str, Tensor], sources: tuple[str, ...], mixture: Tensor, found: Continuations
) -> Tensor:
    """What each continuation pays, nats [N]."""
    total = torch.zeros_like(found.score)
    for axis, name in enumerate(sources):
        if name in penalty:
            total = total + penalty[name].to(total)[mixture, found.tokens[:, axis]]
    return total


def leading(mixture: Tensor, score: Tensor, count: Tensor) -> Tensor:
    """The places of the `count` [M] best possible ones of each mixture, in order."""
    order = score.argsort(descending=True, stable=True)
    order = order[score[order] > _NEVER]
    order = order[mixture[order].argsort(stable=True)]
    return order[ranks(mixture[order]) < count[mixture[order]]]


def ranks(group: Tensor) -> Tensor:
    """How many of the same group stand before each one, int64 [N]; groups stand together."""
    place = torch.arange(len(group), device=group.device)
    return place - torch.searchsorted(group.contiguous(), group.contiguous())
