"""The local Gaussian model of stereo sources: their spatial covariances and the filter they give.

Duong, Vincent and Gribonval, "Under-determined reverberant audio source separation using a
full-rank spatial covariance model" (2010); as in Open-Unmix. A source of power v(f, t) and spatial
covariance R(f) has the covariance v R at each bin, and the filter is v R (sum of all v R)^-1.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOADING = 1e-4
"""White noise, -40 dB below a bin's own power, that keeps the covariance of two channels that agree
from being singular. It is shared out among the sources, so they still sum to the mixture."""


class Covariance:
    """Gathers sources' spatial covariances over the frames of a signal that comes in segments."""

    def __init__(self) -> None:
        self._outer: Tensor | None = None
        self._power: Tensor | None = None

    def add(self, sources: Tensor) -> None:
        """Take in spectra [..., n, channels, bins, frames]."""
        outer = torch.einsum("...cft,...dft->...cdf", sources, sources.conj())
        power = _power(sources).sum(-1)
        self._outer = outer if self._outer is None else self._outer + outer
        self._power = power if self._power is None else self._power + power

    @property
    def empty(self) -> bool:
        """Whether nothing has come yet."""
        return self._outer is None

    def mean(self) -> Tensor:
        """Covariances [..., n, channels, channels, bins], their trace the number of channels; zero
        at bins where a source is silent throughout."""
        assert self._outer is not None
        assert self._power is not None
        power = self._power[..., None, None, :, None]
        # by parts: complex division squares the divisor, which then may underflow
        mean = torch.where(power > 0, torch.view_as_real(self._outer) / power, 0.0)
        return torch.view_as_complex(mean)


def multichannel(sources: Tensor, mixture: Tensor, covariance: Tensor) -> Tensor:
    """Filter the mixture [..., 1, channels, bins, frames] by sources' powers and covariances.

    sources: their spectra so far [..., n, channels, bins, frames]. The results sum to the mixture.
    """
    n, channels = sources.shape[-4:-2]
    power = _power(sources)
    # As shares of a bin's power: the trace of all sources' covariances is then that of the unit
    # matrix, whatever the level. Where every source is silent the noise alone is left.
    total = power.sum(-3, keepdim=True)
    share = torch.where(total > 0, power / total, 0.0).to(covariance)
    own = torch.einsum("...nft,...ncdf->...cdft", share, covariance)
    noise = _LOADING * torch.eye(channels, dtype=own.dtype, device=own.device)[..., None, None]
    whitened = _solve(own + noise, mixture.squeeze(-4))
    turned = torch.einsum("...ncdf,...dft->...ncft", covariance, whitened)
    filtered = share.unsqueeze(-3) * turned + _LOADING / n * whitened.unsqueeze(-4)
    return filtered + (mixture - filtered.sum(-4, keepdim=True)) / n  # what rounding left over


def _power(sources: Tensor) -> Tensor:
    """Mean over the channels of |spectrum|^2, [..., n, bins, frames]."""
    return (sources.real.square() + sources.imag.square()).mean(-3)


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix [..., c, c, bins, frames]⁻¹ vector [..., c, bins, frames] for one or two channels."""
    if vector.shape[-3] == 1:
        return vector / matrix[..., 0, :, :, :]
    (a, b), (c, d) = (row.unbind(-3) for row in matrix.unbind(-4))
    x, y = vector.unbind(-3)
    return torch.stack([d * x - b * y, a * y - c * x], -3) / (a * d - b * c).unsqueeze(-3)
