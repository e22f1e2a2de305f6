"""Wiener filtering: estimated stems as soft masks for the mixture that they came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OptionError, SignalError
from ._spatial import Covariance, multichannel
from .segments import Segment, Segments
from .stft import STFT


@dataclass(frozen=True)
class Wiener:
    """Post-filter that turns rough stems into parts of the mixture itself.

    Each bin of the mixture's spectrum is shared out in the ratio of |stem| ** power (ratio masks,
    Liutkus and Badeau, 2015; the post-filter of Open-Unmix). So the stems sum to the mixture, and
    what they lack (a codec's lost band) is shared out evenly. It helps stems whose phase or fine
    structure is lost; stems that are right to the sample are better than masks can be and lose by
    it. `iterations` > 0 then re-fits a spatial covariance to each stem and filters with it (EM for
    the local Gaussian model, Duong et al., 2010): it tells stereo stems apart by their panning.

    window, hop: samples of the STFT. power: 2 for power ratios, 1 for magnitudes. segment: samples
    whose spectra are held at once; it bounds memory and changes nothing else.

    Raises OptionError on a value out of range.
    """

    window: int = 4096
    hop: int = 1024
    iterations: int = 0
    power: float = 2.0
    segment: int = 1 << 17

    def __post_init__(self) -> None:
        STFT(self.window, self.hop)
        if self.iterations < 0 or not 0.0 < self.power < float("inf") or self.segment < 1:
            raise OptionError(
                "Wiener takes iterations >= 0, a finite power > 0 and a segment of 1 or more "
                f"samples, got {self.iterations}, {self.power} and {self.segment}."
            )

    def __call__(
        self, stems: Tensor, mixture: Tensor, weights: Sequence[float] | None = None
    ) -> Tensor:
        """Filtered stems, shaped as `stems`: [n, T] with a mixture [T], or [..., n, channels, T]
        with a mixture [..., channels, T], float32 or float64.

        weights: of each stem in the mixture, default 1 each; the filtered stems times their weights
        sum to the mixture. Raises SignalError on shapes that do not fit and on NaN, OptionError on
        weights that are not n finite numbers other than 0.
        """
        if mixture.ndim == 1:
            return self(stems[..., None, :], mixture[None], weights)[..., 0, :]
        both = [(stems, mixture)]  # a list, as it may be read several times
        return torch.cat(list(self.stream(both, weights)), -1)

    def stream(
        self,
        blocks: Iterable[tuple[Tensor, Tensor]],
        weights: Sequence[float] | None = None,
    ) -> Iterator[Tensor]:
        """Filtered stems [..., n, channels, t] of a signal that comes in blocks of stems
        [..., n, channels, t] and mixture [..., channels, t]: in constant memory the same as for the
        whole signal.

        With `iterations` the blocks are read once more for each, so they must be something that can
        be read again, as a list. Raises as the call does, and OptionError on a one-time iterator.
        """
        if self.iterations and iter(blocks) is blocks:
            raise OptionError(
                f"Wiener(iterations={self.iterations}) reads the signal {self.iterations + 1} "
                "times, but an iterator gives it once. Give a list, or an object with __iter__."
            )
        fitted: list[Tensor] = []
        for _ in range(self.iterations):
            covariance = Covariance()
            for segment, spectra in self._spectra(blocks, weights):
                filtered = self._filter(spectra, fitted)
                covariance.add(filtered[..., self._own_frames(segment)])
            if covariance.empty:
                return
            fitted.append(covariance.mean())
        for segment, spectra in self._spectra(blocks, weights):
            filtered = self._filter(spectra, fitted)
            stems = self._stft.inverse(filtered, segment.samples.shape[-1])[..., segment.body]
            yield stems / _column(weights, stems) if weights is not None else stems

    @property
    def _stft(self) -> STFT:
        return STFT(self.window, self.hop)

    def _spectra(
        self, blocks: Iterable[tuple[Tensor, Tensor]], weights: Sequence[float] | None
    ) -> Iterator[tuple[Segment, Tensor]]:
        """Each segment and its spectra [..., n + 1, channels, bins, frames], the mixture last."""
        # Whole hops: the frames of a segment are then frames of the whole signal. A window of
        # context on both sides: every frame that reaches into the segment is complete.
        size = self.hop * max(1, self.segment // self.hop)
        context = self.hop * -(-self.window // self.hop)
        pieces = (_joined(stems, mixture, weights) for stems, mixture in blocks)
        for segment in Segments(size, context=context).cut(pieces):
            yield segment, self._stft.forward(segment.samples)

    def _own_frames(self, segment: Segment) -> slice:
        """The frames centred in the segment itself; the last segment has those behind it, too."""
        last = segment.body.stop == segment.samples.shape[-1]
        return slice(
            segment.body.start // self.hop, None if last else segment.body.stop // self.hop
        )

    def _filter(self, spectra: Tensor, covariances: Sequence[Tensor]) -> Tensor:
        size = spectra[..., :-1, :, :, :].abs()
        mixture = spectra[..., -1:, :, :, :]
        loudest = size.amax(-4, keepdim=True)
        # Relative to the loudest stem no power can underflow in all of them; where every stem is
        # silent nothing is known and they share alike.
        share = torch.where(loudest > 0, size / loudest, 1.0).pow(self.power)
        filtered = share / share.sum(-4, keepdim=True) * mixture
        for covariance in covariances:
            filtered = multichannel(filtered, mixture, covariance)
        return filtered


def _joined(stems: Tensor, mixture: Tensor, weights: Sequence[float] | None) -> Tensor:
    """What each stem contributes to the mixture, and the mixture, [..., n + 1, channels, t]."""
    fits = mixture.ndim >= 2 and stems.ndim == mixture.ndim + 1
    fits = fits and stems.shape[-3] >= 1 and mixture.numel() > 0
    if not fits or stems[..., 0, :, :].shape != mixture.shape or stems.dtype != mixture.dtype:
        raise SignalError(
            "Wiener takes stems [..., n, channels, T] and their mixture [..., channels, T] of one "
            f"type, not {stems.dtype} {tuple(stems.shape)} and {mixture.dtype} "
            f"{tuple(mixture.shape)}. Cut or fill them to one length."
        )
    if stems.shape[-2] > 2:
        raise SignalError(f"Wiener takes mono or stereo, not {stems.shape[-2]} channels.")
    for what, signal in (("stems", stems), ("mixture", mixture)):
        if not signal.isfinite().all():
            raise SignalError(f"the {what} hold NaN or infinite samples; expected finite values.")
    if weights is not None:
        stems = stems * _column(weights, stems)
    return torch.cat([stems, mixture.unsqueeze(-3)], -3)


def _column(weights: Sequence[float], stems: Tensor) -> Tensor:
    """Weights [n, 1, 1] to multiply stems with."""
    column = torch.tensor(list(weights), dtype=stems.dtype, device=stems.device)
    if len(column) != stems.shape[-3] or not column.isfinite().all() or (column == 0).any():
        raise OptionError(
            f"expected {stems.shape[-3]} finite weights other than 0, one for each stem, got "
            f"{list(weights)}."
        )
    return column[:, None, None]
