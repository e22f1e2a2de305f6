"""A trained prior trained on: on augmented images, with and without their labels."""

from __future__ import annotations

import copy
import hashlib
import math
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from ..codecs import Codec
from ..errors import DataError, OptionError, PriorError
from ..priors import CausalLM
from .affine import augment
from .fit import _checksum, fit
from .labels import _check
from .prior import adamw

WARM_UP = 300
"""Steps until the full learning rate, in trainings of ten times as many or more."""


class _Digits:
    """What is trained on, drawn anew for each epoch; the same for the same seed and epoch."""

    def __init__(
        self,
        codec: Codec,
        images: Tensor,
        labels: Tensor,
        validation: tuple[Tensor, Tensor],
        *,
        epochs: int,
        augmented: float,
        labelled: float,
        seed: int,
    ) -> None:
        self.codec, self.images, self.labels = codec, images, labels
        self.plain, self.held = _encode(codec, images), _encode(codec, validation[0])
        self.held_labels = validation[1]
        self.epochs, self.augmented, self.labelled = epochs, augmented, labelled
        self.seed = seed

    def draw(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Tokens int64 [N, T] and labels int64 [N], -1 for none, of an epoch (from 0), shuffled."""
        random = torch.Generator().manual_seed(_seed(self.seed, epoch))
        late = epoch >= self.epochs - self.epochs // 4
        share = self.augmented / 2 if late else self.augmented
        count, tokens = len(self.images), self.plain.clone()
        chosen = (torch.rand(count, generator=random) < share).nonzero()[:, 0]
        for rows in chosen.split(1_000) if len(chosen) else ():
            tokens[rows] = _encode(self.codec, augment(self.images[rows], random))
        order = torch.randperm(count, generator=random)
        told = torch.rand(count, generator=random) < self.labelled
        return tokens[order], torch.where(told, self.labels[order], -1)


class _Continued(lightning.LightningModule):
    """The loader gives numbers of rows and thereby only counts the batches. What is in them is
    drawn from the seed and the epoch, and not from the loader's order, which begins anew in a
    resumed run."""

    def __init__(self, prior: CausalLM, digits: _Digits, rate: float, batch_size: int) -> None:
        super().__init__()
        self.prior, self.rate, self.batch_size = prior, rate, batch_size
        self.digits = digits

    def on_train_epoch_start(self) -> None:
        tokens, labels = self.digits.draw(self.current_epoch)
        self.tokens, self.given = tokens.split(self.batch_size), labels.split(self.batch_size)

    def _nats(self, tokens: Tensor, labels: Tensor | None) -> Tensor:
        tokens = tokens.to(self.device)
        logs = self.prior(tokens, labels if labels is None else labels.to(self.device))
        nats: Tensor = -logs.float().gather(2, tokens[..., None]).mean()
        return nats

    def training_step(self, _: Tensor, batch_idx: int) -> Tensor:
        if not batch_idx:  # dropout too is that of the epoch
            torch.manual_seed(_seed(self.digits.seed, self.current_epoch))
        loss = self._nats(self.tokens[batch_idx], self.given[batch_idx])
        self.log("nats", loss, prog_bar=True)
        return loss

    def validation_step(self, rows: Tensor, batch_idx: int) -> None:
        rows = rows.cpu()
        tokens, labels = self.digits.held[rows], self.digits.held_labels[rows]
        self.log("validation_nats", self._nats(tokens, None), prog_bar=True)
        self.log("label_nats", self._nats(tokens, labels), prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimiser = adamw(self, self.rate)
        steps = int(self.trainer.estimated_stepping_batches)
        warm = max(1, min(WARM_UP, steps // 10))

        def share(step: int) -> float:
            return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))

        schedule = LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def continue_prior(
    prior: CausalLM,
    codec: Codec,
    images: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor],
    *,
    epochs: int = 16,
    batch_size: int = 128,
    rate: float = 1e-3,
    augmented: float = 0.6,
    labelled: float = 0.3,
    seed: int = 0,
    run: str | Path = "runs/continued",
    resume: bool = True,
    device: str = "auto",
) -> CausalLM:
    """Train a prior with classes on: all its weights, on images as they are and augmented.

    In each epoch a share `augmented` of the images (half of that in the last quarter of the
    epochs) is changed by `augment` and encoded again; a share `labelled` of the rows is trained
    with its label, p(z_t | z_{<t}, label), the others without. AdamW with a short warm-up on a
    cosine schedule, in bfloat16 autocast. Returns the prior after the last epoch, on the CPU and in
    evaluation mode; `prior` itself is left alone.

    images: float [N, *codec.signal_shape] in [0, 1], on the codec's device; labels: int64 [N], the
    class of each, 0 to the largest; validation: such a pair, watched while it trains (its first
    1,000) and never trained on. rate: learning rate at its highest. run: folder of the checkpoints,
    one an epoch; `resume` continues the newest one there. An interrupted training ends, on the CPU
    with as many threads, bit for bit where it would have. Given more epochs than it began with, its
    schedule is stretched. The global random state is moved.

    Raises OptionError on impossible options and where the checkpoint is of another training,
    PriorError where the prior has no classes (teach it some with `add_labels`) or another codec's
    alphabet, and DataError on images and labels that do not fit and on less than one batch.
    """
    if epochs < 1 or batch_size < 1 or not 0 < rate < float("inf"):
        raise OptionError(
            "epochs and batch_size must be at least 1 and rate positive, got "
            f"{epochs}, {batch_size} and {rate}."
        )
    if not (0 <= augmented <= 1 and 0 <= labelled <= 1):
        raise OptionError(
            f"augmented and labelled are shares of the rows, 0 to 1, got {augmented} and "
            f"{labelled}."
        )
    if not prior.labels:
        raise PriorError(
            "this prior has no classes to train on with. Teach it some first: prior = "
            "mlass_ppl.train.add_labels(prior, tokens, labels, validation), where tokens are "
            "codec.encode(images)."
        )
    if prior.alphabet != codec.alphabet:
        raise PriorError(
            f"the prior knows {prior.alphabet} tokens and the codec has {codec.alphabet}. Give the "
            "codec that the prior was trained on."
        )
    for name, these in (("training", images), ("validation", validation[0])):
        if tuple(these.shape[1:]) != tuple(codec.signal_shape) or not these.is_floating_point():
            raise DataError(
                f"expected {name} images float [N, {', '.join(map(str, codec.signal_shape))}], got "
                f"{these.dtype} {list(these.shape)}."
            )
    labels, held_labels = labels.cpu(), validation[1].cpu()
    given = _Digits(
        codec, images, labels, (validation[0], held_labels),
        epochs=epochs, augmented=augmented, labelled=labelled, seed=seed,
    )  # fmt: skip
    classes = _check(prior.alphabet, given.plain, labels, given.held, held_labels, batch_size)
    if classes > prior.labels:
        raise DataError(
            f"the prior knows the classes 0 to {prior.labels - 1}, got labels up to {classes - 1}. "
            "Leave those images out, or teach an unconditional prior all classes: add_labels."
        )
    out = copy.deepcopy(prior).cpu().float().requires_grad_(True).train()
    fit(
        _Continued(out, given, rate, batch_size),
        torch.arange(len(images)),
        torch.arange(min(1000, len(held_labels))),
        epochs,
        batch_size,
        seed,
        Path(run),
        resume,
        device,
        precision="bf16-mixed",
        rate=rate,
        augmented=augmented,
        labelled=labelled,
        images=_sum_of(images),
        labels=_sum_of(labels),
        tokens=_sum_of(given.plain),
        prior=_sum_of(*out.state_dict().values()),
    )
    return out.cpu().eval().requires_grad_(False)


@torch.no_grad()
def _encode(codec: Codec, images: Tensor) -> Tensor:
    """Tokens int64 [N, T] on the CPU."""
    parts = [codec.encode(part).cpu() for part in images.split(1_000)]
    return torch.cat(parts)


def _seed(seed: int, epoch: int) -> int:
    """One number for the two: neighbouring seeds do not share their epochs."""
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _sum_of(*tensors: Tensor) -> str:
    """One checksum of tensors, by their values."""
    parts = [_checksum(tensor.detach().cpu()) for tensor in tensors]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
