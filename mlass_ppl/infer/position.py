"""One token position, checked and laid out in rows: what every engine works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import EngineError, UnseenToken
from ..graph import MixingGraph
from ..tables.feature import FeatureTable
from .base import AnyTable


@dataclass(frozen=True)
class Position:
    """M mixtures x C candidates as R rows that share nothing, row-major.

    shape: (M, C). mixture: int64 [R], the mixture of each row. unary: log weights [R, K] of latent
    sites: the priors of sources, and soft evidence; other latent sites are absent. known: tokens
    int64 [R] of the observed sites that have one. likelihood: log p(feature | parents) of each
    factor with a feature, nats, [M, K_parent1, ...].
    """

    shape: tuple[int, int]
    mixture: Tensor
    unary: Mapping[str, Tensor]
    known: Mapping[str, Tensor]
    likelihood: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.mixture)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and device of the answers."""
        return next(iter(self.unary.values()))

    def rows(self, index: Tensor) -> Position:
        """The position of some rows, int64 [R'] (with repetitions, if so wanted)."""
        return replace(
            self,
            mixture=self.mixture[index],
            unary={name: log[index] for name, log in self.unary.items()},
            known={name: tokens[index] for name, tokens in self.known.items()},
        )

    def of(self, parents: Tensor) -> Position:
        """The position whose row (m, c) is row (m, parents[m, c]) of this one; int64 [M, C']."""
        first = torch.arange(self.shape[0], device=parents.device)[:, None] * self.shape[1]
        shape = (parents.shape[0], parents.shape[1])
        return replace(self.rows((first + parents).flatten()), shape=shape)

    def double(self) -> Position:
        """The position in 64 bits."""
        return replace(
            self,
            unary={name: log.double() for name, log in self.unary.items()},
            likelihood={name: log.double() for name, log in self.likelihood.items()},
        )

    def spread(self) -> float:
        """How far the finite log weights of all sites lie apart at most, nats."""
        if self.likelihood:
            return float("inf")
        total = 0.0
        for log in self.unary.values():
            finite = log[log > float("-inf")]
            total += float(finite.max() - finite.min()) if len(finite) else 0.0
        return total

    def weighted(self, weights: Mapping[str, Tensor]) -> Position:
        """With more log weights [R, K] on some latent sites."""
        unary = dict(self.unary)
        for name, log in weights.items():
            unary[name] = unary[name] + log if name in unary else log
        return replace(self, unary=unary)


def check_position(
    graph: MixingGraph,
    tables: Mapping[str, AnyTable],
    sizes: Mapping[str, int],
    seen: Mapping[str, Tensor],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, Tensor],
) -> Position:
    """Check one position's input and lay it out.

    tables: by factor name. sizes: {site: K}. seen: {site with a given token: bool [K]}, the tokens
    that have any probability. Raises EngineError on ill-shaped input and UnseenToken.
    """
    shape = _check_priors(graph, sizes, log_priors)
    # Densities of features lie hundreds of nats apart, beyond what 32 bits hold.
    dtype = torch.float64 if graph.features else log_priors[graph.sources[0]].dtype
    unary = {name: log_priors[name].flatten(0, 1).to(dtype) for name in graph.sources}
    like = unary[graph.sources[0]]
    mixture = torch.arange(shape[0], device=like.device).repeat_interleave(shape[1])
    for name in graph.observed:
        if name not in evidence:
            raise EngineError(f"evidence lacks '{name}'; given are {sorted(evidence)}.")
    known = {}
    for name in graph.known:
        tokens = evidence[name].to(like.device)
        _check_tokens(name, tokens, shape[0], sizes[name], seen.get(name))
        known[name] = tokens.long()[mixture]
    for name in graph.soft:
        log = evidence[name]
        _check_floats(name, log, (shape[0], sizes[name]), "log weights over its tokens, Soft()")
        _refuse({f"evidence['{name}']": log}, "log weights")
        unary[name] = log.to(like)[mixture]
    likelihood: dict[str, Tensor] = {}
    for factor in graph.factors:
        if factor.feature and isinstance(table := tables.get(factor.name), FeatureTable):
            feature = evidence[factor.child].to(like.device)
            log = log_likelihood(factor.child, table, feature, shape[0])
            likelihood[factor.name] = log.to(like)
    return Position(shape, mixture, unary, known, likelihood)


