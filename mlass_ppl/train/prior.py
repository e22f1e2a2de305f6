"""Training of an autoregressive prior on a source's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from ..errors import OptionError
from ..priors import CausalLM, gpt2_config
from .fit import OneCycle, fit


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
    seed: int = 0,
    run: str | Path = "runs/prior",
    resume: bool = True,
    device: str = "auto",
) -> CausalLM:
    """Train a small GPT-2 on tokens int64 [N, T] in [0, alphabet).

    run: folder of the checkpoints, one an epoch; `resume` continues the newest one there, also for
    more epochs than it began with.

    Raises OptionError on impossible options and where the checkpoint is of another training, and
    DataError on less than one batch of tokens.
    """
    from transformers import GPT2LMHeadModel

    if epochs < 1:
        raise OptionError(f"epochs must be at least 1, got {epochs}.")
    lightning.seed_everything(seed, verbose=False)
    sizes = {"width": width, "layers": layers, "heads": heads}
    prior = CausalLM(GPT2LMHeadModel(gpt2_config(alphabet, tokens.shape[1], **sizes)), alphabet)
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
