"""Messages on a forest: one upward pass for the evidence, one downward for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy

import torch
from torch import Tensor

from ..algebra import Algebra
from ..kernels import Kernel, LikelihoodKernel
from ..position import Position
from .schedule import Schedule, Step

Pick = Callable[[Tensor], Tensor]


class MessagePass:
    """Sum-product (or max-product) for R rows that share nothing.

    kernels: by factor name. scale: log of what the kernels divided out [R]. The upward pass runs at
    construction; `log_evidence` [R] is its result (in the max semiring, the log probability of the
    best assignment). `weak` marks the rows whose numbers came near underflow in linear space, so
    that an answer may have lost mass.
    """

    weak: Tensor

    def __init__(
        self,
        schedule: Schedule,
        kernels: Mapping[str, Kernel],
        algebra: Algebra,
        position: Position,
        sizes: Mapping[str, int],
        scale: Tensor,
    ) -> None:
        self._schedule, self._kernels, self._algebra = schedule, kernels, algebra
        self._given, self._sizes = position.known, sizes
        self._unary: dict[str, Tensor] = {}
        lifted = scale
        for name, log in position.unary.items():
            self._unary[name], top = algebra.lift(log)
            lifted = lifted + top
        self._like = like = position.like
        self._safe = algebra.safe(like.dtype)
        self.weak = torch.zeros(len(position), dtype=torch.bool, device=like.device)
        self._messages: dict[tuple[str, str], Tensor] = {}
        scale = torch.zeros_like(like[:, 0])
        for step in schedule.upward:
            message, top = algebra.rescale(self._send(step, step.target, step.others, {}))
            self._messages[step.factor.name, step.target] = message
            # What all steps divided out together counts: each divides what underflowed before it.
            scale = scale + top
            self._note(scale)
        for root in schedule.roots:
            scale = scale + algebra.log_total(self.belief(root))
            self._note(scale)
        for factor in schedule.constants:
            first, *rest = factor.tokens
            tokens = {factor.scope.index(name): self._given[name] for name in rest}
            row = kernels[factor.name].message(factor.scope.index(first), {}, tokens)
            scale = scale + algebra.log_total(row.gather(1, self._given[first][:, None]))
        self.log_evidence = scale + lifted

    def rows(self, index: Tensor) -> MessagePass:
        """The pass of some rows, int64 [R'], with every message that was sent."""
        out = copy(self)
        out._kernels = {
            name: kernel.rows(index) if isinstance(kernel, LikelihoodKernel) else kernel
            for name, kernel in self._kernels.items()
        }
        out._given = {name: tokens[index] for name, tokens in self._given.items()}
        out._unary = {name: weights[index] for name, weights in self._unary.items()}
        out._messages = {key: message[index] for key, message in self._messages.items()}
        out._like, out.weak = self._like[index], self.weak[index]
        out.log_evidence = self.log_evidence[index]
        return out

    def _note(self, log_mass: Tensor) -> None:
        self.weak |= log_mass < self._safe

    def belief(self, name: str, without: str | None = None) -> Tensor:
        """Product of a site's own weights and of all messages to it but that of one factor."""
        parts = [self._unary[name]] if name in self._unary else []
        parts += [
            message
            for (factor, target), message in self._messages.items()
            if target == name and factor != without
        ]
        if parts:
            return self._algebra.times(parts)
        return self._algebra.lift(self._like.new_zeros(len(self._like), self._sizes[name]))[0]

    def _send(
        self, step: Step, to: str, others: tuple[str, ...], known: Mapping[str, Tensor]
    ) -> Tensor:
        """Message of a factor to one of its sites, its other latent sites weighted or known."""
        factor = step.factor
        incoming = {
            step.axis(name): self.belief(name, without=factor.name)
            for name in others
            if name not in known
        }
        given = {step.axis(name): self._given[name] for name in step.given}
        given |= {step.axis(name): known[name] for name in others if name in known}
        return self._kernels[factor.name].message(step.axis(to), incoming, given)

    def descend(self, pick: Pick) -> dict[str, Tensor]:
        """Assign every latent site from the roots down, each by `pick(weights [R, K]) -> [R]`.

        Drawing makes this a joint sample (forward filtering, backward sampling); the largest
        weight of max-product messages makes it the mode.
        """
        known: dict[str, Tensor] = {}
        for root in self._schedule.roots:
            known[root] = self._pick(pick, self.belief(root))
        for step in reversed(self._schedule.upward):
            family = (step.target, *step.others)
            for name in step.others:
                # Impossible rows carry -1; any token serves them, since they are marked at the end.
                fixed = {k: v.clamp_min(0) for k, v in known.items()}
                rest = tuple(other for other in family if other != name)
                message = self._send(step, name, rest, fixed)
                weight = self._algebra.times([message, self.belief(name, step.factor.name)])
                known[name] = self._pick(pick, weight)
        return known

    def _pick(self, pick: Pick, message: Tensor) -> Tensor:
        self._note(self._algebra.log_total(message))
        return pick(self._algebra.weights(message))

    def marginals(self) -> dict[str, Tensor]:
        """p(site | evidence) [R, K] of every latent site, by the downward pass."""
        for step in reversed(self._schedule.upward):
            family = (step.target, *step.others)
            for name in step.others:
                rest = tuple(other for other in family if other != name)
                message, top = self._algebra.rescale(self._send(step, name, rest, {}))
                self._note(top)
                self._messages[step.factor.name, name] = message
        out = {}
        names = {*self._schedule.roots, *(name for s in self._schedule.upward for name in s.others)}
        for name in names:
            belief = self.belief(name)
            self._note(self._algebra.log_total(belief))
            weight = self._algebra.weights(belief)
            total = weight.sum(-1, keepdim=True)
            out[name] = weight / torch.where(total > 0, total, torch.ones_like(total))
        return out

    def sent(self) -> tuple[tuple[str, str], ...]:
        """(factor, site) of every message sent so far."""
        return tuple(self._messages)

    def normalised(self, key: tuple[str, str]) -> Tensor:
        """A message [R, K] scaled to sum 1 (zero where it has no mass)."""
        weight = self._algebra.weights(self._messages[key])
        total = weight.sum(-1, keepdim=True)
        return weight / torch.where(total > 0, total, torch.ones_like(total))
