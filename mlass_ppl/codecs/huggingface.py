"""Hugging Face's neural audio codecs as codecs of one token a position."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import CodecError, SignalError
from ._residual import check_kind

_AT_ONCE = 1 << 19
"""Samples that the networks see at once, 22 s at 24 kHz: their widest layers hold some hundred
numbers for each."""


class HuggingFaceCodec(nn.Module):
    """One level of EnCodec, DAC or Mimi (`transformers`), as an `AudioCodec`.

    model: an `EncodecModel`, `DacModel` or `MimiModel` of mono sound. samples: length of a signal,
    a positive multiple of the model's hop. codebook: the level, 0 being the first.

    Such codecs say each position in several tokens, level by level: the first is the coarsest, each
    further one says what those before it left over, that is ever finer detail. A source here has
    one token a position, so that one level is taken, and `decode` makes sound of that level alone.
    Of the first level that is a rough signal; what further ones carry is lost, and has to come from
    the mixture (`mlass_ppl.audio.Wiener`). A later level on its own is a remainder, and what the
    decoder makes of it is no likeness of the sound. Mimi's first level is its semantic one, which
    learnt what is said rather than how it sounds; the coarsest of its sound is the level
    `config.num_semantic_quantizers`, 1 as published.

    Signals float [B, 1, samples], full scale 1, at `sample_rate`; tokens int64 [B, T] with
    T = samples / hop; latents float [B, D, T] are what the level adds to the decoder's input. The
    level is chosen as the model does, so that its own `encode` gives the same tokens.

    Raises CodecError on another model, one that is not mono, keeps more of a signal than tokens or
    has no such level, SignalError on an impossible length.
    """

    def __init__(self, model: nn.Module, *, samples: int, codebook: int = 0) -> None:
        super().__init__()
        self._parts = parts = check_kind(getattr(model, "config", None))(model)
        if reason := parts.lacking():
            raise CodecError(
                f"this {type(model).__name__} cannot be a codec here: {reason}. Take a mono model, "
                "as facebook/encodec_24khz, descript/dac_44khz or kyutai/mimi."
            )
        if not isinstance(codebook, int) or not 0 <= codebook < parts.levels:
            raise CodecError(
                f"codebook is one of the model's {parts.levels} levels, 0 to {parts.levels - 1}, "
                f"got {codebook!r}."
            )
        codes = parts.codes(codebook)
        if len(codes) > 1 and (codes == codes[0]).all():
            raise CodecError(
                f"all {len(codes)} codes of codebook {codebook} are the same, so that no signal "
                "tells them apart: EnCodec and Mimi begin so. Load trained weights, with "
                "HuggingFaceCodec.from_pretrained."
            )
        if not isinstance(samples, int) or samples < 1 or samples % parts.hop:
            below = samples // parts.hop * parts.hop if isinstance(samples, int) else 0
            raise SignalError(
                f"samples must be a positive multiple of the hop, {parts.hop}, got {samples!r}. "
                f"Take {max(below, parts.hop)}."
            )
        self.model = model
        self.codebook, self._samples, self._alphabet = codebook, samples, len(codes)
        self.train(model.training)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, samples: int, codebook: int = 0
    ) -> HuggingFaceCodec:
        """The codec in a folder that `save_pretrained` wrote, or of that name on the Hub.

        name: a folder, or "owner/name". revision: on the Hub, the commit, 40 hexadecimal digits:
        tables and priors fit only the weights that they were made with. Weights are read from
        safetensors alone, as float32, frozen and in evaluation mode; no code of a repository runs.

        Raises OptionError where a name on the Hub is not pinned to a commit, BundleError where it
        cannot be fetched and where files are missing, damaged or incomplete, and as the class does.
        """
        from ._pretrained import read_model  # imports transformers, which takes seconds

        return cls(read_model(name, revision), samples=samples, codebook=codebook)

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return int(self._parts.config.sampling_rate)

    @property
    def hop(self) -> int:
        """Samples of one token."""
        return self._parts.hop

    @property
    def alphabet(self) -> int:
        return self._alphabet

    @property
    def signal_shape(self) -> tuple[int, ...]:
        return (1, self._samples)

    @property
    def token_shape(self) -> tuple[int, ...]:
        return (self._samples // self.hop,)

    def lasting(self, samples: int) -> HuggingFaceCodec:
        """This codec, by the same weights, for signals of `samples` samples.

        Raises SignalError unless that is a positive multiple of `hop`.
        """
        return HuggingFaceCodec(self.model, samples=samples, codebook=self.codebook)

    @torch.no_grad()
    def encode(self, signals: Tensor) -> Tensor:
        """Tokens int64 [B, T] of signals float [B, 1, samples].

        Raises SignalError on another shape, integers and values that are not finite, CodecError in
        training mode and where the model gives another number of tokens.
        """
        self._check_mode("encoding")
        if signals.ndim != 3 or tuple(signals.shape[1:]) != self.signal_shape:
            raise SignalError(
                f"expected signals [B, 1, {self._samples}], got {list(signals.shape)}. Mix down to "
                "mono, and take codec.lasting(samples) for signals of another length."
            )
        if not signals.is_floating_point():
            raise SignalError(
                f"expected floats with full scale 1, got {signals.dtype}. Divide 16-bit samples by "
                "32768."
            )
        if not torch.isfinite(signals).all():
            raise SignalError("the signal holds NaN or infinite samples.")
        codes, expected = self._parts.codes(self.codebook), self.token_shape[0]
        tokens = [torch.empty(0, expected, dtype=torch.int64, device=codes.device)]
        for some in signals.to(codes.dtype).split(self._rows):
            tokens += [self._parts.encode(some, self.codebook)] if len(some) else []
            if tokens[-1].shape[1] != expected:
                raise CodecError(
                    f"the model gave {tokens[-1].shape[1]} tokens of {self._samples} samples, "
                    f"expected {expected} by its hop of {self.hop}. Does its configuration fit its "
                    "layers?"
                )
        return torch.cat(tokens)

    def embed(self, tokens: Tensor) -> Tensor:
        """Latents float [B, D, T] of tokens [B, T]. Raises CodecError on tokens out of range."""
        expected = self.token_shape[0]
        if tokens.ndim != 2 or tokens.shape[1] != expected:
            raise CodecError(f"expected tokens [B, {expected}], got {list(tokens.shape)}.")
        if tokens.is_floating_point():
            raise CodecError(f"tokens must be integers, got {tokens.dtype}.")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.alphabet:
            raise CodecError(
                f"tokens must lie in [0, {self.alphabet}), got "
                f"[{int(tokens.min())}, {int(tokens.max())}]."
            )
        return self._parts.embed(tokens.long(), self.codebook)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Signals float [B, 1, samples] of latents [B, D, T]; differentiable.

        What a decoder gives beyond `samples` is cut off; where it ends a few samples early, as
        DAC's does with odd strides (8 samples at 24 kHz), silence follows. Raises CodecError on
        another shape, in training mode, and where a whole hop or more is missing or too much.
        """
        self._check_mode("decoding")
        expected = (self._parts.config.hidden_size, self.token_shape[0])
        if latents.ndim != 3 or tuple(latents.shape[1:]) != expected:
            raise CodecError(
                f"expected latents [B, {expected[0]}, {expected[1]}], got {list(latents.shape)}."
            )
        if not len(latents):  # which some of the models' layers cannot take
            return latents.new_zeros(0, *self.signal_shape)
        signals = self._parts.decode(latents)
        missing = self._samples - signals.shape[-1]
        if abs(missing) >= self.hop:
            raise CodecError(
                f"the model made {signals.shape[-1]} samples of {expected[1]} tokens, expected "
                f"{self._samples} by its hop of {self.hop}. Does its configuration fit its layers?"
            )
        return pad(signals, (0, missing))

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Signals float [B, 1, samples] of tokens [B, T]."""
        latents = self.embed(tokens)
        return torch.cat([self.decode_latents(some) for some in latents.split(self._rows)])

    @property
    def _rows(self) -> int:
        """Signals that the networks see at once."""
        return max(1, _AT_ONCE // self._samples)

    def _check_mode(self, doing: str) -> None:
        if self.model.training:
            raise CodecError(f"this codec is in training mode: call codec.eval() before {doing}.")
