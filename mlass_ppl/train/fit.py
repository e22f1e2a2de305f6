"""One Lightning loop for every model: batches from memory, checkpoints, resume."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from ..errors import DataError, OptionError


def _loader(data: Tensor, batch_size: int, generator: torch.Generator | None) -> DataLoader:
    """Batches cut from one tensor by index: no copying item by item."""
    order = (
        SequentialSampler(range(len(data)))
        if generator is None
        else RandomSampler(range(len(data)), generator=generator)
    )
    batches = BatchSampler(order, batch_size, drop_last=generator is not None)
    return DataLoader(data, sampler=batches, batch_size=None)  # type: ignore[arg-type]


class OneCycle(OneCycleLR):
    """One-cycle schedule over the whole training that a resumed run stretches to its own length,
    so that a training can go on for more epochs than it began with."""

    def __init__(self, module: lightning.LightningModule, optimiser: Any, **options: Any) -> None:
        steps = int(module.trainer.estimated_stepping_batches)
        rate = optimiser.defaults["lr"]
        super().__init__(optimiser, rate, total_steps=steps, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = ("total_steps", "_schedule_phases")
        super().load_state_dict({k: v for k, v in state_dict.items() if k not in own})


class _Settings(lightning.Callback):
    """Writes into each checkpoint what was trained on what."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["settings"] = self.settings


def fit(
    module: lightning.LightningModule,
    train: Tensor,
    validation: Tensor,
    epochs: int,
    batch_size: int,
    seed: int,
    run: Path,
    resume: bool,
    device: str,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    **settings: Any,
) -> None:
    """Train `module` in place, with a checkpoint at the end of each epoch in `run`.

    resume: go on from the checkpoint there. `settings`, the seed and the data are noted in it;
    OptionError when they are others than now. Raises DataError when there is less than one batch.
    """
    if len(train) < batch_size or not len(validation):
        raise DataError(
            f"expected at least one batch of {batch_size} to train on and something to validate "
            f"with, got {len(train)} and {len(validation)}."
        )
    settings |= {"seed": seed, "batch_size": batch_size, "data": _checksum(train)}
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    newest = run / "last.ckpt"
    resume = resume and newest.is_file()
    if resume:
        _check_resume(newest, settings)
    else:
        newest.unlink(missing_ok=True)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator=device,
        devices=1,
        precision=precision,
        logger=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        default_root_dir=run,
        callbacks=[
            # save_last=True writes nothing before the end when save_top_k is 0
            ModelCheckpoint(run, newest.stem, save_top_k=1, enable_version_counter=False),
            TQDMProgressBar(refresh_rate=20),
            _Settings(settings),
        ],
    )
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*")
        trainer.fit(
            module,
            _loader(train, batch_size, generator),
            _loader(validation, batch_size, None),
            ckpt_path=newest if resume else None,
        )


def _checksum(data: Tensor) -> str:
    return hashlib.sha256(data.contiguous().numpy().data).hexdigest()[:16]


def _check_resume(checkpoint: Path, settings: dict[str, Any]) -> None:
    """Raise OptionError unless a checkpoint is of a training with these settings."""
    hint = "Give another folder for this run, or do not resume."
    try:
        before = torch.load(checkpoint, map_location="cpu", weights_only=True).get("settings", {})
    except Exception as error:  # a half-written file, or another kind of file
        raise OptionError(f"{checkpoint} cannot be read ({error}). {hint}") from error
    other = [
        f"{name} was {before[name]!r} and is now {value!r}"
        for name, value in settings.items()
        if name in before and before[name] != value
    ]
    if other:
        raise OptionError(f"{checkpoint} is of another training: {'; '.join(other)}. {hint}")
