"""What loopy belief propagation answers: beliefs, and joint assignments by decimation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import ConvergenceWarning
from ..best import k_best
from ..joint import JointPosterior, Pass, largest
from ..position import Position
from ..random import Draws, Random, uniforms
from .loopy import LoopyPass

if TYPE_CHECKING:
    from ..loopy import LoopyPlan


class LoopyPosterior(JointPosterior):
    """Answers from beliefs; joint ones by decimation.

    converged bool, steps int64, change float, all [M, C]: whether each row settled, after how many
    sweeps, and the largest change of a message that was left.
    """

    _plan: LoopyPlan
    _pass: LoopyPass

    converged: Tensor
    steps: Tensor
    change: Tensor

    def __init__(self, plan: LoopyPlan, position: Position, warn: bool = True) -> None:
        self._mended: tuple[Tensor, LoopyPass] | None = None
        self._warn = warn
        super().__init__(plan, position)
        run, rows = self._pass, self._weak()
        converged, steps, change = run.converged.clone(), run.steps.clone(), run.change.clone()
        if len(rows):
            again = self._again(rows)
            converged[rows], steps[rows], change[rows] = again.converged, again.steps, again.change
        self.converged = converged.reshape(position.shape)
        self.steps = steps.reshape(position.shape)
        self.change = change.reshape(position.shape)
        self._tell(converged, change, "sum-product", 4)
        self._found: dict[str, Tensor] | None = None
        if run.flow.sweep.cyclic and not plan.is_positive(position):
            # Messages agree with each other on tokens that no joint assignment has: look for one.
            self._found = self._ask(lambda run, _: run.descend(largest))
            stuck = self._found[self.graph.latent[0]] < 0
            self.log_evidence[stuck.reshape(position.shape)] = float("-inf")

    def _again(self, rows: Tensor) -> LoopyPass:
        if self._mended is None or not torch.equal(self._mended[0], rows):
            self._mended = rows, self._plan.run(self.position.rows(rows), "sum")
        return self._mended[1]

    def of(self, parents: Tensor) -> LoopyPosterior:
        out = super().of(parents)
        assert isinstance(out, LoopyPosterior)
        for name in ("converged", "steps", "change"):
            setattr(out, name, getattr(self, name).gather(1, parents))
        if self._found is not None:
            shape = self.position.shape
            out._found = {
                name: tokens.reshape(shape).gather(1, parents).flatten()
                for name, tokens in self._found.items()
            }
        out._mended = None
        return out

    def _of(self, position: Position) -> LoopyPosterior:
        return LoopyPosterior(self._plan, position, warn=False)

    def _tell(self, converged: Tensor, change: Tensor, what: str, level: int) -> None:
        """Warn once, the caller `level` calls up."""
        if self._warn and not (settled := converged.reshape(-1)).all():
            self._warn = False
            engine = self._plan.engine
            more = f"LoopyBP(damping={(1 + engine.damping) / 2:.3g}, ...)"
            warnings.warn(
                f"{engine!r} on '{self.graph.name}': {int((~settled).sum())} of {len(settled)} "
                f"rows did not settle within {engine.max_steps} steps of {what} (largest remaining "
                f"change of a message: {float(change[~settled].max()):.2g}). Take their answers "
                f"as hints, or try more damping, {more}, or Exact().",
                ConvergenceWarning,
                stacklevel=level,
            )

    def _filled(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        """With the assignment that is known in rows where decimation got stuck."""
        if self._found is None:
            return tokens
        return {
            name: torch.where(values < 0, self._found[name], values)
            for name, values in tokens.items()
        }

    def sample(self, random: Random) -> dict[str, Tensor]:
        """One draw for each row by decimation: of a site that closes cycles, drawn from its belief
        and clamped, the messages settling again, until a forest is left, which is drawn exactly.

        On a tree this is an exact joint sample; else its distribution is as near to the posterior
        as the beliefs are. A draw that leaves no possible assignment is taken back; where that
        keeps happening, the row has the assignment by which it is known to be possible.
        """
        latent = self.graph.latent
        uniform = uniforms(random, *self.position.shape, len(latent)).flatten(0, 1)
        uniform = uniform.to(self.log_evidence.device)

        def question(run: Pass, rows: Tensor) -> dict[str, Tensor]:
            assert isinstance(run, LoopyPass)
            return run.decimate(Draws(latent, uniform[rows]))

        return self._shaped(self._filled(self._ask(question)), self._possible)

    def mode(self) -> dict[str, Tensor]:
        """The best joint assignment that decimation finds; on a tree the best of all."""
        run = self._plan.run(self.position, "max")
        self._tell(run.converged, run.change, "max-product", 3)
        return self._shaped(self._filled(run.descend(largest)), self._possible)

    def topk(self, k: int) -> tuple[dict[str, Tensor], Tensor]:
        """As `Posterior.topk`, of the assignments that decimation finds, as in Yanover and Weiss
        (2003); log probabilities are relative to Bethe's evidence."""

        def best(position: Position) -> tuple[dict[str, Tensor], Tensor]:
            run = self._plan.run(position, "max")
            tokens = run.descend(largest)
            return tokens, run.log_joint(tokens)

        sizes = {name: self._plan.sizes[name] for name in self.graph.latent}
        tokens, log = k_best(best, self.position, sizes, k)
        log, order = torch.where(self._possible[:, None], log, float("-inf")).sort(1, True)
        shape = self.position.shape
        found = {
            name: torch.where(log > float("-inf"), values.gather(1, order), -1).unflatten(0, shape)
            for name, values in tokens.items()
        }
        log = log - torch.where(self._possible, self.log_evidence.reshape(-1), 0.0)[:, None]
        return found, log.unflatten(0, shape)

    def pairwise(self, first: str, second: str) -> Tensor:
        """p(first, second | evidence), from Bethe's evidence and the beliefs given each token of
        `first`, scaled to sum 1: float [M, C, K_first, K_second]."""
        table = super().pairwise(first, second)
        total = table.sum((-1, -2), keepdim=True)
        return table / torch.where(total > 0, total, 1.0)

    def messages(self) -> dict[tuple[str, str], Tensor]:
        """Messages by (factor, site), each row scaled to sum 1: {...: [M, C, K]}."""
        out = self._pass.messages()
        if len(rows := self._weak()):
            for key, value in self._again(rows).messages().items():
                out[key][rows] = value
        return {
            key: torch.where(self._possible[:, None], value, 0.0).unflatten(0, self.position.shape)
            for key, value in out.items()
        }
