"""Classes for a trained prior: one begin token each, and nothing else of it moves."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import DataError, OptionError, PriorError
from ..priors import CausalLM
from .prior import nats_of

Progress = Callable[[int, int], None]
Report = Callable[[int, float, float], None]
"""Called with the epoch (0: before training) and the validation nats a token with the label and
without it."""


def add_labels(
    prior: CausalLM,
    tokens: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor],
    *,
    epochs: int = 1,
    batch_size: int = 128,
    rate: float = 1e-2,
    seed: int = 0,
    progress: Progress | None = None,
    report: Report | None = None,
) -> CausalLM:
    """Make a trained prior class-conditional: p(z_t | z_{<t}, label).

    Each class gets a begin token. It starts as the unconditional one, so that training begins at
    the unconditional prior, and its embedding is all that is trained, by AdamW without decay on a
    cosine schedule: a prompt of one token (Lester et al., 2021, "The power of scale for
    parameter-efficient prompt tuning"). All other weights stay as they are, and with them, bit for
    bit, what the prior says without a label. `prior` itself is left alone.

    tokens: int64 [N, T]; labels: int64 [N], the class of each, 0 to the largest; validation: such a
    pair, on which the epoch that is returned is chosen and `report` is made. rate: learning rate of
    the embeddings. progress: called with (done, total) steps. The global random state is neither
    used nor moved.

    Raises OptionError on impossible options, DataError on labels that do not fit the tokens and on
    less than one batch, and PriorError where the prior has classes already.
    """
    if epochs < 1 or batch_size < 1 or not 0 < rate < float("inf"):
        raise OptionError(
            "epochs and batch_size must be at least 1 and rate positive, got "
            f"{epochs}, {batch_size} and {rate}."
        )
    classes = _check(prior.alphabet, tokens, labels, *validation, batch_size)
    if prior.labels:
        raise PriorError(
            f"this prior has {prior.labels} classes already; add labels to the unconditional one."
        )
    model = copy.deepcopy(prior.model).eval().requires_grad_(False)
    out = CausalLM(model, prior.alphabet, classes, begin=prior.begin)
    rows = out.classes.weight
    tokens, labels, held, own = (x.to(rows.device) for x in (tokens, labels, *validation))
    optimiser = torch.optim.AdamW([rows], rate, betas=(0.9, 0.98), weight_decay=0.0)
    steps = epochs * (len(tokens) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    plain, nats, done = nats_of(out, held), nats_of(out, held, own), 0
    best = rows.detach().clone()
    if report is not None:
        report(0, nats, plain)
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(tokens), generator=generator).to(rows.device)
        for batch in order[: steps // epochs * batch_size].split(batch_size):
            with torch.enable_grad():
                logs = out(tokens[batch], labels[batch])
                loss = -logs.gather(2, tokens[batch][..., None]).mean()
                (rows.grad,) = torch.autograd.grad(loss, rows)
            optimiser.step()
            schedule.step()
            done += 1
            if progress is not None:
                progress(done, steps)
        if (found := nats_of(out, held, own)) < nats:
            best, nats = rows.detach().clone(), found
        if report is not None:
            report(epoch, found, plain)
    rows.data.copy_(best)
    return out.requires_grad_(False)


def _check(
    alphabet: int,
    tokens: Tensor,
    labels: Tensor,
    held: Tensor,
    held_labels: Tensor,
    batch_size: int,
) -> int:
    """The number of classes."""
    for name, these, own in (("training", tokens, labels), ("validation", held, held_labels)):
        if these.ndim != 2 or tuple(own.shape) != (len(these),) or own.is_floating_point():
            raise DataError(
                f"expected {name} tokens [N, T] and one integer label for each of N, got "
                f"{list(these.shape)} and {own.dtype} {list(own.shape)}."
            )
    if len(tokens) < batch_size or not len(held):
        raise DataError(
            f"expected at least one batch of {batch_size} to train on and something to validate "
            f"with, got {len(tokens)} and {len(held)}."
        )
    if not all(0 <= int(x.min()) <= int(x.max()) < alphabet for x in (tokens, held)):
        raise DataError(f"tokens must lie in the prior's alphabet, [0, {alphabet}).")
    classes = int(labels.max()) + 1
    missing = sorted(set(range(classes)) - set(labels.unique().tolist()))
    if int(labels.min()) < 0 or missing:
        raise DataError(
            f"labels must be 0 to the largest, each of them present, got labels from "
            f"{int(labels.min())} to {classes - 1}" + (f" without {missing}." if missing else ".")
        )
    if not 0 <= int(held_labels.min()) <= int(held_labels.max()) < classes:
        raise DataError(
            f"validation labels must lie in [0, {classes}), got [{int(held_labels.min())}, "
            f"{int(held_labels.max())}]."
        )
    return classes
