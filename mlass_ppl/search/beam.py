"""Beam search: the most probable partial separations, by their exact joint probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EngineError, OptionError
from ..graph import MixingGraph, Source
from ..infer.base import Posterior
from ..infer.joint import JointPlan
from ..infer.random import Random
from ._continue import Continuations, Continuer, Expander, ranks
from ._listed import Lister, Weighted
from ._temper import Tempered
from .base import Step

_NEVER = float("-inf")


@dataclass(frozen=True, repr=False)
class Beam(Tempered):
    """The `width` partial separations of the largest log p(sources, observed), nats, at each
    position, from all continuations of those kept before; the best one first.

    The scores are exact: log weights are sums over the positions of log p(tokens, observed | past)
    under the tempered priors, with partial mixtures summed out. So is the choice where the sources
    are the only latent sites: a width of at least the number of possible separations finds the
    most probable of all. Where a mixture is latent (`chain(3)`, `Soft`), continuations are looked
    for together with their best partial mixtures, twice as many as are kept. `LoopyBP` scores
    approximately, and `Truncated` knows its lists alone. No separation is there twice: where fewer
    than `width` are possible, the rest are copies of the best one, of log weight -inf, which are
    not continued. Nothing is drawn, so that the seed changes nothing; `on_unseen="prior"` and
    positions that no candidate explains take the priors' most probable tokens and leave the weights
    as they are.

    groups: parts of equal width, each a beam of its own that pays, at each position, `diversity`
    nats for every candidate of an earlier group that took the same token: diverse beam search with
    the Hamming penalty (Vijayakumar et al., 2016, arXiv:1610.02424). Of sources that are mixed
    alike (the same prior, label and weights at every observed site) all count, so that swapped
    sources (a, b) and (b, a) are no diversity. The penalty decides what is kept and is no part of
    the weights. What an earlier group keeps a later one leaves out, unlike in the paper. A group
    that has nothing, as at the first position or where the tables rule it out, goes on from the
    best candidate of all.

    temperature, top_k, top_p: of each source's prior, see `Tempered`. Needs an engine that finds
    the most probable assignment of a part (`JointPlan`: `BP`, `Exact`, `LoopyBP`, `Auto`), or, for
    sources directly under what is observed, one that lists the most probable (`Truncated`).

    Raises OptionError on a value out of range, EngineError with another engine.
    """

    width: int = 64
    groups: int = 1
    diversity: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise OptionError(f"Beam({name}=...) is a whole number, at least 1, got {value!r}.")
        if self.width % self.groups:
            raise OptionError(
                f"Beam(width={self.width}) cannot be parted into {self.groups} groups of equal "
                f"width: take a width of {self.groups * (self.width // self.groups + 1)}."
            )
        if not 0 <= self.diversity < float("inf"):
            raise OptionError(
                f"Beam(diversity=...) is in nats, at least 0, got {self.diversity!r}."
            )

    @property
    def candidates(self) -> int:
        return self.width

    def start(self, mixtures: int) -> Tensor:
        # Before the first position all candidates are alike: one of them is continued.
        first = torch.arange(self.width) == 0
        return torch.where(first, 0.0, _NEVER).double().repeat(mixtures, 1)

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        continuer, sources = _continuer(posterior, self.groups), posterior.graph.sources
        (m, c), size = weights.shape, self.width // self.groups
        chosen = torch.full((m, c, 1 + len(sources)), -1, device=weights.device)
        scores = torch.full_like(weights, _NEVER)
        rivals = _Rivals(posterior, m)
        slot, best = torch.arange(c, device=weights.device), weights.argmax(1, keepdim=True)
        for group in range(self.groups):
            mine = (slot // size == group) & (weights > _NEVER)
            mine = torch.where(mine.any(1, keepdim=True), mine, slot == best)
            rows = mine.flatten().nonzero()[:, 0]
            taken = rivals.taken(rows)
            count = size + (taken.row // c).bincount(minlength=m)
            penalty = rivals.penalty(self.diversity) if group else {}
            found = continuer.best(rows, weights.flatten(), count, penalty).without(taken)
            place = ranks(found.row // c)
            found, place = found.of(place < size), place[place < size]
            mixture = found.row // c
            chosen[mixture, group * size + place, 0] = found.row % c
            chosen[mixture, group * size + place, 1:] = found.tokens
            scores[mixture, group * size + place] = found.score
            if self.groups > 1:
                rivals.add(mixture, found)
        # Candidates without a continuation become copies of the best one, of weight -inf.
        lead = chosen[torch.arange(m, device=chosen.device), scores.argmax(1)]
        chosen = torch.where((scores == _NEVER)[..., None], lead[:, None], chosen)
        # Evidence that no candidate explains prefers none of them.
        stuck = (chosen[..., 0] < 0).all(1, keepdim=True)
        parents = torch.where(stuck, slot, chosen[..., 0])
        tokens = {name: chosen[..., 1 + axis] for axis, name in enumerate(sources)}
        return Step(tokens, parents, torch.where(stuck, weights, scores))

    def blind(self, log_prior: Tensor, random: Random) -> Tensor:
        """The prior's most probable token."""
        return log_prior.argmax(-1)


