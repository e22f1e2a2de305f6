"""Training of a refiner on separations of mixtures whose true sources are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from ..errors import OptionError
from ..refine import Refiner, RefinerConfig
from .examples import ExampleBatch, Examples
from .fit import OneCycle, fit

_FLOOR = 1e-4
"""Added to squared errors before their logarithm: an error below 40 dB counts little."""


class _RefinerTraining(lightning.LightningModule):
    def __init__(self, refiner: Refiner, rate: float, coded: float) -> None:
        super().__init__()
        self.refiner, self.rate, self.coded = refiner, rate, coded

    def training_step(self, batch: ExampleBatch) -> Tensor:
        drafts = self.refiner.draft(self._pick(batch), batch.observed, batch.weights)
        # The logarithm is what mean PSNR measures, in nats; a plain mean would listen to the few
        # mixtures that were separated wrongly, which nothing mends.
        loss = (_errors(drafts, batch.truths) + _FLOOR).log().mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: ExampleBatch) -> None:
        refined = self.refiner(batch.estimates[:, 0], batch.observed, batch.weights)
        self.log("psnr", _psnr(refined, batch.truths).mean(), prog_bar=True, batch_size=1)

    def _pick(self, batch: ExampleBatch) -> Tensor:
        """One candidate of each mixture [B, n, 1, S, S]; of a share of them, the true tokens."""
        size, device = len(batch.estimates), batch.estimates.device
        candidate = torch.randint(batch.estimates.shape[1], (size,), device=device)
        picked = batch.estimates[torch.arange(size, device=device), candidate]
        true = torch.rand(size, device=device) < self.coded
        return torch.where(true[:, None, None, None, None], batch.coded, picked)

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(
            self.parameters(), self.rate, betas=(0.9, 0.98), weight_decay=1e-4
        )
        schedule = OneCycle(self, optimiser, pct_start=0.05)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _errors(estimates: Tensor, truths: Tensor) -> Tensor:
    return (estimates - truths).square().flatten(2).mean(2)


def _psnr(estimates: Tensor, truths: Tensor) -> Tensor:
    return -10 * _errors(estimates, truths).clamp_min(1e-10).log10()


@torch.no_grad()
def refined_psnr(refiner: Refiner, examples: Examples, batch_size: int = 64) -> tuple[float, float]:
    """Mean PSNR in dB of the chosen candidates before and after refinement, each source against
    the true one in whose place it stands."""
    before, after = [], []
    for begin in range(0, len(examples), batch_size):
        batch = examples[slice(begin, begin + batch_size)]
        chosen = batch.estimates[:, 0]
        before.append(_psnr(chosen, batch.truths))
        after.append(_psnr(refiner(chosen, batch.observed, batch.weights), batch.truths))
    return float(torch.cat(before).mean()), float(torch.cat(after).mean())


def train_refiner(
    examples: Sequence[Examples],
    validation: Sequence[Examples],
    *,
    config: RefinerConfig | None = None,
    epochs: int = 20,
    batch_size: int = 48,
    rate: float = 2e-3,
    coded: float = 0.25,
    seed: int = 0,
    run: str | Path = "runs/refiner",
    resume: bool = True,
    device: str = "auto",
) -> Refiner:
    """Train a `Refiner` on examples, one group for each number of sources or way of mixing.

    The loss is the mean over sources of log(mean squared error + 1e-4). epochs: passes over the
    mixtures of all groups, with one candidate of each, drawn anew. coded: share of the mixtures
    where decoded true tokens stand for the candidate, so that good estimates are known too. run:
    folder of the checkpoints, one an epoch; `resume` continues the newest one there, also for more
    epochs than it began with.

    Raises OptionError on impossible options and where the checkpoint is of another training, and
    DataError on less than one batch in a group.
    """
    if epochs < 1 or batch_size < 1 or not 0 < rate < float("inf") or not 0 <= coded <= 1:
        raise OptionError(
            "epochs and batch_size must be at least 1, rate positive and coded a share in [0, 1], "
            f"got {epochs}, {batch_size}, {rate} and {coded}."
        )
    lightning.seed_everything(seed, verbose=False)
    refiner = Refiner(config)
    fit(
        _RefinerTraining(refiner, rate, coded),
        examples,
        validation,
        epochs,
        batch_size,
        seed,
        Path(run),
        resume,
        device,
        precision="bf16-mixed",
        rate=rate,
        coded=coded,
        **asdict(refiner.config),
    )
    return refiner.eval().requires_grad_(False)
