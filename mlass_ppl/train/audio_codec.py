"""Training of an audio codec's decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from ..codecs import AudioVQ
from ..errors import OptionError, SignalError
from ..evaluate.audio import sdr
from .fit import OneCycle, fit

_WINDOWS = (512, 1024, 2048)
"""Samples of the spectra that are compared."""

_FLOOR = 1e-4
"""Energy below which a segment's error no longer counts, and amplitude below which a spectrum's
does not: nobody hears it."""


class _DecoderTraining(lightning.LightningModule):
    def __init__(self, codec: AudioVQ, sources: int, rate: float, spectral: float) -> None:
        super().__init__()
        self.codec, self.sources, self.rate, self.spectral = codec, sources, rate, spectral

    def training_step(self, segments: Tensor) -> Tensor:
        signals = _mix(segments.float(), self.sources)
        decibels = 6 * torch.rand(len(signals), 1, device=signals.device) - 3
        signals = signals * 10 ** (decibels / 20)
        decoded = self.codec.decode_latents(self.codec.embed(self.codec.encode(signals[:, None])))
        error = (decoded[:, 0] - signals).square().sum(1)
        energy = signals.square().sum(1)
        # The ratio in decibels is what will be measured: quiet segments count as loud ones.
        loss = 10 * ((error + _FLOOR) / (energy + _FLOOR)).log10().mean()
        if self.spectral:
            loss = loss + self.spectral * _distance(decoded[:, 0], signals)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, segments: Tensor) -> None:
        self.log("sdr_db", sdr_of(self.codec, _mix(segments.float(), self.sources)), prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(
            self.codec.decoder.parameters(), self.rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        schedule = OneCycle(self, optimiser, pct_start=0.1)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _mix(segments: Tensor, sources: int) -> Tensor:
    """A third of the rows as they are, a third means of two, ... up to `sources`."""
    total, out = segments.clone(), segments.clone()
    parts = torch.randint(0, sources, (len(segments),), device=segments.device) + 1
    for n in range(2, sources + 1):
        total = total + segments[torch.randperm(len(segments), device=segments.device)]
        out = torch.where((parts == n)[:, None], total / n, out)
    return out


def _distance(ours: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of log magnitudes, in nats, over windows of several lengths."""
    total = ours.new_zeros(())
    for size in _WINDOWS:
        window = torch.hann_window(size, device=ours.device)
        spectra = [
            torch.stft(x, size, size // 4, window=window, return_complex=True).abs()
            for x in (ours, truth)
        ]
        floor = _FLOOR * size
        total = total + ((spectra[0] + floor).log() - (spectra[1] + floor).log()).abs().mean()
    return total / len(_WINDOWS)


@torch.no_grad()
def sdr_of(codec: AudioVQ, signals: Tensor) -> float:
    """Mean encode-decode SDR in dB of signals [B, S], silent ones left out."""
    own = codec.lasting(signals.shape[1])
    scores = torch.as_tensor(sdr(own.decode(own.encode(signals[:, None]))[:, 0], signals))
    return float(scores[scores.isfinite()].mean())


def train_audio_codec(
    codec: AudioVQ,
    segments: Tensor,
    validation: Tensor,
    *,
    sources: int = 1,
    spectral: float = 0.3,
    epochs: int = 1,
    batch_size: int = 24,
    rate: float = 2e-3,
    seed: int = 0,
    run: str | Path = "runs/audio-codec",
    resume: bool = True,
    device: str = "auto",
) -> AudioVQ:
    """Train the decoder of a codec with codes (`AudioVQ.fit`) on segments [N, S], float16 or float.

    The loss is the error in decibels below the signal, plus `spectral` times the distance of log
    spectra in nats, over windows of several lengths. sources: largest number of segments in a
    training mixture; 1 trains on the segments alone. run: folder of the checkpoints, one an epoch;
    `resume` continues the newest one there.

    Raises OptionError on impossible options and where the checkpoint is of another training,
    SignalError on segments of another shape, and DataError on less than one batch of them.
    """
    if sources < 1 or epochs < 1 or not spectral >= 0:
        raise OptionError(
            f"sources and epochs must be at least 1 and spectral at least 0, got {sources}, "
            f"{epochs} and {spectral}."
        )
    if segments.ndim != 2 or not segments.is_floating_point():
        raise SignalError(
            f"expected segments float [N, S], got {segments.dtype} {list(segments.shape)}."
        )
    if spectral and segments.shape[1] <= max(_WINDOWS) // 2:
        raise OptionError(
            f"segments of {segments.shape[1]:,} samples are no longer than half a window of the "
            f"spectra ({max(_WINDOWS):,} samples). Take longer ones, or spectral=0."
        )
    lightning.seed_everything(seed, verbose=False)
    own = codec.lasting(segments.shape[1]).train()  # shares its weights
    fit(
        _DecoderTraining(own, sources, rate, spectral),
        segments,
        validation,
        epochs,
        batch_size,
        seed,
        Path(run),
        resume,
        device,
        sources=sources,
        rate=rate,
        spectral=spectral,
        **own.describe(),
    )
    return codec.eval()
