"""One run of loopy belief propagation: sweeps until nothing changes, then decimation."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from ..joint import Pick
from .flow import Flow, Key
from .sweeps import Sweep

Choose = Callable[[str, Tensor, Tensor], Tensor]
"""choose(site, rows [N], weights [N, K]): a token of each row, -1 where it has no mass."""


_TRIES = 100


@dataclass(frozen=True)
class Setting:
    """How messages are passed. sweep(latent sites) is made once for each set of them."""

    damping: float
    tolerance: float
    max_steps: int
    sweep: Callable[[frozenset[str]], Sweep]


class LoopyPass:
    """Sweeps over N rows until the messages of each change no more; converged rows stand still.

    A step is one sweep. Messages on a cycle are damped, new (1 - d) + old d: in linear space, where
    what once was nearly zero can come back in one step. An exact zero of a new message is kept:
    supports only shrink, so that it is proof, as in constraint propagation.

    converged, steps, change: of each row; change is the largest difference between an entry of a
    message (its largest is 1) and of its update, before damping, in the last sweep. A row without
    mass is impossible, and converged. weak: rows near underflow in linear space. log_evidence:
    Bethe's, where `evidence` asks for it.
    """

    log_evidence: Tensor

    def __init__(self, setting: Setting, flow: Flow, evidence: bool = True) -> None:
        self._setting, self.flow = setting, flow
        like = flow.scale
        self._safe = flow.algebra.safe(like.dtype)
        # Messages wander within their rounding errors: no smaller tolerance can be met.
        self._tolerance = max(setting.tolerance, 16 * torch.finfo(like.dtype).eps)
        self.weak = torch.zeros(len(flow), dtype=torch.bool, device=like.device)
        self.converged, self._impossible = self.weak.clone(), self.weak.clone()
        self.steps = torch.zeros(len(flow), dtype=torch.int64, device=like.device)
        self.change = torch.zeros_like(like)
        for factor in flow.sweep.constants:
            self._impossible |= flow.entry(factor, flow.known) == float("-inf")
        self._settle()
        if evidence:
            self.log_evidence = flow.log_evidence()

    def rows(self, index: Tensor) -> LoopyPass:
        """The pass of some rows, int64 [R'], with its messages."""
        out = copy(self)
        out.flow = self.flow.at(index)
        for name in ("weak", "converged", "steps", "change", "_impossible", "log_evidence"):
            setattr(out, name, getattr(self, name)[index])
        return out

    def log_joint(self, tokens: dict[str, Tensor]) -> Tensor:
        """Log joint probability of an assignment and the evidence [R], -inf where it is -1."""
        held = {name: token.clamp_min(0) for name, token in tokens.items()}
        out = self.flow.log_joint(held)
        return torch.where(_complete(tokens), out, float("-inf"))

    def _settle(self) -> None:
        flow, index = self.flow, torch.arange(len(self.flow), device=self.weak.device)
        for _ in range(self._setting.max_steps if flow.sweep.cyclic else 1):
            stay = ~(self.converged | self.weak | self._impossible)[index]
            if not stay.all():
                if flow is not self.flow:
                    self.flow.put(index, flow)
                index = index[stay]
                flow = self.flow.at(index)
            if not len(index):
                break
            self._sweep(flow, index)
        if flow is not self.flow:
            self.flow.put(index, flow)
        self.converged |= self._impossible
        if not flow.sweep.cyclic:
            self.converged |= ~self.weak

    def _sweep(self, flow: Flow, index: Tensor) -> None:
        sweep, algebra = flow.sweep, flow.algebra
        change, depth = torch.zeros_like(flow.scale), dict[Key, Tensor]()
        for step in sweep.steps:
            new, scale = flow.send(step)
            name = step.factor.name
            depth[name, step.target] = deep = sum(
                (self._deep(flow, depth, site, name) for site in step.others), scale
            )
            self._note(index, deep)
            old = flow.messages.get((name, step.target))
            if old is None:
                gap = torch.ones_like(change)
            else:
                gap = (algebra.weights(new) - algebra.weights(old)).abs().amax(-1)
                if (name, step.target) in sweep.cyclic:
                    new, _ = algebra.peak(algebra.blend(new, old, self._setting.damping))
            change = torch.maximum(change, gap)
            flow.messages[name, step.target] = new
        for site in sweep.sites:
            _, top = flow.belief(site)
            self._note(index, top + self._deep(flow, depth, site))
        self.steps[index] += 1
        self.change[index] = change
        self.converged[index] = change < self._tolerance

    def _deep(
        self, flow: Flow, depth: dict[Key, Tensor], site: str, without: str | None = None
    ) -> Tensor:
        """Log of all that this sweep divided out of the messages to a site: what underflowed may
        matter once it is as small as what is left."""
        out = torch.zeros_like(flow.scale)
        for factor in flow.sweep.around[site]:
            if factor != without and (factor, site) in depth:
                out = out + depth[factor, site]
        return out

    def _note(self, index: Tensor, log_mass: Tensor) -> None:
        self.weak[index] |= log_mass < self._safe
        self._impossible[index] |= log_mass == float("-inf")

    def marginals(self) -> dict[str, Tensor]:
        """The beliefs, {site: [R, K]}, each with sum 1 (zero in impossible rows)."""
        return {name: self._share(self.flow.belief(name)[0]) for name in self.flow.sweep.sites}

    def messages(self) -> dict[Key, Tensor]:
        """Messages by (factor, site), each with sum 1 (zero in impossible rows)."""
        out, flow = {}, self.flow
        for step in flow.sweep.steps:
            key = (step.factor.name, step.target)
            nothing = flow.scale.new_zeros(len(flow), flow.sizes[step.target])
            out[key] = self._share(flow.messages[key]) if key in flow.messages else nothing
        return out

    def _share(self, message: Tensor) -> Tensor:
        weight = self.flow.algebra.weights(message)
        total = weight.sum(-1, keepdim=True)
        possible = (total > 0) & ~self._impossible[:, None]
        return torch.where(possible, weight / torch.where(possible, total, 1.0), 0.0)

    def descend(self, pick: Pick) -> dict[str, Tensor]:
        """As `decimate`, for a `pick` that looks at the weights alone."""
        return self.decimate(lambda site, rows, weights: pick(weights))

    def decimate(self, choose: Choose, tried: Tensor | None = None) -> dict[str, Tensor]:
        """Assign all sites together, -1 in rows that got stuck.

        While cycles are left, the site that closes most of them is chosen from its belief and
        clamped, and the messages settle again; the forest that remains is assigned exactly, from
        its roots down. A choice that leaves the rest impossible is taken back and its token
        excluded, for that row alone: a search that is given up after 100 choices. tried: how many
        a row has made [N], counted on.
        """
        flow, site = self.flow, self.flow.sweep.cut
        if site is None:
            return self._descend(choose)
        tried = torch.zeros_like(self.steps) if tried is None else tried
        weights = flow.algebra.weights(flow.belief(site)[0]).clone()
        out = {name: torch.full_like(self.steps, -1) for name in flow.sweep.sites}
        index = (~(self.weak | self._impossible)).nonzero()[:, 0]
        sweep = self._setting.sweep(frozenset(flow.sweep.sites) - {site})
        while len(index):
            token = choose(site, index, weights[index])
            go_on = (token >= 0) & (tried[index] < _TRIES)
            index, token = index[go_on], token[go_on]
            tried[index] += 1
            rest = LoopyPass(self._setting, flow.at(index).clamped(site, token, sweep), False)
            deeper = tried[index]
            found = rest.decimate(_at(choose, index), deeper)
            tried[index] = deeper
            good = _complete(found)
            for name, tokens in {**found, site: token}.items():
                out[name][index[good]] = tokens[good]
            self.weak[index] |= rest.weak
            weights[index, token] = 0
            index = index[~good & ~rest.weak]
        return out

    def _descend(self, choose: Choose) -> dict[str, Tensor]:
        """Assign a forest from the roots down, each site given those above it."""
        flow, known = self.flow, dict[str, Tensor]()
        rows = torch.arange(len(flow), device=self.weak.device)
        for site in flow.sweep.sites:
            step = flow.sweep.above.get(site)
            if step is None:
                weight, top = flow.belief(site)
            else:
                # Impossible rows carry -1; any token serves them, since they are marked at the end.
                held = {name: tokens.clamp_min(0) for name, tokens in known.items()}
                message, scale = flow.send(step, held)
                rest, other = flow.belief(site, step.factor.name)
                weight, top = flow.algebra.peak(flow.algebra.times([message, rest]))
                top = top + scale + other
            self._note(rows, top)
            known[site] = choose(site, rows, flow.algebra.weights(weight))
        complete = _complete(known) & ~self._impossible
        return {name: torch.where(complete, tokens, -1) for name, tokens in known.items()}


def _complete(tokens: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(tokens.values())).amin(0) >= 0


def _at(choose: Choose, index: Tensor) -> Choose:
    return lambda site, rows, weights: choose(site, index[rows], weights)
