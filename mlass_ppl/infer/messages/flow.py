"""The messages of some rows on any factor graph, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...graph import Factor
from ..algebra import Algebra
from ..kernels import Kernel, LikelihoodKernel
from .schedule import Step
from .sweeps import Sweep

Key = tuple[str, str]
"""(factor, site) of a message."""


@dataclass(frozen=True)
class Flow:
    """N rows that share nothing.

    sizes: alphabet of each site. unary: lifted weights [N, K] of latent sites; known: tokens int64
    [N] of all others. scale: log of what was divided out of weights and kernels [N]. messages: from
    factors to sites [N, K], largest entry 1; one that was not sent yet is flat.
    """

    algebra: Algebra
    sweep: Sweep
    sizes: Mapping[str, int]
    kernels: Mapping[str, Kernel]
    unary: Mapping[str, Tensor]
    known: Mapping[str, Tensor]
    scale: Tensor
    messages: dict[Key, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scale)

    def at(self, index: Tensor) -> Flow:
        """The flow of some rows, a copy."""
        return replace(
            self,
            kernels={
                name: kernel.rows(index) if isinstance(kernel, LikelihoodKernel) else kernel
                for name, kernel in self.kernels.items()
            },
            unary={name: weights[index] for name, weights in self.unary.items()},
            known={name: tokens[index] for name, tokens in self.known.items()},
            scale=self.scale[index],
            messages={key: message[index] for key, message in self.messages.items()},
        )

    def put(self, index: Tensor, other: Flow) -> None:
        """Take the messages of some rows."""
        for key, message in other.messages.items():
            if key not in self.messages:
                self.messages[key] = message.new_zeros(len(self), message.shape[1])
            self.messages[key][index] = message

    def clamped(self, site: str, tokens: Tensor, sweep: Sweep) -> Flow:
        """The flow with the token [N] of one more site known; the other messages stay."""
        return replace(
            self,
            sweep=sweep,
            unary={name: weights for name, weights in self.unary.items() if name != site},
            known={**self.known, site: tokens},
            messages={key: m for key, m in self.messages.items() if key[1] != site},
        )

    def belief(self, site: str, without: str | None = None) -> tuple[Tensor, Tensor]:
        """Product of a site's own weights and of its messages, but that of one factor: [N, K] with
        largest entry 1, and the logarithm of what was divided out [N]."""
        parts = [self.unary[site]] if site in self.unary else []
        for factor in self.sweep.around[site]:
            if factor != without and (factor, site) in self.messages:
                parts.append(self.messages[factor, site])
        if not parts:
            flat = self.scale.new_zeros(len(self), self.sizes[site])
            return self.algebra.lift(flat)[0], torch.zeros_like(self.scale)
        return self.algebra.peak(self.algebra.times(parts))

    def send(self, step: Step, known: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """A factor's message to a site, largest entry 1, and the logarithm of what was divided out
        of it and of what came in. known: tokens of more sites than the given ones."""
        known = known or {}
        incoming, given = {}, {step.axis(name): self.known[name] for name in step.given}
        scale = torch.zeros_like(self.scale)
        for name in step.others:
            if name in known:
                given[step.axis(name)] = known[name]
                continue
            incoming[step.axis(name)], top = self.belief(name, step.factor.name)
            scale = scale + top
        kernel = self.kernels[step.factor.name]
        message = kernel.message(step.axis(step.target), incoming, given)
        message, top = self.algebra.peak(message)
        return message, scale + top

    def log_evidence(self) -> Tensor:
        """Bethe's approximation, nats [N]: the sum over factors f of log Z_f, and over sites s of
        (1 - degree) log Z_s, where Z_f and Z_s are the masses of their unnormalised beliefs. At a
        fixed point it is minus Bethe's free energy (Yedidia, Freeman and Weiss, 2005); on a forest
        it is exact."""
        parts = [self.entry(factor, self.known) for factor in self.sweep.constants]
        done = set()
        for step in self.sweep.steps:
            if step.factor.name not in done:
                done.add(step.factor.name)
                message, scale = self.send(step)
                rest, top = self.belief(step.target, step.factor.name)
                parts.append(self.algebra.log_total(self.algebra.times([message, rest])))
                parts[-1] = parts[-1] + scale + top
        for site in self.sweep.sites:
            belief, top = self.belief(site)
            total = self.algebra.log_total(belief) + top
            degree = len(self.sweep.around[site])
            impossible = total == float("-inf")
            parts.append(torch.where(impossible, total, (1 - degree) * total))
        return torch.stack([self.scale, *parts]).sum(0)

    def entry(self, factor: Factor, tokens: Mapping[str, Tensor]) -> Tensor:
        """Log of a factor's entry at the tokens [N] of its sites, nats."""
        first, *rest = factor.tokens
        given = {factor.scope.index(name): tokens[name] for name in rest}
        row = self.kernels[factor.name].message(factor.scope.index(first), {}, given)
        return self.algebra.log_total(row.gather(1, tokens[first][:, None]))

    def log_joint(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Log of the joint probability of tokens [N] of all latent sites and the evidence, nats."""
        all_ = {**self.known, **tokens}
        out = self.scale
        for name, weights in self.unary.items():
            out = out + self.algebra.log_total(weights.gather(1, tokens[name][:, None]))
        factors = {step.factor for step in self.sweep.steps} | set(self.sweep.constants)
        for factor in sorted(factors, key=lambda f: f.name):
            out = out + self.entry(factor, all_)
        return out
