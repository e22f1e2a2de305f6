"""Exponentials of logarithms that lie far below zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def exponential(log: Tensor) -> Tensor:
    """exp(log) of logarithms up to 0, and zero where it is less than about the smallest float:
    there, and of -inf, processors take ten times as long. Overwrites `log`."""
    least = 0.97 * math.log(torch.finfo(log.dtype).tiny)
    out = log.clamp_min_(least).exp_()
    return torch.threshold_(out, math.exp(0.999 * least), 0.0)
