"""One Lightning loop for every model: batches from memory, checkpoints, resume."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from ..errors import DataError, OptionError


class Group(Protocol):
    """Items that fit into one batch with each other, but not with those of other groups."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: list[int]) -> Any:
        """The batch of these rows."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """All that the group holds."""
        ...


Data = Tensor | Sequence[Group]


class _Groups(Dataset):
    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups

    def __getitem__(self, key: tuple[int, list[int]]) -> Any:
        number, rows = key
        return self.groups[number][rows]


class _GroupBatches:
    """Batches as (group, rows), each from one group; shuffled within and between the groups where
    there is a generator, and then without the rows that fill no batch."""

    def __init__(
        self, sizes: Sequence[int], batch_size: int, generator: torch.Generator | None
    ) -> None:
        self.sizes, self.batch_size, self.generator = sizes, batch_size, generator

    def __len__(self) -> int:
        short = 0 if self.generator is not None else self.batch_size - 1
        return sum((size + short) // self.batch_size for size in self.sizes)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        batches: list[tuple[int, list[int]]] = []
        for number, size in enumerate(self.sizes):
            rows = torch.arange(size)
            if self.generator is not None:
                rows = torch.randperm(size, generator=self.generator)
                rows = rows[: size // self.batch_size * self.batch_size]
            parts = rows.split(self.batch_size) if len(rows) else ()
            batches += [(number, part.tolist()) for part in parts]
        if self.generator is not None:
            order = torch.randperm(len(batches), generator=self.generator).tolist()
            batches = [batches[place] for place in order]
        return iter(batches)


def _loader(data: Data, batch_size: int, generator: torch.Generator | None) -> DataLoader:
    """Batches cut from tensors by index: no copying item by item."""
    if not isinstance(data, Tensor):
        parts = _GroupBatches([len(group) for group in data], batch_size, generator)
        return DataLoader(_Groups(data), sampler=parts, batch_size=None)
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
    train: Data,
    validation: Data,
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

    train, validation: one tensor, or groups, of which every batch comes from one. resume: go on
    from the checkpoint there. `settings`, the seed and the data are noted in it; OptionError when
    they are others than now. Raises DataError when there is less than one batch, in any group.
    """
    for part in [train] if isinstance(train, Tensor) else train:
        if len(part) < batch_size or not len(validation):
            raise DataError(
                f"expected at least one batch of {batch_size} to train on and something to "
                f"validate with, got {len(part)} and {len(validation)}."
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


def _checksum(data: Data) -> str:
    digest = hashlib.sha256()
    for part in [data] if isinstance(data, Tensor) else [x for g in data for x in g.tensors()]:
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()[:16]


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
