"""What each position's posterior expects of the sources' latents, over all candidates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..codecs import AudioCodec, AudioVQ, Codec
from ..errors import CodecError

_LEAST = 1e-30


class Expected(NamedTuple):
    """latents: means of a source's latents, [M, T, D]. variances: of what the source holds of each
    frame's cosine coefficients, in squared units of the latents, [M, T, hop]: what a token leaves
    open (`AudioVQ.deviations`) and what is open about the token; None where the codec does not
    know the first."""

    latents: Tensor
    variances: Tensor | None


class Expecting:
    """Each source's means and variances, position by position, by the marginals of all candidates.

    A position's candidates are weighted by the evidence up to `lag` positions later: candidates
    that are given up within it count less. Raises CodecError where a codec's latents are not its
    tokens' codes one by one.
    """

    def __init__(self, codecs: Mapping[str, Codec], lag: int) -> None:
        self._lag = lag
        self._books = {name: _book(codec) for name, codec in codecs.items()}
        self._squares = {name: _squares(codec) for name, codec in codecs.items()}
        self._waiting: deque[tuple[dict[str, _Held], Tensor | None]] = deque()
        self._done: dict[str, list[_Held]] = {name: [] for name in codecs}

    def add(self, marginals: Mapping[str, Tensor], weights: Tensor, parents: Tensor | None) -> None:
        """One position: p(token) of each source [M, C, K], the candidates' log weights [M, C] with
        this position's evidence, and which of them each next candidate continues."""
        shares = weights.double().softmax(1)
        # A search that lost every weight has no opinion: all of its candidates count alike.
        shares = torch.where(shares.isnan(), 1 / shares.shape[1], shares)
        held = {name: self._held(name, marginals[name]) for name in self._books}
        self._waiting.append((held, parents))
        if len(self._waiting) > self._lag:
            self._settle(shares)
        self._last = shares

    def expected(self) -> dict[str, Expected]:
        """Of each source, over all positions that were added."""
        while self._waiting:
            self._settle(self._last)
        out = {}
        for name, parts in self._done.items():
            variances = [part.variances for part in parts if part.variances is not None]
            out[name] = Expected(
                torch.stack([part.latents for part in parts], 1),
                torch.stack(variances, 1) if variances else None,
            )
        return out

    def _held(self, name: str, p: Tensor) -> _Held:
        p = p.float()
        p = p / p.sum(-1, keepdim=True).clamp_min(_LEAST)
        book, squares = self._books[name].to(p), self._squares[name]
        return _Held(p @ book, None if squares is None else p @ squares.to(p))

    def _settle(self, shares: Tensor) -> None:
        """The oldest position that waits, its candidates weighted by those of the newest one."""
        passed = [parents for _, parents in list(self._waiting)[:-1]]
        for parents in reversed(passed):
            if parents is not None:
                shares = torch.zeros_like(shares).scatter_add_(1, parents, shares)
        held, _ = self._waiting.popleft()
        for name, own in held.items():
            self._done[name].append(own.averaged(shares, self._books[name].shape[1]))


class _Held(NamedTuple):
    """Means of latents [M, C, D] (or [M, D]), and of the squares that their frames have about zero,
    [M, C, hop], or, averaged, about their means."""

    latents: Tensor
    variances: Tensor | None

    def averaged(self, shares: Tensor, width: int) -> _Held:
        latents = torch.einsum("mc,mcd->md", shares.to(self.latents), self.latents)
        if self.variances is None:
            return _Held(latents, None)
        squares = torch.einsum("mc,mcd->md", shares.to(self.variances), self.variances)
        squares[:, :width] = (squares[:, :width] - latents.square()).clamp_min(0)
        return _Held(latents, squares)


def decoded(codec: Codec, expected: Expected) -> Iterator[Tensor]:
    """Signals [1, *signal] decoded from the expected latents, mixture by mixture: how they round
    depends on no other."""
    for own in expected.latents:
        yield codec.decode_latents(own.T.unflatten(1, codec.token_shape)[None])


def _book(codec: Codec) -> Tensor:
    """The latents of all tokens, [K, D]."""
    one = codec.lasting(codec.hop) if isinstance(codec, AudioCodec) else codec
    length = 1
    for size in one.token_shape:
        length *= size
    tokens = torch.arange(codec.alphabet)[:, None].expand(-1, length)
    latents = one.embed(tokens).flatten(2)
    if latents.shape[2] != length:
        raise CodecError(
            f"the latents of {type(codec).__name__} are not one code for each token: there are "
            f"{latents.shape[2]} for {length} tokens. Use Mean() in place of Expectation()."
        )
    return latents[:, :, 0].float()


def _squares(codec: Codec) -> Tensor | None:
    """Expected squares of a frame's cosine coefficients given its token, [K, hop]."""
    if not isinstance(codec, AudioVQ) or not codec.deviations.any():
        return None
    out = codec.deviations.square()
    out[:, : codec.codes.shape[1]] += codec.codes.square()
    return out
