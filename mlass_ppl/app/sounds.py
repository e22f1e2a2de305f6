"""The sound that a visitor separates: uploaded, or a short one made here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..audio import write_audio
from ..bundle import CARD, list_bundles
from ..errors import OptionError
from .job import Job
from .limits import Limits

SOUND_BUNDLES = {"band": 2.0, "spoken": 1.0}
"""The bundles of sound, and how many seconds their examples last."""


@dataclass
class Listening:
    """What one visitor separates. samples: float32 [channels, T] at `rate`. name: of its file."""

    samples: Tensor | None = None
    rate: int = 0
    name: str = ""
    job: Job | None = None

    def upload(self, path: str | Path, limits: Limits) -> None:
        """Read a sound file. Raises SignalError on one that is no sound, damaged, empty, too large
        or too long; what was there before stays then."""
        samples, rate = limits.read_sound(Path(path))
        self.samples, self.rate, self.name = samples, rate, Path(path).name

    def make(self, bundle: str) -> None:
        """An example for a bundle. Raises OptionError where there is none."""
        if bundle not in SOUND_BUNDLES:
            raise OptionError(f"examples are made for {', '.join(SOUND_BUNDLES)}, not '{bundle}'.")
        self.rate, self.name = 22_050, f"example-{bundle}.wav"
        signal = _band if bundle == "band" else _voices
        self.samples = signal(torch.arange(round(SOUND_BUNDLES[bundle] * self.rate)) / self.rate)

    @property
    def seconds(self) -> float:
        """Its length; 0 of none."""
        return 0.0 if self.samples is None else self.samples.shape[-1] / self.rate

    def write(self, folder: Path) -> Path:
        """The sound as a WAV file that every browser plays."""
        assert self.samples is not None
        path = folder / f"{Path(self.name).stem}.wav"
        write_audio(path, self.samples, self.rate, encoding="int16", force=True)
        return path

    def leave(self) -> None:
        """Stop the work that runs for this visitor, if any."""
        if self.job is not None:
            self.job.stop()


def stems_of(bundle: str) -> tuple[str, ...]:
    """The stems that an installed bundle knows, as its card says; none where it is missing or
    damaged, which `load` tells better."""
    for folder in list_bundles():
        if folder.name == bundle:
            try:
                return tuple(json.loads((folder / CARD).read_text(encoding="utf-8"))["priors"])
            except (OSError, ValueError, KeyError, TypeError):
                return ()
    return ()


def _band(time: Tensor) -> Tensor:
    """A plucked bass line over a kick and a hi-hat, [1, T]."""
    random = torch.Generator().manual_seed(0)
    hiss = torch.randn(time.shape, generator=random)
    out = torch.zeros_like(time)
    for beat in range(math.ceil(float(time[-1]) / 0.25)):
        since = time - 0.25 * beat
        on = (since >= 0).float()
        pitch = (55.0, 55.0, 82.4, 73.4)[beat // 2 % 4]
        if beat % 2 == 0:
            decay = on * torch.exp(-since.clamp_min(0) / 0.25)
            out += 0.1 * decay * sum(torch.sin(math.tau * k * pitch * since) / k for k in (1, 2, 3))
            out += (
                0.2
                * on
                * torch.exp(-since.clamp_min(0) / 0.05)
                * torch.sin(math.tau * (50 + 60 * torch.exp(-since.clamp_min(0) / 0.03)) * since)
            )
        out += 0.05 * on * torch.exp(-since.clamp_min(0) / 0.02) * hiss
    return out[None]


def _voices(time: Tensor) -> Tensor:
    """Two sung vowels, a low and a high one: pulses through three formants each, [1, T]."""
    out = torch.zeros_like(time)
    for pitch, formants in ((105.0, (700, 1_200, 2_500)), (190.0, (300, 2_200, 3_000))):
        wave = torch.zeros_like(time)
        for harmonic in range(1, int(3_600 / pitch)):
            tone = harmonic * pitch
            gain = sum(math.exp(-(((tone - centre) / 160) ** 2)) for centre in formants)
            wave += (gain + 0.02) / harmonic**0.5 * torch.sin(math.tau * tone * time)
        out += 0.05 * wave * torch.sin(math.pi * time / time[-1]).clamp_min(0) ** 0.5
    return out[None]
