"""The best few candidates refined, and the choice among them after that."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._separating.signals import Weights, importance, interchangeable, mixed
from ..errors import OptionError
from ..estimate import Candidates, Estimate, Nearest
from .base import Progress, Refinement
from .learned import Learned

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..separation import Separation


@dataclass(frozen=True)
class BestOf(Refinement):
    """Refines several candidates of each mixture and chooses among them after that.

    What comes nearest to the mixture as decoded need not be what refines best. count: how many
    candidates of each mixture, the best as `Separation.ranking` has them; a mixture with fewer
    distinct ones has those. refine: what refines each of them (default `Learned()`). estimate:
    whose `choose` takes the one to keep, by the refined sources' mixture error, the log prior of
    their tokens and the weights of the search: `Nearest()` or `MostProbable(std)`.

    For answers that are to be one candidate: of digits the posterior mean, refined once, is nearer
    to the truth.

    Memory is that of `count` times as many mixtures, which `refine` divides into batches.

    Raises OptionError on a count below 1.
    """

    count: int = 4
    refine: Refinement = Learned()
    estimate: Estimate = Nearest()

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise OptionError(
                f"BestOf(count=...) must be a whole number, at least 1, got {self.count!r}."
            )
        for name, takes in (
            ("refine", "a refinement: BestOf(refine=Learned())"),
            ("estimate", "an estimate: BestOf(estimate=Nearest())"),
        ):
            value = getattr(self, name)
            if isinstance(value, (str, type)):
                raise OptionError(f"BestOf({name}=...) takes {takes}; got {value!r}.")

    def check(self, bundle: Bundle) -> None:
        """Raise what `refine` raises for a bundle."""
        self.refine.check(bundle)

    def __call__(
        self,
        bundle: Bundle,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        weights: Weights,
        observed: Mapping[str, Tensor],
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Of one candidate of each mixture, that there is no choice of: what `refine` answers."""
        return self.refine(bundle, signals, tokens, weights, observed, progress)

    @torch.no_grad()
    def apply(
        self, found: Separation, bundle: Bundle, progress: Progress | None = None
    ) -> Separation:
        """The separation of the candidates that are best after refinement: `refined`, and what they
        are as decoded in `signals`, `tokens` and `chosen`.

        progress: called with (done, total) in candidates. Raises the errors of `refine`.
        """
        began = time.perf_counter()
        best = found.ranking(self.count)
        best = torch.where(best < 0, best[:, :1], best)  # copies of the first: no other choice
        row = torch.arange(len(best))[:, None]
        tokens = {name: kept[row, best] for name, kept in found.candidate_tokens.items()}
        flat = {name: kept.flatten(0, 1) for name, kept in tokens.items()}
        decoded = {name: bundle.codec.decode(kept) for name, kept in flat.items()}
        observed = {
            site: given.repeat_interleave(self.count, 0) for site, given in found.observed.items()
        }
        weights = {site: found.graph.leaf_weights(site) for site in observed}
        signals = self.refine(bundle, decoded, flat, weights, observed, progress)
        errors = torch.stack(
            [
                share * (mixed(signals, weights[site]) - observed[site]).square().flatten(1).mean(1)
                for site, share in importance(weights, observed).items()
            ]
        ).sum(0)
        refined = Candidates(
            {name: values.unflatten(0, best.shape) for name, values in signals.items()},
            errors.reshape(best.shape),
            found.log_prior[row, best],
            found.log_weights[row, best],
            interchangeable(found.graph, bundle.prior_key),
        )
        place = self.estimate.choose(refined)
        every = torch.arange(len(best))
        return replace(
            found,
            chosen=best[every, place],
            tokens={name: kept[every, place] for name, kept in tokens.items()},
            signals={
                name: values.unflatten(0, best.shape)[every, place]
                for name, values in decoded.items()
            },
            refined=refined.of(place),
            refine_seconds=time.perf_counter() - began,
        )
