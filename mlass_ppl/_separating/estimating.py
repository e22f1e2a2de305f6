"""From tokens to signals: the candidates of each mixture decoded, compared and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codecs import AudioCodec, Codec
from ..errors import OptionError
from ..estimate import Candidates, Estimate, Expectation, Mean
from ..graph import MixingGraph
from .chunks import join
from .expecting import Expected, decoded
from .signals import interchangeable, mixed

if TYPE_CHECKING:
    from ..bundle import Bundle


@dataclass(frozen=True)
class Estimating:
    """codecs: of each source. groups: of interchangeable sources. shares: how much each observed
    signal counts in a candidate's error. keep: whether the candidates' signals are part of the
    result."""

    graph: MixingGraph
    codecs: Mapping[str, Codec]
    estimate: Estimate
    groups: Sequence[Sequence[str]]
    shares: Mapping[str, float]
    keep: bool

    def __call__(
        self,
        observed: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        log_prior: Tensor,
        weights: Tensor,
        expected: Mapping[str, Expected] | None = None,
    ) -> dict[str, Any]:
        """Signals, errors and the chosen candidate of mixtures {observed site: [M, *signal]} with
        candidates {source: int64 [M, C, T]}, as the fields of a `Separation`. expected: where the
        estimate is of them.

        Mixture by mixture: only the candidates of one are decoded at once, and their rounding
        depends on no other.
        """
        parts = []
        means = _decoded(self.codecs, expected)
        for row in range(len(weights)):
            one = slice(row, row + 1)
            signals = {
                name: self.codecs[name].decode(own[row])[None] for name, own in tokens.items()
            }
            errors = self._errors({name: signal[one] for name, signal in observed.items()}, signals)
            mean = None if means is None else {name: own[one] for name, own in means.items()}
            told = log_prior[one], weights[one]
            candidates = Candidates(signals, errors, *told, self.groups, mean)
            chosen = self.estimate.choose(candidates)
            part = {
                "signals": self.estimate.signals(candidates, chosen),
                "tokens": {name: own[one, int(chosen)] for name, own in tokens.items()},
                "errors": errors,
                "chosen": chosen,
                "candidates": signals if self.keep else None,
            }
            parts.append(part)
        joined: dict[str, Any] = join(parts)
        known = {
            name: own.variances
            for name, own in (expected or {}).items()
            if own.variances is not None
        }
        return joined | {"variances": known if known.keys() == tokens.keys() else None}

    def _errors(self, observed: Mapping[str, Tensor], decoded: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error between the candidates' mixtures and what was observed, [M, C]."""
        out = []
        for name, share in self.shares.items():
            mixtures = mixed(decoded, self.graph.leaf_weights(name))
            error = (mixtures - observed[name][:, None]).square().flatten(2).mean(2)
            out.append(share * error)
        return torch.stack(out).sum(0)


def posterior_mean(graph: MixingGraph, bundle: Bundle) -> Estimate:
    """What `separate` answers by default."""
    groups = interchangeable(graph, bundle.prior_key)
    apart = all(len(group) == 1 for group in groups)
    return Expectation() if apart and isinstance(bundle.codec, AudioCodec) else Mean()


def check_told_apart(groups: Sequence[Sequence[str]]) -> None:
    """Raise OptionError where sources are interchangeable: their expectations would be alike."""
    for group in groups:
        if len(group) > 1:
            raise OptionError(
                f"Expectation() needs sources that can be told apart, but {list(group)} have the "
                "same prior and weight, so that their marginals are alike: use Mean(), which puts "
                "the candidates into one order first, or give the sources labels."
            )


def _decoded(
    codecs: Mapping[str, Codec], expected: Mapping[str, Expected] | None
) -> dict[str, Tensor] | None:
    """Signals {source: [M, *signal]} of the expected latents."""
    if expected is None:
        return None
    return {name: torch.cat(list(decoded(codecs[name], own))) for name, own in expected.items()}