def _continuer(posterior: Posterior, groups: int) -> Continuer:
    """What finds the best continuations of a posterior's candidates."""
    if isinstance(plan := posterior.plan, JointPlan):
        return Expander(plan, posterior.position)
    lists = type(posterior).topk is not Posterior.topk
    if not lists or set(posterior.graph.latent) != set(posterior.graph.sources):
        raise EngineError(
            f"{plan.engine!r} cannot tell the most probable continuations of a beam: use "
            "BP(), Exact() or Auto(), or another search, such as Greedy() or Sample()."
        )
    if groups > 1 and not isinstance(posterior, Weighted):
        raise EngineError(
            f"{plan.engine!r} cannot weigh tokens anew, which the groups of a beam ask for: use "
            "Beam(groups=1), BP() or Exact()."
        )
    return Lister(posterior)


class _Rivals:
    """What earlier groups keep of this position."""

    def __init__(self, posterior: Posterior, mixtures: int) -> None:
        sizes, self._sources = posterior.plan.sizes, posterior.graph.sources
        self._kinds = alike(posterior.graph)
        self._sizes = {name: sizes[name] for name in self._sources}
        kinds, size = max(self._kinds.values()) + 1, max(self._sizes.values())
        self._times = torch.zeros(kinds, mixtures, size)  # each token was taken
        self._kept: list[Continuations] = []

    def add(self, mixture: Tensor, found: Continuations) -> None:
        self._kept.append(found)
        for axis, name in enumerate(self._sources):
            times = self._times[self._kinds[name]]
            times.index_put_((mixture, found.tokens[:, axis]), torch.ones(()), accumulate=True)

    def penalty(self, diversity: float) -> dict[str, Tensor]:
        return {
            name: diversity * self._times[kind][:, : self._sizes[name]]
            for name, kind in self._kinds.items()
        }

    def taken(self, rows: Tensor) -> Continuations:
        """What is kept of these rows, int64 [R]."""
        none = Continuations(
            rows.new_zeros(0),
            rows.new_zeros(0, len(self._sources)),
            torch.zeros(0, dtype=torch.float64, device=rows.device),
        )
        kept = Continuations.joined([none, *self._kept])
        return kept.of(torch.isin(kept.row, rows))


def alike(graph: MixingGraph) -> dict[str, int]:
    """{source: number of its kind}: sources of one kind have the same prior and label and, at every
    observed site, the same weight, so that swapping them changes nothing that is heard."""
    kinds: dict[tuple[object, ...], int] = {}
    out = {}
    for name in graph.sources:
        site = graph.site(name)
        assert isinstance(site, Source)
        weights = (round(graph.leaf_weights(heard).get(name, 0.0), 6) for heard in graph.observed)
        out[name] = kinds.setdefault((site.prior, site.label, *weights), len(kinds))
    return out
