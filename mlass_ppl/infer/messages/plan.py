"""Plans of engines that pass messages: tables made ready, and a kernel for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from ...graph import MixingGraph
from ...tables.table import Table
from ..algebra import Algebra, Linear, Logarithmic
from ..base import AnyTable, Engine
from ..joint import JointPlan, Kind
from ..kernels import (
    DenseKernel,
    Kernel,
    LikelihoodKernel,
    SeenCells,
    SparseKernel,
    StructuredKernel,
)
from ..kernels.cells import pays
from ..position import Position
from ..ready import ready_tables, seen_tokens

_PART = 1 << 21


class MessagePlan(JointPlan):
    """Messages are linear where every table of tokens takes up to `dense_limit` bytes, or has exact
    support, so that the cells that were seen serve instead; else, and for modes, in logarithms over
    the positive cells."""

    def __init__(
        self,
        engine: Engine,
        graph: MixingGraph,
        tables: Mapping[str, AnyTable],
        dense_limit: float,
    ) -> None:
        self.engine, self.graph, self._dense_limit = engine, graph, dense_limit
        self.tables, self.sizes = ready_tables(graph, graph.factors, tables)
        self.seen = seen_tokens(graph, graph.factors, self.tables)
        self._kernels: dict[tuple[object, ...], dict[str, Kernel]] = {}

    def _counted(self) -> list[tuple[str, Table]]:
        """The tables of tokens; those of features have no kernel of their own."""
        return [(name, table) for name, table in self.tables.items() if isinstance(table, Table)]

    def _is_small(self, table: Table, item: int) -> bool:
        return table.size * item <= self._dense_limit

    def _is_sparse(self, table: Table, item: int) -> bool:
        """Whether the cells that were seen serve in place of all of them."""
        return pays(table) or (table.background is None and not self._is_small(table, item))

    def _kinds(self) -> str:
        """Which kernel each factor has, in words."""
        return "kernels " + ", ".join(f"{name}: {self._kind_of(name)}" for name in self.tables)

    def _kind_of(self, name: str) -> str:
        """Which kernel a factor has, in words."""
        table = self.tables[name]
        if not isinstance(table, Table):
            return "Gaussian likelihood of each mixture"
        if self._is_sparse(table, 4):
            return "seen cells"
        return "dense" if self._is_small(table, 4) else "sparse and its background"

    def kind(self, position: Position) -> Kind:
        item = position.like.element_size()
        fit = all(t.background is None or self._is_small(t, item) for _, t in self._counted())
        return "linear" if fit else "sum"

    @cached_property
    def spread(self) -> float:
        """As of every plan; known where all tables are of tokens and have exact support."""
        total = 0.0
        for table in self.tables.values():
            if not isinstance(table, Table) or table.background is not None:
                return float("inf")
            total += _spread(table)
        return total

    def _of_tables(self, kind: Kind, dtype: torch.dtype, device: torch.device) -> dict[str, Kernel]:
        """Kernels of every factor with a token, built when first asked for."""
        key = (kind, dtype, device)
        if key not in self._kernels:
            self._kernels[key] = {
                name: self._kernel(table, kind, dtype, device) for name, table in self._counted()
            }
        return self._kernels[key]

    def kernels(self, position: Position, kind: Kind) -> tuple[Algebra, dict[str, Kernel], Tensor]:
        """Number system, the kernel of every factor, and the logarithm of what these divided out
        of each row [R]."""
        like = position.like
        algebra = Linear() if kind == "linear" else Logarithmic(largest=kind == "max")
        kernels = dict(self._of_tables(kind, like.dtype, like.device))
        scale = torch.zeros_like(like[:, 0])
        for name, log in position.likelihood.items():
            kernels[name] = kernel = LikelihoodKernel(log, position.mixture, algebra)
            scale = scale + kernel.scale
        return algebra, kernels, scale

    def _kernel(self, table: Table, kind: Kind, dtype: torch.dtype, device: torch.device) -> Kernel:
        if kind == "linear":
            sparse = self._is_sparse(table, dtype.itemsize)
            return (SeenCells if sparse else DenseKernel)(table, dtype, device)
        logarithmic = SparseKernel if table.background is None else StructuredKernel
        return logarithmic(table, dtype, device, largest=kind == "max")


def _spread(table: Table) -> float:
    """Nats between the largest and the least positive cell."""
    least, most = float("inf"), 0.0
    for part in table.probability.split(_PART):  # a mask of all cells would be as large as they are
        if len(seen := part[part > 0]):
            least, most = min(least, float(seen.amin())), max(most, float(seen.amax()))
    return math.log(most / least) if most else 0.0
