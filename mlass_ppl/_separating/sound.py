"""Waveforms on their way into the token loop and out of it: length, level, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..codecs import AudioCodec, Codec
from ..errors import CodecError, OptionError, SignalError
from ..graph import MixingGraph
from .inputs import as_tensor, paths_in

if TYPE_CHECKING:
    from ..bundle import Bundle

_SILENT = 1e-5
"""RMS below which a mixture is left at its level."""

_LOUDEST = 1e12
"""Samples beyond it are taken for a mistake: 32 bits do not hold their squares for long."""


def read_waveforms(mixture: Any, codec: AudioCodec) -> tuple[Tensor, tuple[str, ...]]:
    """Mixtures float32 [M, 1, S], from whatever was given, with notices.

    mixture: waveforms [S], [1, S] or [M, 1, S] at the codec's rate, or a sound file or a list of
    them, which are read as mono and resampled.
    """
    if (paths := paths_in(mixture)) is not None:
        return _read_files(paths, codec)
    signals = as_tensor(mixture, "a waveform")
    given = list(signals.shape)
    if not signals.is_floating_point():
        raise SignalError(
            f"expected float samples with full scale 1, got {signals.dtype}. Divide 16-bit samples "
            "by 32768."
        )
    while 0 < signals.ndim < 3:
        signals = signals[None]
    if signals.ndim != 3 or signals.shape[1] != 1 or not signals.numel():
        raise SignalError(
            f"expected mono waveforms [S], [1, S] or [M, 1, S] with at least one sample, at "
            f"{codec.sample_rate:,} Hz; got {given}. Average the channels of a stereo signal, or "
            "separate_song(path, ...) for a recording of any kind and length."
        )
    if not torch.isfinite(signals).all():
        raise SignalError("the mixture holds NaN or infinite samples.")
    if (largest := float(signals.abs().max())) > _LOUDEST:
        raise SignalError(
            f"the mixture has samples of {largest:.2g}, where full scale is 1 and at most "
            f"{_LOUDEST:.0e} are taken. Were they read in the right format?"
        )
    return signals.float(), ()


def _read_files(paths: Any, codec: AudioCodec) -> tuple[Tensor, tuple[str, ...]]:
    from ..audio import read_audio

    if other := [path for path in paths if not isinstance(path, (str, Path))]:
        raise SignalError(
            f"expected paths only, or tensors only, got a path and a {type(other[0]).__name__}."
        )
    signals, notices = [], []
    for path in paths:
        audio = read_audio(path, rate=codec.sample_rate, mono=True)
        signals.append(audio.samples)
        notices += [f"{Path(path).name}: {notice}" for notice in audio.notices]
    if len({len(signal[0]) for signal in signals}) > 1:
        lengths = ", ".join(f"{len(signal[0]):,}" for signal in signals)
        raise SignalError(
            f"files that are separated together must be equally long, got {lengths} samples. "
            "Separate them one by one."
        )
    return torch.stack(signals), tuple(notices)


@dataclass(frozen=True)
class Sound:
    """How the waveforms of one call are brought to what a bundle was trained on, and back.

    length: samples of each. gains: what each mixture is multiplied by, float [M].
    """

    length: int
    gains: Tensor

    @classmethod
    def of(
        cls,
        observed: Mapping[str, Tensor],
        graph: MixingGraph,
        bundle: Bundle,
        level: float | None,
    ) -> Sound:
        """level: RMS of the recording that the mixtures are from (default: of each one its own).

        A bundle's card says how loud its sources were in training ("levels", RMS by prior); their
        mixture is brought to the level that theirs would have. Without that nothing is changed.
        """
        if level is not None and not (
            isinstance(level, int | float) and not isinstance(level, bool) and 0 < level <= _LOUDEST
        ):
            raise OptionError(
                f"level is the RMS of a recording, above 0 and at most {_LOUDEST:.0e}, or None; "
                f"got {level!r}."
            )
        first = next(iter(observed.values()))
        gains = torch.ones(len(first))
        levels = bundle.card.get("levels", {})
        keys = {source: bundle.prior_key(graph, source) for source in graph.sources}
        if levels.keys() >= set(keys.values()):
            expected = sqrt(sum(
                (weight * levels[keys[source]]) ** 2
                for name in observed
                for source, weight in graph.leaf_weights(name).items()
            ) / len(observed))  # fmt: skip
            together = torch.stack([signal.flatten(1) for signal in observed.values()])
            given = together.double().square().mean((0, 2)).sqrt().float()
            given = torch.full_like(given, level) if level is not None else given
            gains = torch.where(given > _SILENT, expected / given.clamp_min(_SILENT), gains)
        return cls(first.shape[-1], gains)

    def into(self, observed: Mapping[str, Tensor], hop: int) -> dict[str, Tensor]:
        """The signals, padded to a multiple of `hop` and at the bundle's level; sites that share a
        signal still share it."""
        missing = -self.length % hop
        parts = {
            id(signal): pad(signal * self.gains[:, None, None], (0, missing))
            for signal in observed.values()
        }
        return {name: parts[id(signal)] for name, signal in observed.items()}

    def out_of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a `Separation` at the length and the level that were given."""
        out = dict(fields)
        for name in ("signals", "candidates"):
            if out[name] is not None:
                out[name] = {key: self._restored(value) for key, value in out[name].items()}
        out["errors"] = out["errors"] / self.gains.to(out["errors"])[:, None].square()
        return out

    def _restored(self, signals: Tensor) -> Tensor:
        gains = self.gains.to(signals).reshape(-1, *[1] * (signals.ndim - 1))
        return signals[..., : self.length] / gains


def lasting(bundle: Bundle, samples: int) -> Bundle:
    """The bundle with its codecs made for signals of at least `samples` samples."""
    hop = _sound(bundle.codec).hop
    length = -(-samples // hop) * hop
    codecs = {key: _sound(codec).lasting(length) for key, codec in bundle.codecs.items()}
    return replace(bundle, codec=_sound(bundle.codec).lasting(length), codecs=codecs)


def _sound(codec: Codec) -> AudioCodec:
    if not isinstance(codec, AudioCodec):
        raise CodecError(
            f"{type(codec).__name__} is no audio codec, but another codec of the bundle is one: "
            "expected sample_rate, hop and lasting(samples)."
        )
    return codec