def log_likelihood(name: str, table: FeatureTable, feature: Tensor, mixtures: int) -> Tensor:
    """log p(feature | parents) of the feature [M, D] observed at a site, nats, float64
    [M, K_parent1, ...]. Raises EngineError unless the feature is finite and of that shape."""
    check_feature(name, table, feature, mixtures)
    return table.log_likelihood(feature.double())


def check_feature(name: str, table: FeatureTable, feature: Tensor, mixtures: int) -> None:
    """Raises EngineError unless the feature [M, D] observed at a site is finite and of the table's
    width."""
    _check_floats(name, feature, (mixtures, table.width), "a feature, Feature()")
    if not torch.isfinite(feature).all():
        raise EngineError(f"evidence['{name}'] must be finite features.")


def _check_priors(
    graph: MixingGraph, sizes: Mapping[str, int], log_priors: Mapping[str, Tensor]
) -> tuple[int, int]:
    rows: tuple[int, int] | None = None
    for name in graph.sources:
        if name not in log_priors:
            raise EngineError(f"log_priors lacks '{name}'; given are {sorted(log_priors)}.")
        prior = log_priors[name]
        size = sizes.get(name, prior.shape[-1])
        if prior.ndim != 3 or prior.shape[2] != size:
            raise EngineError(
                f"log_priors['{name}'] must be [M, C, {size}], got {list(prior.shape)}."
            )
        if rows is None:
            rows = (prior.shape[0], prior.shape[1])
        elif rows != (prior.shape[0], prior.shape[1]):
            raise EngineError(
                f"log_priors['{name}'] has {list(prior.shape[:2])} rows, others {list(rows)}."
            )
    given = {f"log_priors['{name}']": log_priors[name] for name in graph.sources}
    _refuse(given, "log probabilities")
    assert rows is not None  # a graph has a source
    return rows


def _check_tokens(name: str, tokens: Tensor, mixtures: int, size: int, seen: Tensor | None) -> None:
    if tokens.shape != (mixtures,) or tokens.is_floating_point():
        raise EngineError(
            f"evidence['{name}'] must be {mixtures} integer tokens, one a mixture; got "
            f"{tokens.dtype} {list(tokens.shape)}. For weights over tokens declare "
            f"mix('{name}', ..., evidence=Soft())."
        )
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
        raise EngineError(
            f"evidence['{name}'] must lie in [0, {size}), got "
            f"[{int(tokens.min())}, {int(tokens.max())}]."
        )
    if seen is not None and not (ok := seen.to(tokens.device)[tokens]).all():
        token = int(tokens[~ok][0])
        raise UnseenToken(
            f"token {token} of '{name}' never occurs in its table, under any parents (seen: "
            f"{int(seen.sum())} of {size} tokens). Smooth the table, count more mixtures, or pass "
            "on_unseen='prior'."
        )


def _check_floats(name: str, values: Tensor, shape: tuple[int, int], what: str) -> None:
    if values.shape != shape or not values.is_floating_point():
        raise EngineError(
            f"evidence['{name}'] must be {what}: floats {list(shape)}; got {values.dtype} "
            f"{list(values.shape)}."
        )


def _refuse(values: Mapping[str, Tensor], what: str) -> None:
    """Raises EngineError where some hold NaN or +inf: the largest number of each tells, and one
    look at those of all, for which a device waits once."""
    tops = [
        value.amax().double() if value.numel() else value.new_zeros(()).double()
        for value in values.values()
    ]
    for name, top in zip(values, torch.stack(tops).tolist(), strict=True):
        if not top < float("inf"):
            raise EngineError(f"{name} holds NaN or +inf; expected {what}.")
