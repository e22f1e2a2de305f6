"""A vector quantiser of sound: a token sees one frame, the decoder its neighbours too."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CodecError, SignalError

_ITERATIONS = 20
"""Of Lloyd's."""


@dataclass(frozen=True)
class AudioVQConfig:
    """Sizes of an `AudioVQ`.

    samples: length of a signal, a multiple of hop. sample_rate: in Hz. hop: samples of one token.
    alphabet: number of codes K. latent: width of a code, at most hop. features: how many of a
    frame's cosine coefficients, from the lowest, are its feature. width, blocks: channels and
    residual blocks of the decoder. gain: what signals are multiplied by before they are quantised,
    so that codes are of the order of one.
    """

    samples: int = 65_536
    sample_rate: int = 22_050
    hop: int = 128
    alphabet: int = 1_024
    latent: int = 64
    features: int = 48
    width: int = 128
    blocks: int = 4
    gain: float = 10.0

    def __post_init__(self) -> None:
        sizes = {key: value for key, value in asdict(self).items() if key != "gain"}
        if any(not isinstance(size, int) or size < 1 for size in sizes.values()):
            raise CodecError(f"sizes must be positive integers, got {self}.")
        if self.samples % self.hop or max(self.latent, self.features) > self.hop:
            raise CodecError(
                f"samples ({self.samples}) must be a multiple of hop ({self.hop}); latent "
                f"({self.latent}) and features ({self.features}) at most hop."
            )
        if not 0 < self.gain < math.inf:
            raise CodecError(f"gain must be positive and finite, got {self.gain!r}.")


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class AudioVQ(nn.Module):
    """Codes are the k-means of frames in the cosine domain; the decoder is learned.

    A token stands for one frame of `hop` samples and sees nothing else: the token of a mixture then
    depends on what its sources do in that frame alone, which is what a table p(m | z^1, z^2) can
    express. The decoder starts from the code's own frame and adds what a convolutional network
    makes of the neighbouring codes (van den Oord et al., 2017, with the encoder held fixed).
    Untrained, it adds nothing.

    An `AudioCodec`, a `SoftCodec` and a `FeatureCodec`: signals float [B, 1, samples], full scale
    1, tokens int64 [B, samples / hop]. `AudioVQ.fit` finds the codes and `train_audio_codec` trains
    the decoder.
    """

    cosines: Tensor
    codes: Tensor

    def __init__(self, config: AudioVQConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AudioVQConfig()
        hop, width = config.hop, config.width
        self.register_buffer("cosines", _cosines(hop), persistent=False)
        self.register_buffer("codes", torch.zeros(config.alphabet, config.latent))
        self.decoder = nn.Sequential(
            nn.Conv1d(config.latent, width, 3, padding=1),
            *(_Residual(width, 3 ** (block % 3)) for block in range(config.blocks)),
            nn.SiLU(),
            # Each code writes half a frame into its neighbours' too, so that frames join smoothly.
            nn.ConvTranspose1d(width, 1, 2 * hop, stride=hop, padding=hop // 2),
        )
        last: Any = self.decoder[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.eval()

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        signals: Tensor,
        config: AudioVQConfig | None = None,
        *,
        seed: int = 0,
        frames: int = 400_000,
    ) -> AudioVQ:
        """A codec whose codes are the k-means of the signals' frames, with an untrained decoder.

        signals: float [N, S] or [N, 1, S] with S a multiple of hop, of what the codec is to encode.
        frames: how many to fit to at most, at random; at least 20 K are taken where there are as
        many. Lloyd's iterations are scikit-learn's. Codes are rounded to float16, as they are
        stored, so that tokens stay the same through a file. The same seed gives the same codec.

        Raises SignalError on other shapes and on samples that are not finite, CodecError where
        there are fewer frames than codes.
        """
        codec = cls(config)
        hop, alphabet = codec.hop, codec.alphabet
        if signals.ndim not in (2, 3) or signals.shape[-1] % hop or not signals.is_floating_point():
            raise SignalError(
                f"expected signals float [N, S] or [N, 1, S], S a multiple of {hop}, got "
                f"{signals.dtype} {list(signals.shape)}."
            )
        rows = signals.reshape(-1, hop)
        if len(rows) < alphabet:
            raise CodecError(
                f"{len(rows)} frames are fewer than the {alphabet} codes asked for. Give more "
                "signals, or take a smaller alphabet."
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        some = rows[order[: max(frames, 20 * alphabet)]].float()
        if not torch.isfinite(some).all():
            raise SignalError("the signals hold NaN or infinite samples.")
        codec.codes = _centres(codec._transform(some), alphabet, seed)
        return codec

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        return self.config.hop

    @property
    def alphabet(self) -> int:
        return self.config.alphabet

    @property
    def signal_shape(self) -> tuple[int, ...]:
        return (1, self.config.samples)

    @property
    def token_shape(self) -> tuple[int, ...]:
        return (self.config.samples // self.config.hop,)

    def lasting(self, samples: int) -> AudioVQ:
        """As `AudioCodec.lasting`; the weights are shared."""
        if not isinstance(samples, int) or samples < 1 or samples % self.hop:
            raise SignalError(
                f"this codec takes signals of a positive multiple of {self.hop} samples, got "
                f"{samples!r}. Pad with zeros and cut the result."
            )
        other = copy(self)
        other.config = replace(self.config, samples=samples)
        return other

    @torch.no_grad()
    def encode(self, signals: Tensor) -> Tensor:
        """Tokens int64 [B, T] of signals [B, 1, S]: the nearest code.

        Raises SignalError on another shape and on samples that are not finite.
        """
        self._check(signals)
        return torch.cat([self._scores(batch).argmin(-1) for batch in signals.split(8)])

    @torch.no_grad()
    def log_weights(self, signals: Tensor) -> Tensor:
        """Log weights of every token, float [B, T, K] in nats: -d^2 / (2 v), each row normalised,
        where d is the distance between the encoder's output and the code and v the mean over codes
        of the squared distance to the nearest other one, a dimension. Raises as `encode` does."""
        self._check(signals)
        book = self.codes.double()
        nearest = torch.cdist(book, book).square().fill_diagonal_(math.inf).amin(1)
        unit = float(nearest[nearest < math.inf].mean()) / self.config.latent or 1.0
        parts = signals.split(8)
        return torch.cat([(self._scores(batch) / (-2 * unit)).log_softmax(-1) for batch in parts])

    def features(self, signals: Tensor) -> Tensor:
        """The lowest cosine coefficients (DCT-II, orthonormal) of each frame, float [B, T, D] of
        signals [B, 1, S]. Linear in the signal. Raises SignalError as `encode` does."""
        self._check(signals)
        frames = signals[:, 0].unflatten(1, (-1, self.hop))
        return frames @ self.cosines[:, : self.config.features].to(frames)

    def embed(self, tokens: Tensor) -> Tensor:
        """Latents [B, latent, T] of tokens [B, T]. Raises CodecError on tokens out of range."""
        (length,) = self.token_shape
        if tokens.ndim != 2 or tokens.shape[1] != length:
            raise CodecError(f"expected tokens [B, {length}], got {list(tokens.shape)}.")
        if tokens.is_floating_point():
            raise CodecError(f"tokens must be integers, got {tokens.dtype}.")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.alphabet:
            raise CodecError(
                f"tokens must lie in [0, {self.alphabet}), got "
                f"[{int(tokens.min())}, {int(tokens.max())}]."
            )
        return self.codes[tokens].transpose(1, 2)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Signals [B, 1, S] of latents [B, latent, T]; differentiable."""
        frames = latents.transpose(1, 2) @ self.cosines[:, : self.config.latent].T.to(latents)
        return (frames.flatten(1)[:, None] + self.decoder(latents)) / self.config.gain

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Signals [B, 1, S] of tokens [B, T]."""
        return self.decode_latents(self.embed(tokens))

    def describe(self) -> dict[str, Any]:
        """The configuration, as it stands in a card."""
        return {"kind": "audio-vq", **asdict(self.config)}

    def _check(self, signals: Tensor) -> None:
        if signals.ndim != 3 or tuple(signals.shape[1:]) != self.signal_shape:
            raise SignalError(
                f"expected signals [B, 1, {self.config.samples}], got {list(signals.shape)}. "
                "codec.lasting(samples) is this codec for another length."
            )
        if not torch.isfinite(signals).all():
            raise SignalError("the signal holds NaN or infinite samples.")

    def _transform(self, frames: Tensor) -> Tensor:
        """What is quantised, [..., latent], of frames [..., hop]."""
        return self.config.gain * frames @ self.cosines[:, : self.config.latent].to(frames)

    def _scores(self, signals: Tensor) -> Tensor:
        """Squared distances [B, T, K] of the frames to the codes, less the frames' own squares,
        which are the same for all codes."""
        frames = signals[:, 0].unflatten(1, (-1, self.hop)).to(self.codes)
        return self.codes.square().sum(-1) - 2 * self._transform(frames) @ self.codes.T


def _centres(rows: Tensor, alphabet: int, seed: int) -> Tensor:
    """k-means [K, latent] of rows [N, latent], rounded to float16."""
    from sklearn.cluster import KMeans

    means = KMeans(alphabet, init="random", n_init=1, max_iter=_ITERATIONS, random_state=seed)
    means.fit(rows.numpy())
    return torch.from_numpy(means.cluster_centers_).half().float()


def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II as columns, float32 [size, size]."""
    time = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi / size * (time[:, None] + 0.5) * time)
    waves[:, 0] /= math.sqrt(2)
    return (waves * math.sqrt(2 / size)).float()
