"""Belief propagation on trees of mixtures: MLASS-BP (Scarcelli, 2024), made exact."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from ..errors import OptionError
from ..graph import MixingGraph
from ..tables.table import Table
from .base import AnyTable, Engine
from .cost import Cost, bp_cost, item_size, kernel_bytes
from .joint import JointPosterior, Kind
from .messages.passes import MessagePass
from .messages.plan import MessagePlan
from .messages.schedule import schedule
from .position import Position
from .random import Random, draw, uniforms
from .report import Row, memory, report

if TYPE_CHECKING:
    from .cover import CoverPlan


@dataclass(frozen=True)
class BP(Engine):
    """Sum-product on the tree of sources and partial mixtures: exact, O((n - 1) K^3) a token.

    draw: "joint" samples all sources together by backward sampling; "marginals" samples each site
    from its own marginal, the paper's variant, which is no posterior sample (about half of its
    tuples are impossible under exact support). dense_limit: tables with few positive cells are
    contracted over these alone; of the others those of up to this many bytes are held dense, and
    larger ones contracted in logarithms. cover: leave out tokens that no candidate of a mixture
    expects; kept are those that cover this share of the mass of each one's prior. Much faster where
    alphabets are large and priors peaked; log evidence is then a lower bound, and `posterior.lost`
    bounds what it lacks. Where the kept tokens cannot explain some candidate at all, all of them
    are taken. keep: the same with this many tokens of each source: the most promising by the priors
    of a mixture's candidates and, under linear features, by what is heard as well. That is what
    large alphabets under features want: an onset is a surprise to the priors.

    Refuses a graph with a cycle by naming it. Raises OptionError unless cover is above 0 and at
    most 1, or None, keep a whole number of at least 1, or None, and one of them None.
    """

    draw: Literal["joint", "marginals"] = "joint"
    dense_limit: float = 2**28
    cover: float | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        if self.draw not in ("joint", "marginals"):
            raise OptionError(f"BP(draw=...) is 'joint' or 'marginals', got {self.draw!r}.")
        cover = self.cover
        if cover is not None and (
            isinstance(cover, bool) or not isinstance(cover, (int, float)) or not 0 < cover <= 1
        ):
            raise OptionError(
                "BP(cover=...) is the share of each prior that the kept tokens cover, above 0 and "
                f"at most 1, as 0.999, or None to keep all tokens; got {cover!r}."
            )

        keep = self.keep
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise OptionError(
                f"BP(keep=...) is how many tokens of each source are kept, a whole number of at "
                f"least 1, or None to keep all; got {keep!r}."
            )
        if cover is not None and keep is not None:
            raise OptionError(
                f"BP takes cover=... or keep=..., not both; got cover={cover!r} and keep={keep!r}."
            )

    def __repr__(self) -> str:
        more = {"cover": self.cover, "keep": self.keep}
        said = "".join(f", {name}={value!r}" for name, value in more.items() if value is not None)
        return f"BP(draw={self.draw!r}, dense_limit={self.dense_limit!r}{said})"

    def plan(self, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> BPPlan | CoverPlan:
        whole = BPPlan(self, graph, tables)
        if self.cover is None and self.keep is None:
            return whole
        from .cover import CoverPlan

        return CoverPlan(whole)

    def is_exact(self, graph: MixingGraph) -> bool:
        return self.draw == "joint" and self.cover is self.keep is None and graph.is_tree


class BPPlan(MessagePlan):
    """Schedule and kernels of BP on one graph. `print(plan)` tells its cost."""

    engine: BP

    def __init__(self, engine: BP, graph: MixingGraph, tables: Mapping[str, AnyTable]) -> None:
        self.schedule = schedule(graph, graph.factors)  # a cycle is said before a missing table
        super().__init__(engine, graph, tables, engine.dense_limit)

    @property
    def cost(self) -> Cost:
        """Over the cells that the kernels visit."""
        rows, item = self._rows(), item_size(self.graph)
        messages = sum(item * self.sizes.get(step.target, 1) for step in self.schedule.upward)
        dense = bp_cost(self.graph, self.sizes)
        return Cost(
            sum(row.operations for row in rows),
            max((row.size for row in rows), default=1.0),
            held=sum(self._held(name) for name in self.tables),
            mixture=dense.mixture,
            candidate=dense.candidate + 2.0 * messages,
            block=max((row.needs for row in rows), default=0.0),
        )

    def _held(self, name: str) -> float:
        dense = self._kind_of(name) == "dense"
        return kernel_bytes(self.tables[name], dense, item_size(self.graph))

    def _rows(self) -> list[Row]:
        rows, item = [], item_size(self.graph)
        for number, step in enumerate(self.schedule.upward, 1):
            name, scope = step.factor.name, (step.target, *step.others)
            sizes = [float(self.sizes.get(site, 1)) for site in scope]
            table, kind = self.tables[name], self._kind_of(name)
            dense = seen = prod(sizes)
            needs = sizes[0]
            if isinstance(table, Table) and kind != "dense":
                seen = table.density * dense
                if kind != "seen cells":  # values of all cells at once, and what they are made of
                    needs += 3 * seen
            elif len(sizes) > 2:  # one site is summed out after the other
                needs += dense / sizes[1]
            how = f"p({name} | {', '.join(step.factor.parents)}), {kind}"
            rows.append(
                Row(
                    str(number), step.others, scope, seen, dense, seen, self._held(name),
                    item * needs, how,
                )
            )  # fmt: skip
        return rows

    def __str__(self) -> str:
        title = f"{self.engine!r} on {self.graph.name}: messages from the leaves up, exact"
        note = f"roots {', '.join(self.schedule.roots)}: joint samples are drawn from there down"
        return report(title, self._rows(), [note, memory(self.cost)])

    def restricted(self, tables: Mapping[str, AnyTable], sizes: Mapping[str, int]) -> BPPlan:
        """The plan of smaller tables on the same graph, checked by whoever made them."""
        small = copy(self)
        small.tables, small.sizes, small._kernels = dict(tables), dict(sizes), {}
        return small

    def posterior(
        self, log_priors: Mapping[str, Tensor], evidence: Mapping[str, Tensor]
    ) -> BPPosterior:
        return BPPosterior(self, self.position(log_priors, evidence))

    def run(self, position: Position, kind: Kind) -> MessagePass:
        algebra, kernels, scale = self.kernels(position, kind)
        return MessagePass(self.schedule, kernels, algebra, position, self.sizes, scale)


class BPPosterior(JointPosterior):
    """Runs in linear space where every table is dense, and again in logarithms for the rows that
    came near underflow there."""

    _plan: BPPlan
    _pass: MessagePass

    def sample(self, random: Random) -> dict[str, Tensor]:
        if self._plan.engine.draw == "joint":
            return super().sample(random)
        latent, shape = self.graph.latent, self.position.shape
        uniform = uniforms(random, *shape, len(latent)).flatten(0, 1).to(self.log_evidence.device)
        marginals = self.marginals()
        tokens = {
            name: draw(marginals[name].flatten(0, 1), uniform[:, place])
            for place, name in enumerate(latent)
        }
        return self._shaped(tokens, self._possible)

    def messages(self) -> dict[tuple[str, str], Tensor]:
        """Messages by (factor, site), each row scaled to sum 1: {...: [M, C, K]}."""
        self._pass.marginals()
        out = {key: self._pass.normalised(key) for key in self._pass.sent()}
        if len(rows := self._weak()):
            again = self._again(rows)
            assert isinstance(again, MessagePass)
            again.marginals()
            for key in again.sent():
                out[key][rows] = again.normalised(key).to(out[key])
        return {key: value.unflatten(0, self.position.shape) for key, value in out.items()}
