"""Change of sample rate, of whole signals and of streams, by libsoxr.

libsoxr and not scipy.signal.resample_poly: it streams (the same samples, bit by bit, in constant
memory), its filters reject aliases by 140 dB (resample_poly's defaults by 60) and its cost does not
grow with odd pairs of rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError, SignalError
from ._libraries import soxr


def resampled_length(length: int, old: int, new: int) -> int:
    """Samples that `length` samples at rate `old` become at rate `new`: the nearest, 1 or more."""
    _check_rates(old, new)
    return max(1, (2 * length * new + old) // (2 * old))


def resample(signal: Tensor, old: int, new: int, *, length: int | None = None) -> Tensor:
    """A signal [..., T] sampled `old` times a second at `new` samples a second, float32.

    length: samples of the result, default `resampled_length`; a result that is shorter is filled
    with zeros, so a signal that went to another rate and back has its length again. No delay.
    Raises SignalError on an empty signal and on NaN, OptionError on an impossible rate or length.
    """
    check_signal(signal)
    full = resampled_length(signal.shape[-1], old, new)
    length = full if length is None else length
    if length < 1:
        raise OptionError(f"resample(length=...) is 1 or more samples, got {length}.")
    if old == new:
        return _fit(signal.float(), length)
    flat = signal.detach().float().reshape(-1, signal.shape[-1]).cpu().numpy()
    out = [torch.from_numpy(np.asarray(soxr().resample(row, old, new))) for row in flat]
    return _fit(torch.stack(out), length).reshape(*signal.shape[:-1], length).to(signal.device)


def resampled(
    pieces: Iterable[Tensor], old: int, new: int, *, length: int | None = None
) -> Iterator[Tensor]:
    """A stream of pieces [channels, t] at another rate, float32: together the samples that
    `resample` makes of all of them, in constant memory."""
    _check_rates(old, new)
    stream, seen, made, held = None, 0, 0, None
    for piece in pieces:
        if stream is None and old != new:
            stream = soxr().ResampleStream(old, new, piece.shape[0], dtype="float32")
        if held is not None:
            out = _push(stream, held, last=False)
            made += out.shape[-1]
            yield out
        held, seen = piece, seen + piece.shape[-1]
    if held is not None:
        out = _push(stream, held, last=True)
        yield _fit(out, (resampled_length(seen, old, new) if length is None else length) - made)


def check_signal(signal: Tensor) -> None:
    """Raise SignalError unless a signal [..., T] has samples and all of them are finite."""
    if not signal.ndim or not signal.numel():
        raise SignalError(f"expected a signal [..., T] of one or more samples, got {signal.shape}.")
    if not signal.isfinite().all():
        bad = int((~signal.isfinite()).sum())
        raise SignalError(
            f"the signal of shape {tuple(signal.shape)} holds {bad:,} NaN or infinite samples; "
            "expected finite values. Look at the codec or the file that made them."
        )


def _push(stream: Any, piece: Tensor, *, last: bool) -> Tensor:
    if stream is None:
        return piece.float()
    columns = piece.float().T.contiguous().numpy()
    out = stream.resample_chunk(columns[:, 0] if columns.shape[1] == 1 else columns, last=last)
    return torch.from_numpy(np.array(out).reshape(-1, len(piece)).T.copy())


def _fit(signal: Tensor, length: int) -> Tensor:
    """Cut or fill with zeros at the end."""
    if length < 0:
        raise OptionError(f"the stream is {-length:,} samples longer than the length asked for.")
    return torch.nn.functional.pad(signal, (0, length - signal.shape[-1]))


def _check_rates(old: int, new: int) -> None:
    for rate in (old, new):
        if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
            raise OptionError(f"a sample rate is a whole number of samples a second, got {rate!r}.")
