"""Where EnCodec, DAC and Mimi keep their levels, encoder and decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CodecError


class ResidualModel(ABC):
    """A codec that quantises in levels, each of them what the ones before left over (residual
    vector quantisation; Zeghidour et al., 2021), asked for one level at a time."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.config: Any = model.config

    def lacking(self) -> str | None:
        """Why a model cannot be a codec of mono signals by tokens alone; None where it can."""
        channels = getattr(self.config, "audio_channels", 1)
        return None if channels == 1 else f"it codes {channels} channels together"

    @property
    def hop(self) -> int:
        """Samples of one token: by the strides, since published configurations may name another
        `hop_length` (that of dac_24khz says 512, where it is 320)."""
        return prod(self.config.upsampling_ratios)

    @property
    @abstractmethod
    def levels(self) -> int: ...

    @abstractmethod
    def codes(self, level: int) -> Tensor:
        """The codes of a level, float [K, width]."""

    @abstractmethod
    def encode(self, signals: Tensor, level: int) -> Tensor:
        """Tokens int64 [B, T] of signals [B, 1, samples]."""

    @abstractmethod
    def embed(self, tokens: Tensor, level: int) -> Tensor:
        """What a level adds to the decoder's input, float [B, D, T], of tokens [B, T]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Signals [B, 1, about samples] of the decoder's input [B, D, T]; differentiable."""
        signals: Tensor = self.model.decoder(latents)
        return signals


class _Encodec(ResidualModel):
    """Défossez et al., High Fidelity Neural Audio Compression (2022)."""

    def lacking(self) -> str | None:
        if self.config.normalize:
            return "it keeps the loudness of a signal beside the tokens (normalize=True)"
        if self.config.chunk_length_s is not None:
            return (
                f"it codes overlapping chunks of {self.config.chunk_length_s} s (chunk_length_s), "
                "so that a position has several tokens"
            )
        return super().lacking()

    @property
    def levels(self) -> int:
        return max(map(self._levels_by, self.config.target_bandwidths))

    def codes(self, level: int) -> Tensor:
        codes: Tensor = self.model.quantizer.layers[level].codebook.embed
        return codes

    def encode(self, signals: Tensor, level: int) -> Tensor:
        enough = min(b for b in self.config.target_bandwidths if self._levels_by(b) > level)
        out = self.model.encode(signals, bandwidth=enough, return_dict=True)
        tokens: Tensor = out.audio_codes[0, :, level]
        return tokens

    def embed(self, tokens: Tensor, level: int) -> Tensor:
        latents: Tensor = self.model.quantizer.layers[level].decode(tokens)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        # In evaluation mode cuDNN's LSTM has no gradient; the one without it has.
        without = torch.backends.cudnn.flags(enabled=False)
        with without if torch.is_grad_enabled() else nullcontext():
            return super().decode(latents)

    def _levels_by(self, bandwidth: float) -> int:
        quantizer = self.model.quantizer
        return min(quantizer.get_num_quantizers_for_bandwidth(bandwidth), len(quantizer.layers))


class _Dac(ResidualModel):
    """Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN (2023)."""

    @property
    def levels(self) -> int:
        return len(self.model.quantizer.quantizers)

    def codes(self, level: int) -> Tensor:
        codes: Tensor = self.model.quantizer.quantizers[level].codebook.weight
        return codes

    def encode(self, signals: Tensor, level: int) -> Tensor:
        out = self.model.encode(signals, n_quantizers=level + 1, return_dict=True)
        tokens: Tensor = out.audio_codes[:, level]
        return tokens

    def embed(self, tokens: Tensor, level: int) -> Tensor:
        quantizer = self.model.quantizer.quantizers[level]
        latents: Tensor = quantizer.out_proj(quantizer.codebook(tokens).transpose(1, 2))
        return latents


class _Mimi(ResidualModel):
    """Défossez et al., Moshi: a speech-text foundation model for real-time dialogue (2024)."""

    def lacking(self) -> str | None:
        if self.model.encoder is None or self.model.decoder is None:
            return "it was loaded without its encoder or its decoder"
        return super().lacking()

    @property
    def hop(self) -> int:
        rate, slower = self.config.encodec_frame_rate, self.config.frame_rate
        return super().hop * int(rate / slower)

    @property
    def levels(self) -> int:
        return int(self.config.num_quantizers)

    def codes(self, level: int) -> Tensor:
        codes: Tensor = self._layer(level)[1].codebook.embed
        return codes

    def encode(self, signals: Tensor, level: int) -> Tensor:
        needed = max(level + 1, self.config.num_semantic_quantizers)
        for each in range(needed):
            self._layer(each)
        out = self.model.encode(
            signals, num_quantizers=needed, use_streaming=False, return_dict=True
        )
        tokens: Tensor = out.audio_codes[:, level]
        return tokens

    def embed(self, tokens: Tensor, level: int) -> Tensor:
        quantizer, layer = self._layer(level)
        latents: Tensor = layer.decode(tokens)
        return latents if quantizer.output_proj is None else quantizer.output_proj(latents)

    def decode(self, latents: Tensor) -> Tensor:
        model, decoder = self.model, self.model.decoder
        if hasattr(decoder, "decoder_seanet"):
            signals: Tensor = decoder(latents).audio_values
            return signals
        # Before the decoder became a model of its own, transformers kept its parts apart.
        frames = model.decoder_transformer(model.upsample(latents).transpose(1, 2))[0]
        return super().decode(frames.transpose(1, 2))

    def _layer(self, level: int) -> tuple[Any, Any]:
        """The quantiser that a level is in, the semantic or the acoustic one, and its layer."""
        both, semantic = self.model.quantizer, self.config.num_semantic_quantizers
        quantizer = both.semantic_residual_vector_quantizer
        if level >= semantic:
            quantizer, level = both.acoustic_residual_vector_quantizer, level - semantic
        layer = quantizer.layers[level]
        # A layer keeps its codes from their first use on, whatever device or weights come after.
        layer.codebook._embed = None
        return quantizer, layer


_KINDS: dict[str, type[ResidualModel]] = {"encodec": _Encodec, "dac": _Dac, "mimi": _Mimi}
"""By the `model_type` of a configuration."""


def check_kind(config: Any) -> type[ResidualModel]:
    """What reads a model of this configuration. Raises CodecError where nothing does."""
    kind = getattr(config, "model_type", None)
    if kind not in _KINDS:
        raise CodecError(
            f"a model of type {kind!r} is no codec that is known here; expected one of "
            f"{', '.join(map(repr, _KINDS))}, as EncodecModel, DacModel or MimiModel."
        )
    return _KINDS[kind]
