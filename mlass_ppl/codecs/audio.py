"""A vector quantiser of sound: a token sees one frame, the decoder its neighbours too."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CodecError, SignalError
from ._audio_decoder import audio_decoder


@dataclass(frozen=True)
class AudioVQConfig:
    """Sizes of an `AudioVQ`.

    samples: length of a signal, a multiple of hop. sample_rate: in Hz. hop: samples of one token,
    even. alphabet: number of codes K. latent: width of a code, at most hop. features: how many of a
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
        wide = max(self.latent, self.features) > self.hop
        if self.hop % 2 or self.samples % self.hop or wide:
            raise CodecError(
                f"hop ({self.hop}) must be even and samples ({self.samples}) a multiple of it; "
                f"latent ({self.latent}) and features ({self.features}) are at most hop."
            )
        if not isinstance(self.gain, int | float) or not 0 < self.gain < math.inf:
            raise CodecError(f"gain must be positive and finite, got {self.gain!r}.")


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
    deviations: Tensor

    def __init__(self, config: AudioVQConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AudioVQConfig()
        self.register_buffer("cosines", _cosines(config.hop), persistent=False)
        self.register_buffer("codes", torch.zeros(config.alphabet, config.latent))
        self.register_buffer("deviations", torch.zeros(config.alphabet, config.hop))
        self.decoder = audio_decoder(config.latent, config.width, config.blocks, config.hop)
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

        Raises SignalError on other shapes and on samples that are not finite or far beyond full
        scale, CodecError where there are fewer frames than codes.
        """
        codec = cls(config)
        hop, alphabet = codec.hop, codec.alphabet
        mono = signals.ndim == 2 or (signals.ndim == 3 and signals.shape[1] == 1)
        if not mono or signals.shape[-1] % hop or not signals.is_floating_point():
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
        codes = _centres(codec._transform(some), alphabet, seed)
        if not torch.isfinite(codes).all():
            raise SignalError(
                f"samples of up to {float(some.abs().max()):.2g} are too loud to be quantised with "
                f"gain={codec.config.gain:g}: full scale is 1."
            )
        codec.codes = codes
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
        """Tokens int64 [B, T] of signals [B, 1, S]: the nearest code. Raises SignalError on another
        shape and on samples that are not finite."""
        self._check(signals)
        return torch.cat([self._scores(one).argmin(-1) for one in signals.split(1)])

    @torch.no_grad()
    def log_weights(self, signals: Tensor) -> Tensor:
        """Log weights of every token, float [B, T, K] in nats: -d^2 / (2 v), each row normalised,
        where d is the distance between the encoder's output and the code and v the mean over codes
        of the squared distance to the nearest other one, a dimension. Raises as `encode` does."""
        self._check(signals)
        book = self.codes.double()
        nearest = torch.cdist(book, book).square().fill_diagonal_(math.inf).amin(1)
        # of one code there is no other, and codes that are all alike are no distance apart
        unit = float(nearest.mean()) / self.config.latent
        unit = unit if 0 < unit < math.inf else 1.0
        scores = (self._scores(one) for one in signals.split(1))
        return torch.cat([(own / (-2 * unit)).log_softmax(-1) for own in scores])

    def features(self, signals: Tensor) -> Tensor:
        """The lowest cosine coefficients (DCT-II, orthonormal) of each frame, float [B, T, D] of
        signals [B, 1, S]. Linear in the signal. Raises SignalError as `encode` does."""
        self._check(signals)
        frames = signals[:, 0].unflatten(1, (-1, self.hop))
        waves = self.cosines[:, : self.config.features].to(frames)
        # One by one, here and in `_scores`: how a large product rounds depends on all of its rows.
        return torch.cat([one @ waves for one in frames.split(1)])

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

    @torch.no_grad()
    def fit_deviations(self, signals: Tensor, strength: float = 8.0) -> None:
        """Measure how far, given their token, frames lie from what is decoded: `deviations`, the
        standard deviation of each cosine coefficient, float [K, hop], in units of the latents.

        signals: float [N, S], S a multiple of hop. strength: as many frames as the average one are
        added to each token's. Raises SignalError as `encode` does.
        """
        own = self.lasting(signals.shape[1])
        total = torch.zeros_like(self.deviations, dtype=torch.float64)
        number = total.new_zeros(self.alphabet, 1)
        for some in signals.split(16):
            tokens = own.encode(some[:, None].float())
            rest = some - own.decode(tokens)[:, 0]
            rest = self.config.gain * rest.unflatten(1, (-1, self.hop)) @ self.cosines
            total.index_add_(0, tokens.flatten(), rest.flatten(0, 1).double().square())
            number += torch.bincount(tokens.flatten(), minlength=self.alphabet)[:, None]
        average = total.sum(0) / number.sum()
        variance = (total + strength * average) / (number + strength)
        self.deviations = variance.sqrt().half().float()

    def _check(self, signals: Tensor) -> None:
        shaped = signals.ndim == 3 and tuple(signals.shape[1:]) == self.signal_shape
        if not shaped or not signals.is_floating_point():
            raise SignalError(
                f"expected signals float [B, 1, {self.config.samples}], got {signals.dtype} "
                f"{list(signals.shape)}. codec.lasting(samples) is this codec for another length."
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

    means = KMeans(alphabet, init="random", n_init=1, max_iter=20, random_state=seed)
    # In float64, since threads add up in any order: how the last bits fall is then lost in float16.
    means.fit(rows.double().numpy())
    return torch.from_numpy(means.cluster_centers_).half().float()


def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II as columns, float32 [size, size]."""
    time = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi / size * (time[:, None] + 0.5) * time)
    waves[:, 0] /= math.sqrt(2)
    return (waves * math.sqrt(2 / size)).float()
