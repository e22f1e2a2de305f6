"""Training: chunks of the training songs, and as many mixtures across songs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from torch import Tensor

from mlass_ppl.data.audio import Chunks
from mlass_ppl.errors import OptionError
from mlass_ppl.train.fit import OneCycle, fit

from .data import active_chunks, in_memory, select
from .model import ConvTasNetConfig, StemSeparator

_FLOOR = 1e-4
"""Share of the mixture's energy added to errors before their logarithm, so that neither a silent
stem nor a perfect estimate takes over."""


@dataclass(frozen=True)
class TrainingConfig:
    """epochs: passes over the chunks in which all stems sound. crop: seconds of a chunk that are
    seen each time. mixed: share of the batches whose stems are of different songs, wherever the
    stem sounds. gain_db: each stem is made up to this much louder or quieter. rate: highest
    learning rate, reached after a tenth of the steps; it falls as a cosine. limit: most chunks of
    all stems, and of each stem, that are held in memory.

    Raises OptionError on impossible values.
    """

    epochs: int = 10
    batch_size: int = 8
    crop: float = 2.0
    mixed: float = 0.5
    gain_db: float = 3.0
    rate: float = 1e-3
    limit: int = 6_000
    seed: int = 0

    def __post_init__(self) -> None:
        least = min(self.epochs, self.batch_size, self.limit)
        fine = self.crop > 0 and self.rate > 0 and self.gain_db >= 0 and 0 <= self.mixed <= 1
        if least < 1 or not fine:
            raise OptionError(
                "TrainingConfig takes epochs, batch_size and limit of at least 1, positive crop "
                f"and rate, mixed in [0, 1] and gain_db >= 0; got {self}."
            )


def train(
    root: str | Path,
    model: ConvTasNetConfig,
    config: TrainingConfig,
    run: str | Path,
    *,
    validate: int = 100,
    device: str = "auto",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
) -> StemSeparator:
    """Train on the split `train` of the songs in `root`; `validate` chunks of `validation` are
    scored after each epoch. Checkpoints go to `run`, and the newest one there is gone on from.

    Raises DataError and OptionError where there are no such chunks, not one batch of them, or the
    checkpoint is of another training.
    """
    whole = _drawn(root, model.stems, config)
    check_rate(whole.rate, model)
    known = in_memory(whole, "songs to train on")
    pools = [in_memory(_drawn(root, (stem,), config), stem)[:, 0] for stem in model.stems]
    chosen = select(root, "validation", len(model.stems), validate, seed=0)
    held = in_memory(chosen, "songs to validate with")
    lightning.seed_everything(config.seed, verbose=False)
    separator = StemSeparator(model)
    facts = asdict(config)
    fit(
        _Training(separator, pools, config),
        known,
        held,
        facts.pop("epochs"),
        facts.pop("batch_size"),
        facts.pop("seed"),
        Path(run),
        resume=True,
        device=device,
        precision=precision,
        **facts,
        **asdict(model),
    )
    return separator.eval().requires_grad_(False)


def _drawn(root: str | Path, stems: tuple[str, ...], config: TrainingConfig) -> Chunks:
    """The chunks with these stems to train on, at most `config.limit` of them."""
    chunks = active_chunks(root, "train", stems)
    return chunks.sample(min(config.limit, len(chunks)), config.seed)


def check_rate(rate: int, model: ConvTasNetConfig) -> None:
    """Raise OptionError unless songs of `rate` Hz are what a model takes."""
    if rate != model.sample_rate:
        raise OptionError(
            f"the model takes {model.sample_rate:,} Hz and the songs have {rate:,} Hz. Render or "
            "resample them, or train at their rate (--sample-rate)."
        )


class _Training(lightning.LightningModule):
    def __init__(
        self, separator: StemSeparator, pools: Sequence[Tensor], config: TrainingConfig
    ) -> None:
        super().__init__()
        self.separator, self.pools, self.config = separator, pools, config

    def training_step(self, chunks: Tensor) -> Tensor:
        if torch.rand(()) < self.config.mixed:
            chunks = mixed(self.pools, len(chunks)).to(chunks.device)
        stems = augmented(chunks.float(), self.separator.config.sample_rate, self.config)
        loss = -soft_sdr(self.separator(stems.mean(1)), stems).mean()
        self.log("sdr", -loss, prog_bar=True)
        return loss

    def validation_step(self, chunks: Tensor) -> None:
        stems = chunks.float()
        found = soft_sdr(self.separator(stems.mean(1)), stems)
        self.log("val_sdr", found.mean(), prog_bar=True, batch_size=len(chunks))

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(self.parameters(), self.config.rate, weight_decay=1e-4)
        schedule = OneCycle(self, optimiser, pct_start=0.1)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def mixed(pools: Sequence[Tensor], number: int) -> Tensor:
    """Chunks [number, n, T] of stems that know nothing of each other, each drawn from its own pool
    [M, T] by torch's generator."""
    return torch.stack([pool[torch.randint(len(pool), (number,))] for pool in pools], 1)


def augmented(chunks: Tensor, rate: int, config: TrainingConfig) -> Tensor:
    """Stems [B, n, crop] of chunks [B, n, T]: all cut at one place, each with a gain of its own,
    drawn by torch's generator."""
    size, n, length = chunks.shape
    crop = min(length, round(config.crop * rate))
    begin = int(torch.randint(length - crop + 1, ()))
    decibels = config.gain_db * (2 * torch.rand(size, n, 1) - 1)
    return chunks[..., begin : begin + crop] * (10 ** (decibels / 20)).to(chunks.device)


def soft_sdr(estimates: Tensor, stems: Tensor) -> Tensor:
    """Plain SDR in dB [B, n] of estimates [B, n, T], bounded by 40 dB below the mixture's energy: a
    silent stem has one, too, and its gradient is finite."""
    floor = _FLOOR * stems.mean(1, keepdim=True).square().sum(-1) + 1e-8
    signal, error = stems.square().sum(-1), (estimates - stems).square().sum(-1)
    return 10 * ((signal + floor) / (error + floor)).log10()
