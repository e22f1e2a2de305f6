"""What a mixture still says of its stems once their tokens are known."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._separating.signals import Weights, mixed
from ..codecs import AudioVQ
from ..errors import OptionError
from .base import Progress, Refinement, check_weights

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..separation import Separation

_LEAST = 1e-20


@dataclass(frozen=True)
class Conditional(Refinement):
    """The stems' posterior mean given their tokens and the mixture, frame by frame.

    A codec of sound knows how far frames lie from what is decoded (`AudioVQ.deviations`), token by
    token and frequency by frequency. Taking these rests as independent Gaussians, what the decoded
    stems leave of the mixture belongs to each stem in the ratio of its variance: the stems then sum
    to the mixture, and are not bound by what the codec can say. After `Expectation` the variances
    are those of the whole posterior (`Separation.variances`): where it leaves tokens open, more of
    the rest is theirs. Of a program with several observed
    signals the first one is shared out.
    """

    @staticmethod
    def suits(bundle: Bundle) -> bool:
        """Whether the codecs of all the bundle's priors know their deviations."""
        codecs = (bundle.codecs.get(key, bundle.codec) for key in bundle.priors)
        return all(isinstance(codec, AudioVQ) and codec.deviations.any() for codec in codecs)

    def check(self, bundle: Bundle) -> None:
        """Raises OptionError where a codec of the bundle knows no deviations."""
        for key in bundle.priors:
            _codec(bundle, key)

    def __call__(
        self,
        bundle: Bundle,
        signals: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        weights: Weights,
        observed: Mapping[str, Tensor],
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """As `Refinement`, of waveforms [M, 1, S] at any level. Sources are called by the keys of
        their priors, or the bundle has only one; else OptionError (`apply` knows the graph)."""
        codecs = {name: _codec(bundle, _key(bundle, name)) for name in signals}
        out = _shared_out(codecs, signals, _left_open(codecs, tokens), weights, observed)
        if progress is not None:
            progress(len(next(iter(out.values()))), len(next(iter(out.values()))))
        return out

    def apply(self, found: Separation, bundle: Bundle) -> Separation:
        """As `Refinement.apply`, whatever the sources are called."""
        began = time.perf_counter()
        graph = found.graph
        codecs = {name: _codec(bundle, bundle.prior_key(graph, name)) for name in graph.sources}
        weights = {site: graph.leaf_weights(site) for site in found.observed}
        parts = found.variances or _left_open(codecs, found.tokens)
        refined = _shared_out(codecs, found.signals, parts, weights, found.observed)
        return replace(found, refined=refined, refine_seconds=time.perf_counter() - began)


@torch.no_grad()
def _shared_out(
    codecs: Mapping[str, AudioVQ],
    signals: Mapping[str, Tensor],
    variances: Mapping[str, Tensor],
    weights: Weights,
    observed: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The signals with what they leave of the first observed one, in the ratio of variances."""
    check_weights(signals, weights)
    site, own = next(iter(weights.items()))
    some = codecs[next(iter(own))]
    length, cosines = observed[site].shape[-1], some.cosines
    rest = observed[site] - mixed({name: signals[name] for name in own}, own)
    frames = pad(rest, (0, -length % some.hop))[:, 0].unflatten(1, (-1, some.hop)) @ cosines
    parts = {
        name: (weight / codecs[name].config.gain) ** 2 * variances[name]
        for name, weight in own.items()
    }
    whole = torch.stack(list(parts.values())).sum(0).clamp_min(_LEAST)
    out = dict(signals)
    for name, weight in own.items():
        added = (parts[name] / whole * frames) @ cosines.T / weight
        out[name] = signals[name] + added.flatten(1)[:, None, :length]
    return out


def _left_open(codecs: Mapping[str, AudioVQ], tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Variances [M, T, hop] of the frames whose tokens [M, T] are known."""
    return {name: codecs[name].deviations[own].square() for name, own in tokens.items()}


def _key(bundle: Bundle, source: str) -> str:
    if source in bundle.priors or len(bundle.priors) == 1:
        return source if source in bundle.priors else next(iter(bundle.priors))
    raise OptionError(
        f"which codec source '{source}' has is not known here: bundle '{bundle.name}' has the "
        f"priors {sorted(bundle.priors)}. Use separate(..., refine=Conditional()), which knows the "
        "program."
    )


def _codec(bundle: Bundle, key: str) -> AudioVQ:
    codec = bundle.codecs.get(key, bundle.codec)
    if not isinstance(codec, AudioVQ) or not codec.deviations.any():
        raise OptionError(
            f"Conditional() needs the deviations that an AudioVQ measures (fit_deviations), but "
            f"the codec of '{key}' in bundle '{bundle.name}' has none. Leave it out, or use "
            "Wiener() as the post-filter."
        )
    return codec
