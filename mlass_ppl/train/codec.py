"""Training of the image codec on sources and their mixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..codecs import ImageVQVAE, ImageVQVAEConfig
from ..errors import OptionError
from .fit import OneCycle, fit


class _CodecTraining(lightning.LightningModule):
    def __init__(self, codec: ImageVQVAE, sources: int, rate: float) -> None:
        super().__init__()
        self.codec, self.sources, self.rate = codec, sources, rate

    def training_step(self, images: Tensor) -> Tensor:
        images = self._mix(images)
        logits, _, commitment = self.codec(images)
        # Cross entropy has its optimum at the mean, as squared error has, and a live gradient
        # from the first step on mostly black images. The 10 balances it with the commitment.
        loss = 10 * binary_cross_entropy_with_logits(logits, images) + commitment.sum()
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, images: Tensor) -> None:
        self.log("psnr", psnr_of(self.codec, images), prog_bar=True)

    def _mix(self, images: Tensor) -> Tensor:
        """Replace (sources - 1) of (sources + 1) rows by means of 2 to `sources` images."""
        total, out = images.clone(), images.clone()
        parts = torch.randint(0, self.sources + 1, (len(images),), device=images.device)
        for n in range(2, self.sources + 1):
            total = total + images[torch.randperm(len(images), device=images.device)]
            out = torch.where((parts == n)[:, None, None, None], total / n, out)
        return out

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.parameters(), self.rate)
        schedule = OneCycle(self, optimiser)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def psnr_of(codec: Any, images: Tensor) -> float:
    """Mean encode-decode PSNR in dB (data range 1) of images [B, 1, S, S]."""
    errors = (codec.decode(codec.encode(images)) - images).square().mean((1, 2, 3))
    return float((-10 * errors.clamp_min(1e-10).log10()).mean())


def train_codec(
    images: Tensor,
    validation: Tensor,
    *,
    config: ImageVQVAEConfig | None = None,
    sources: int = 3,
    epochs: int = 12,
    batch_size: int = 128,
    rate: float = 2e-3,
    seed: int = 0,
    run: str | Path = "runs/codec",
    resume: bool = True,
    device: str = "auto",
) -> ImageVQVAE:
    """Train an `ImageVQVAE` on images [N, 1, S, S] in [0, 1] and on mixtures of them.

    sources: largest number of images in a training mixture. run: folder of the checkpoints, one
    an epoch; `resume` continues the newest one there, also for more epochs than it began with.

    Raises OptionError on impossible options and where the checkpoint is of another training, and
    DataError on less than one batch of images.
    """
    if sources < 1 or epochs < 1:
        raise OptionError(f"sources and epochs must be at least 1, got {sources} and {epochs}.")
    lightning.seed_everything(seed, verbose=False)
    codec = ImageVQVAE(config)
    module = _CodecTraining(codec, sources, rate)
    fit(
        module,
        images,
        validation[:1000],
        epochs,
        batch_size,
        seed,
        Path(run),
        resume,
        device,
        sources=sources,
        rate=rate,
        **codec.describe(),
    )
    return codec.eval()
