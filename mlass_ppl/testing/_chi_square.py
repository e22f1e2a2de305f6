"""Pearson's test, without scipy."""

from __future__ import annotations

import torch
from torch import Tensor


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    """p-value of `counts` having been drawn from `probabilities` (arrays of one shape).

    Cells of fewer than five expected draws are pooled; 0 where something impossible was drawn, 1
    where one cell holds everything, so that there is nothing to test.
    """
    found, p = counts.flatten().double(), probabilities.flatten().double()
    if (found[p == 0] > 0).any():
        return 0.0
    wanted = p * found.sum()
    small = wanted < 5
    found = torch.cat([found[~small], found[small].sum()[None]])
    wanted = torch.cat([wanted[~small], wanted[small].sum()[None]])
    if wanted[-1] < 5 and len(wanted) > 1:  # joins the smallest of the others
        least = int(wanted[:-1].argmin())
        found[least] += found[-1]
        wanted[least] += wanted[-1]
        found, wanted = found[:-1], wanted[:-1]
    if len(wanted) < 2:
        return 1.0
    statistic = ((found - wanted).square() / wanted).sum()
    freedom = torch.tensor(len(wanted) - 1, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom / 2, statistic / 2))
