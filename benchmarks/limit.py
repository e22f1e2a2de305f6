"""How near the dominant contraction comes to what the machine can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import mlass_ppl as mlass

from .measure import Plan, median_ms, times
from .problem import Problem

_SIDE = 1536
_COPIED = 1 << 26
_FLOAT = 4


def limits(problem: Problem, plan: Plan) -> dict[str, Any]:
    """The message of a chain's first partial mixture to its first parent, all candidates at once,
    against the rates of a large matrix product and of a large copy, which are measured in turn with
    it.

    operations: one multiplication and addition for each filled cell, and for each pair of parents,
    of each candidate. bytes: each cell (a value and a number of 32 bits) and each message read or
    written once. Shares are the least time over the measured one: 1 would be the limit.
    """
    device, table = problem.device, problem.chained[0]
    k, rows, cells = problem.case.k, problem.case.candidates, len(table.keys)
    plan_of: Any = mlass.BP().plan(problem.graph, problem.tables)
    given = {"mixture": torch.tensor([problem.token], device=device)}
    position = plan_of.position(problem.log_priors, given)
    kernel = plan_of.kernels(position, "linear")[1][problem.graph.factors[0].name]
    random = torch.Generator().manual_seed(0)
    child = torch.rand(rows, k, generator=random).to(device)
    prior = problem.log_priors[problem.sources[1]][0].exp()
    left, right = (torch.rand(_SIDE, _SIDE, device=device) for _ in range(2))
    source = torch.zeros(_COPIED, device=device)
    target = torch.empty_like(source)
    calls: dict[str, Callable[[], Tensor]] = {
        "message": lambda: kernel.message(1, {0: child, 2: prior}, {}),
        "product": lambda: left @ right,
        "copy": lambda: target.copy_(source),
    }
    took = {name: median_ms(s) / 1e3 for name, s in times(calls, plan, device).items()}
    operations = 2.0 * rows * (cells + k * k)
    moved = float(cells * 2 * _FLOAT + 3 * rows * k * _FLOAT)
    flops, bandwidth = 2.0 * _SIDE**3 / took["product"], 2.0 * _COPIED * _FLOAT / took["copy"]
    return {
        "part": "limit",
        **asdict(problem.case),
        "device": str(device),
        "cells": cells,
        "kernel": type(kernel).__name__,
        "ms": 1e3 * took["message"],
        "operations": operations,
        "bytes": moved,
        "gemm_gflops": flops / 1e9,
        "copy_gb_per_s": bandwidth / 1e9,
        "share_of_gemm": operations / flops / took["message"],
        "share_of_bandwidth": moved / bandwidth / took["message"],
    }
