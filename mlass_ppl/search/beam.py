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
from ._continue import Continuations, Expander, ranks
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
    approximately. Where fewer than `width` separations are possible, the rest are copies of the
    best one, of log weight -inf, which are not continued. Nothing is drawn, so that the seed
    changes nothing; `on_unseen="prior"` and positions that no candidate explains take the priors'
    most probable tokens and leave the weights as they are.

    groups: parts of equal width, each a beam of its own that pays, at each position, `diversity`
    nats for every candidate of an earlier group that took the same token: diverse beam search with
    the Hamming penalty (Vijayakumar et al., 2016, arXiv:1610.02424). Of sources that are mixed
    alike (the same prior, label and weights at every observed site) all count, so that swapped
    sources (a, b) and (b, a) are no diversity. The penalty decides what is kept and is no part of
    the weights. A group that the tables rule out begins again at the best candidate of the others.

    temperature, top_k, top_p: of each source's prior, see `Tempered`. Needs an engine that finds
    the most probable assignment of a part (`JointPlan`: `BP`, `Exact`, `LoopyBP`, `Auto`).

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
        # Before the first position all candidates are alike: one of each group is continued.
        first = torch.arange(self.width) % (self.width // self.groups) == 0
        return torch.where(first, 0.0, _NEVER).double().repeat(mixtures, 1)

    def step(self, posterior: Posterior, random: Random, weights: Tensor) -> Step:
        if not isinstance(plan := posterior.plan, JointPlan):
            raise EngineError(
                f"{plan.engine!r} cannot tell the most probable continuations of a beam: use "
                "BP(), Exact() or Auto(), or another search, such as Greedy() or Sample()."
            )
        expander = Expander(plan, posterior.position)
        (m, c), size = weights.shape, self.width // self.groups
        sources = plan.graph.sources
        chosen = torch.full((m, c, 1 + len(sources)), -1, device=weights.device)
        scores = torch.full_like(weights, _NEVER)
        rivals = _Rivals(plan, sources, m)
        slot = torch.arange(c, device=weights.device)
        for group in range(self.groups):
            mine = (slot // size == group) & (weights > _NEVER)
            penalty = rivals.penalty(self.diversity) if group else {}
            found = expander.best(mine.flatten().nonzero()[:, 0], weights.flatten(), size, penalty)
            mixture = expander.mixture(found.row)
            place = group * size + ranks(mixture)
            chosen[mixture, place, 0] = found.row % c
            chosen[mixture, place, 1:] = found.tokens
            scores[mixture, place] = found.score
            if self.groups > 1:
                rivals.add(mixture, found)
        chosen, scores = _filled(chosen, scores, self.groups)
        # Evidence that no candidate explains prefers none of them.
        stuck = (chosen[..., 0] < 0).all(1, keepdim=True)
        parents = torch.where(stuck, slot, chosen[..., 0])
        tokens = {name: chosen[..., 1 + axis] for axis, name in enumerate(sources)}
        return Step(tokens, parents, torch.where(stuck, weights, scores))

    def blind(self, log_prior: Tensor, random: Random) -> Tensor:
        """The prior's most probable token."""
        return log_prior.argmax(-1)


class _Rivals:
    """How often the candidates of earlier groups took each token at this position."""

    def __init__(self, plan: JointPlan, sources: tuple[str, ...], mixtures: int) -> None:
        self._kinds, self._sources = alike(plan.graph), sources
        size = max(plan.sizes[name] for name in sources)
        self._sizes = plan.sizes
        self._taken = torch.zeros(max(self._kinds.values()) + 1, mixtures, size)

    def add(self, mixture: Tensor, found: Continuations) -> None:
        for axis, name in enumerate(self._sources):
            taken = self._taken[self._kinds[name]]
            taken.index_put_((mixture, found.tokens[:, axis]), torch.ones(()), accumulate=True)

    def penalty(self, diversity: float) -> dict[str, Tensor]:
        return {
            name: diversity * self._taken[kind][:, : self._sizes[name]]
            for name, kind in self._kinds.items()
        }


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


def _filled(chosen: Tensor, scores: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Candidates [M, C, ...] without a continuation become copies of their group's best, of weight
    -inf; a group without any goes on from the best of all."""
    scores, chosen = scores.unflatten(1, (groups, -1)), chosen.unflatten(1, (groups, -1))
    lead, own = scores[..., 0].clone(), chosen[:, :, 0].clone()  # the best of a group is its first
    lost, every = lead == _NEVER, torch.arange(len(lead), device=lead.device)
    best = lead.argmax(1)
    lead = torch.where(lost, lead[every, best][:, None], lead)
    own = torch.where(lost[..., None], own[every, best][:, None], own)
    scores = torch.cat([lead[..., None], scores[..., 1:]], 2)
    chosen = torch.where((scores == _NEVER)[..., None], own[:, :, None], chosen)
    chosen = torch.cat([own[:, :, None], chosen[:, :, 1:]], 2)
    return chosen.flatten(1, 2), scores.flatten(1, 2)
