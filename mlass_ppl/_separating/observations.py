"""The evidence at each observed site: signals encoded as a graph declares."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..bundle import Bundle
from ..codecs import Codec, encode_features, encode_tokens, encode_weights, tokens_of
from ..errors import CodecError
from ..evidence import Evidence, Feature, Soft
from ..graph import MixingGraph


class Observer:
    """Encodes observed signals as the evidence that a graph declares.

    Raises CodecError when the codec of an observed site does not fit the sources' codec, and
    BundleError when the bundle has none of its key.
    """

    def __init__(self, graph: MixingGraph, bundle: Bundle) -> None:
        self.graph = graph
        self.codecs = {name: _codec(graph, bundle, name) for name in graph.observed}
        self.length = tokens_of(bundle.codec)

    def __call__(self, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Evidence of signals {site: [M, *signal]} at all positions: {site: tokens [M, T], log
        weights [M, T, K] or features [M, T, D]}."""
        known: dict[tuple[int, int, Evidence], Tensor] = {}
        out = {}
        for name in self.graph.observed:
            codec, evidence, signals = self.codecs[name], self.graph.evidence(name), observed[name]
            key = (id(codec), id(signals), evidence)
            if key not in known:  # of many extractors of one signal, one is encoded
                known[key] = _encode(codec, evidence, signals)
            out[name] = known[key]
        return out


def unseen(
    graph: MixingGraph, seen: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mixtures with a token that no table entry explains, bool [M], and the evidence with a token
    that was seen in place of theirs, since their answer is dropped.

    seen: {site: bool [K]}. Only sites whose evidence is a token can have one.
    """
    out = dict(evidence)
    skip = torch.zeros(len(next(iter(out.values()))), dtype=torch.bool)
    names = [name for name in graph.known if name in seen]
    for name in names:
        skip |= ~seen[name][evidence[name]]
    for name in names:
        out[name] = torch.where(skip, int(seen[name].nonzero()[0, 0]), evidence[name])
    return skip, out


def _codec(graph: MixingGraph, bundle: Bundle, name: str) -> Codec:
    codec = bundle.codec_of(graph, name)
    if codec.signal_shape != bundle.codec.signal_shape:
        raise CodecError(
            f"site '{name}' is encoded by a codec of its own, which takes signals "
            f"{list(codec.signal_shape)}; the sources' codec gives "
            f"{list(bundle.codec.signal_shape)}. Use codecs of one signal."
        )
    if tokens_of(codec) != tokens_of(bundle.codec):
        raise CodecError(
            f"site '{name}' is encoded by a codec of its own, to {tokens_of(codec)} tokens a "
            f"signal; the sources have {tokens_of(bundle.codec)}. Use codecs of one token rate."
        )
    return codec


def _encode(codec: Codec, evidence: Evidence, signals: Tensor) -> Tensor:
    if isinstance(evidence, Feature):
        return encode_features(codec, signals)
    if isinstance(evidence, Soft):
        # normalised again, so that small temperatures approach the hard token, evidence included
        return (encode_weights(codec, signals) / evidence.temperature).log_softmax(-1)
    return encode_tokens(codec, signals)
