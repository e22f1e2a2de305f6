"""From tokens to signals: the candidates of each mixture decoded, compared and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..codecs import Codec
from ..estimate import Candidates, Estimate
from ..graph import MixingGraph
from .chunks import join
from .signals import mixed


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
    ) -> dict[str, Any]:
        """Signals, errors and the chosen candidate of mixtures {observed site: [M, *signal]} with
        candidates {source: int64 [M, C, T]}, as the fields of a `Separation`.

        Mixture by mixture: only the candidates of one are decoded at once, and their rounding
        depends on no other.
        """
        parts = []
        for row in range(len(weights)):
            one = slice(row, row + 1)
            decoded = {
                name: self.codecs[name].decode(own[row])[None] for name, own in tokens.items()
            }
            errors = self._errors({name: signal[one] for name, signal in observed.items()}, decoded)
            candidates = Candidates(decoded, errors, log_prior[one], weights[one], self.groups)
            chosen = self.estimate.choose(candidates)
            part = {
                "signals": self.estimate.signals(candidates, chosen),
                "tokens": {name: own[one, int(chosen)] for name, own in tokens.items()},
                "errors": errors,
                "chosen": chosen,
                "candidates": decoded if self.keep else None,
            }
            parts.append(part)
        joined: dict[str, Any] = join(parts)
        return joined

    def _errors(self, observed: Mapping[str, Tensor], decoded: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error between the candidates' mixtures and what was observed, [M, C]."""
        out = []
        for name, share in self.shares.items():
            mixtures = mixed(decoded, self.graph.leaf_weights(name))
            error = (mixtures - observed[name][:, None]).square().flatten(2).mean(2)
            out.append(share * error)
        return torch.stack(out).sum(0)
