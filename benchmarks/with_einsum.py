"""opt_einsum as a contender: one planned contraction for each answer."""

from __future__ import annotations

from math import prod
from typing import Any

import opt_einsum
import torch
from torch import Tensor

from .problem import Answer, Limits, Problem

_FLOAT = 4


class Einsum:
    """Contractions of dense tables and priors over a candidate index, their order planned once by
    opt_einsum and run in torch. What several of them need alike is computed once
    (`shared_intermediates`). A joint sample draws source after source, each given those before;
    a drawn token takes its row of a table. Raises LeftOut where the tables do not fit."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        limits.hold(_FLOAT * prod(problem.chained[0].shape) * len(problem.chained), "dense tables")
        rows = limits.rows_of(problem.case.candidates, 2 * _FLOAT * problem.case.k**2)
        self.problem = problem.first(rows)
        made = {id(t): t.dense(torch.float32).to(problem.device) for t in problem.chained}
        *self.inner, last = (made[id(table)] for table in problem.chained)
        self.last = last[..., problem.token].contiguous()
        self.random = torch.Generator(problem.device).manual_seed(0)
        self._planned: dict[str, Any] = {}

    def _contract(self, equation: str, *operands: Tensor) -> Tensor:
        if equation not in self._planned:
            shapes = [operand.shape for operand in operands]
            self._planned[equation] = opt_einsum.contract_expression(equation, *shapes)
        out: Tensor = self._planned[equation](*operands, backend="torch")
        return out

    def _rest(self, source: int, priors: list[Tensor]) -> tuple[list[str], list[Tensor]]:
        """Terms and operands of what lies behind source number `source` along the chain. Its own
        partial mixture is "m0" ... and z its token: letters by place."""
        terms, operands = [], []
        for place in range(source, len(priors)):
            table = self.last if place == len(priors) - 1 else self.inner[place - 1]
            mixed, z = _mixed(place - 1), _token(place)
            terms.append(mixed + z + (_mixed(place) if table.ndim == 3 else ""))
            operands.append(table)
            terms.append("c" + z)
            operands.append(priors[place])
        return terms, operands

    def _terms(self, priors: list[Tensor]) -> tuple[list[str], list[Tensor]]:
        terms, operands = self._rest(1, priors)
        return ["c" + _mixed(0), *terms], [priors[0], *operands]

    def sample(self) -> dict[str, Tensor]:
        priors = self.problem.priors()
        with opt_einsum.shared_intermediates():
            terms, operands = self._terms(priors)
            z = self._pick(self._contract(f"{','.join(terms)}->c{_mixed(0)}", *operands))
            drawn, mixed = [z], z
            for place in range(1, len(priors)):
                table = self.last if place == len(priors) - 1 else self.inner[place - 1]
                rows, out = table[mixed], _token(place)  # [C, K_z] or [C, K_z, K_m]
                terms, operands = self._rest(place + 1, priors)
                seen = "c" + out + (_mixed(place) if rows.ndim == 3 else "")
                equation = ",".join([seen, "c" + out, *terms])
                operands = [rows, priors[place], *operands]
                z = self._pick(self._contract(f"{equation}->c{out}", *operands))
                drawn.append(z)
                if rows.ndim == 3:  # the partial mixture, given the source's token
                    cells = rows[torch.arange(len(z), device=z.device), z]
                    equation = ",".join(["c" + _mixed(place), *terms])
                    operands = [cells, *operands[2:]]
                    mixed = self._pick(self._contract(f"{equation}->c{_mixed(place)}", *operands))
        return dict(zip(self.problem.sources, drawn, strict=True))

    def marginals(self) -> Answer:
        priors = self.problem.priors()
        terms, operands = self._terms(priors)
        equation, found = ",".join(terms), {}
        with opt_einsum.shared_intermediates():
            for place, name in enumerate(self.problem.sources):
                out = _token(place) if place else _mixed(0)
                found[name] = self._contract(f"{equation}->c{out}", *operands)
        evidence = found[self.problem.sources[0]].sum(1)
        return evidence.log(), {name: mass / evidence[:, None] for name, mass in found.items()}

    def _pick(self, weights: Tensor) -> Tensor:
        return torch.multinomial(weights, 1, generator=self.random)[:, 0]


def _token(place: int) -> str:
    return "ghijklmnop"[place]


def _mixed(place: int) -> str:
    return "qrstuvwxyz"[place]
