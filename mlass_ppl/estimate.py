"""How the candidates of a mixture become one separation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial, prod
from typing import Protocol

import torch
from torch import Tensor

from .errors import OptionError

_MOST = 720
"""Orders of interchangeable sources that are tried one by one: six sources."""


@dataclass(frozen=True)
class Candidates:
    """C separations of each of M mixtures.

    signals: as decoded, {source: [M, C, *signal]}. errors: mean squared error between each
    candidate's mixtures and what was observed, [M, C]. log_prior: of each candidate's tokens, nats
    [M, C]. log_weights: of the search, normalised over the candidates or not, [M, C].
    interchangeable: groups of sources that program and priors treat alike, so that exchanging
    their signals gives another candidate just as good. expected: signals of the expected latents,
    {source: [M, *signal]}, where the estimate is `Expectation`.
    """

    signals: Mapping[str, Tensor]
    errors: Tensor
    log_prior: Tensor
    log_weights: Tensor
    interchangeable: Sequence[Sequence[str]] = ()
    expected: Mapping[str, Tensor] | None = None

    def of(self, chosen: Tensor) -> dict[str, Tensor]:
        """Signals {source: [M, *signal]} of one candidate of each mixture, int64 [M]."""
        rows = torch.arange(len(chosen), device=chosen.device)
        return {name: values[rows, chosen] for name, values in self.signals.items()}


class Estimate(Protocol):
    """Frozen configuration of what a separation answers."""

    def choose(self, candidates: Candidates) -> Tensor:
        """The candidate whose tokens the separation reports, int64 [M]."""
        ...

    def signals(self, candidates: Candidates, chosen: Tensor) -> dict[str, Tensor]:
        """The estimate of each source, {source: [M, *signal]}."""
        ...


@dataclass(frozen=True)
class Nearest:
    """The candidate whose decoded mixture comes nearest to what was observed, as LASS takes."""

    def choose(self, candidates: Candidates) -> Tensor:
        return candidates.errors.argmin(1)

    def signals(self, candidates: Candidates, chosen: Tensor) -> dict[str, Tensor]:
        return candidates.of(chosen)


@dataclass(frozen=True)
class MostProbable:
    """The candidate of the largest log p(tokens) + log N(observed; its mixture, std^2 I).

    std: of one number of the signal, in the signal's units; small ones weigh the mixture's error
    more and end at `Nearest`.
    """

    std: float = 0.05

    def __post_init__(self) -> None:
        _check_positive("MostProbable(std=...)", self.std)

    def choose(self, candidates: Candidates) -> Tensor:
        size = prod(next(iter(candidates.signals.values())).shape[2:])
        fit = candidates.errors.double() * size / (2 * self.std**2)
        return (candidates.log_prior.double() - fit).argmax(1)

    def signals(self, candidates: Candidates, chosen: Tensor) -> dict[str, Tensor]:
        return candidates.of(chosen)


@dataclass(frozen=True)
class Mean:
    """The posterior mean of the signals: all candidates averaged by the weights of the search.

    It has the least expected squared error of all estimates, and with it the best PSNR to be
    expected (the minimum mean square error estimate), and is as blurred as the posterior is wide.
    Interchangeable sources are first put into the order that comes nearest to the chosen
    candidate's, the one nearest to what was observed; without that the mean of a candidate and of
    its mirror image would be the mixture.
    """

    def choose(self, candidates: Candidates) -> Tensor:
        return candidates.errors.argmin(1)

    def signals(self, candidates: Candidates, chosen: Tensor) -> dict[str, Tensor]:
        shares = candidates.log_weights.double().softmax(1)
        # A search that lost every weight has no opinion: all of its candidates count alike.
        shares = torch.where(shares.isnan().any(1, keepdim=True), 1 / shares.shape[1], shares)
        ordered, first = dict(candidates.signals), candidates.of(chosen)
        for group in candidates.interchangeable:
            if len(group) > 1:
                ordered |= _ordered({name: ordered[name] for name in group}, first)
        return {
            name: torch.einsum("mc,mc...->m...", shares.to(values), values)
            for name, values in ordered.items()
        }


@dataclass(frozen=True)
class Expectation:
    """The posterior mean of the latents, decoded: at each position every candidate's marginals
    count in full, not only the token that it drew.

    A Rao-Blackwellised `Mean` (Casella and Robert, 1996): candidates of `SMC` that descend from one
    parent no longer agree on a token that the posterior leaves open. Candidates are weighted by the
    evidence up to `lag` positions later (fixed-lag smoothing; Kitagawa, 1996). The tokens that are
    reported are those of the candidate nearest to what was observed.

    `separate` raises OptionError where sources are interchangeable, of one prior and weight: their
    marginals are alike, and so would be their means.
    """

    lag: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.lag, bool) or not isinstance(self.lag, int) or self.lag < 0:
            raise OptionError(
                f"Expectation(lag=...) is a number of positions, 0 or more, got {self.lag!r}."
            )

    def choose(self, candidates: Candidates) -> Tensor:
        return candidates.errors.argmin(1)

    def signals(self, candidates: Candidates, chosen: Tensor) -> dict[str, Tensor]:
        if candidates.expected is None:
            raise OptionError(
                "Expectation() needs the marginals of every position, which only separate() knows: "
                "use Mean() for candidates of your own."
            )
        return dict(candidates.expected)


def _ordered(signals: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Signals of interchangeable sources [M, C, ...] in the order nearest to `first` [M, ...]."""
    names = list(signals)
    if factorial(len(names)) > _MOST:
        raise OptionError(
            f"Mean() orders at most six interchangeable sources, got {len(names)}. Use Nearest()."
        )
    stacked = torch.stack([signals[name] for name in names], 2)  # [M, C, n, ...]
    targets = torch.stack([first[name] for name in names], 1)  # [M, n, ...]
    # Squared distances less what all orders share: only the product of the two differs.
    near = torch.einsum("mcid,mjd->mcij", stacked.flatten(3), targets.flatten(2))
    orders = torch.tensor(list(permutations(range(len(names)))), device=near.device)
    places = torch.arange(len(names), device=near.device)
    best = orders[near[:, :, orders, places].sum(-1).argmax(-1)]  # [M, C, n]
    index = best.reshape(*best.shape, *[1] * (stacked.ndim - 3)).expand_as(stacked)
    return dict(zip(names, stacked.gather(2, index).unbind(2), strict=True))


def _check_positive(what: str, value: float) -> None:
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise OptionError(f"{what} must be positive and finite, got {value!r}.")
