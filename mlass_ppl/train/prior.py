"""Training of an autoregressive prior on a source's tokens."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from ..errors import OptionError, PriorError
from ..priors import CausalLM, gpt2_config
from .fit import OneCycle, fit
from .fit import _checksum as checksum


class _PriorTraining(lightning.LightningModule):
    def __init__(self, prior: CausalLM, rate: float) -> None:
        super().__init__()
        self.prior, self.rate = prior, rate

    def _nats(self, tokens: Tensor) -> Tensor:
        return -self.prior(tokens).gather(2, tokens[..., None]).mean()

    def training_step(self, tokens: Tensor) -> Tensor:
        loss = self._nats(tokens)
        self.log("nats", loss, prog_bar=True)
        return loss

    def validation_step(self, tokens: Tensor) -> None:
        self.log("validation_nats", self._nats(tokens), prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimiser = adamw(self, self.rate)
        schedule = OneCycle(self, optimiser, pct_start=0.05)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def adamw(module: torch.nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW over all weights of a module; matrices decay, vectors do not."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.05},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.98))


@torch.no_grad()
def nats_of(
    prior: CausalLM, tokens: Tensor, labels: Tensor | None = None, batch_size: int = 500
) -> float:
    """Mean negative log likelihood of tokens [N, T], given their labels [N] where there are any,
    in nats a token."""
    prior.eval()
    total = 0.0
    for begin in range(0, len(tokens), batch_size):
        rows = slice(begin, begin + batch_size)
        logs = prior(tokens[rows], None if labels is None else labels[rows])
        total -= float(logs.gather(2, tokens[rows][..., None]).sum())
    return total / tokens.numel()


def train_prior(
    tokens: Tensor,
    validation: Tensor,
    alphabet: int,
    *,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    epochs: int = 12,
    batch_size: int = 128,
    rate: float = 1.5e-3,
    start: CausalLM | None = None,
    seed: int = 0,
    run: str | Path = "runs/prior",
    resume: bool = True,
    device: str = "auto",
) -> CausalLM:
    """Train a small GPT-2 on tokens int64 [N, T] in [0, alphabet).

    rate: learning rate at its highest. start: a prior to go on from instead of from random weights;
    its sizes count and not those given, and it is left alone. run: folder of the checkpoints, one
    an epoch; `resume` continues the newest one there, also for more epochs than it began with.

    Raises OptionError on impossible options and where the checkpoint is of another training,
    PriorError where `start` is of another alphabet or length, and DataError on less than one batch
    of tokens.
    """
    if epochs < 1:
        raise OptionError(f"epochs must be at least 1, got {epochs}.")
    lightning.seed_everything(seed, verbose=False)
    sizes: dict[str, Any] = {"width": width, "layers": layers, "heads": heads}
    if start is None:
        prior = _new(alphabet, tokens.shape[1], sizes)
    else:
        prior, sizes = _copy(start, alphabet, tokens.shape[1]), {"start": _sum_of(start)}
    module = _PriorTraining(prior, rate)
    fit(
        module,
        tokens,
        validation[:1000],
        epochs,
        batch_size,
        seed,
        Path(run),
        resume,
        device,
        precision="bf16-mixed",
        alphabet=alphabet,
        rate=rate,
        **sizes,
    )
    return prior.eval()


def _new(alphabet: int, length: int, sizes: dict[str, Any]) -> CausalLM:
    from transformers import GPT2LMHeadModel

    return CausalLM(GPT2LMHeadModel(gpt2_config(alphabet, length, **sizes)), alphabet)


def _copy(start: CausalLM, alphabet: int, length: int) -> CausalLM:
    if start.alphabet != alphabet or start.length is None or start.length < length:
        raise PriorError(
            f"the prior to go on from knows {start.alphabet} tokens and lengths up to "
            f"{start.length}; the training tokens are {length} of {alphabet}. Give the prior of "
            "this codec, or begin anew with start=None."
        )
    return copy.deepcopy(start).cpu().float().requires_grad_(True).train()


def _sum_of(prior: CausalLM) -> str:
    """Checksum of all weights."""
    parts = [checksum(tensor.detach().cpu()) for tensor in prior.state_dict().values()]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
