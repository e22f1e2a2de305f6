"""Contraction of a smoothed table in logarithms: its seen cells, and its background as products."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce as fold
from math import log

import torch
from torch import Tensor

from ...errors import TableError
from ...tables.table import Table
from ..algebra import log_sum
from .largest import LargestBackground
from .shares import Shares
from .sparse import SparseKernel

_CHUNK_BYTES = 1 << 27


class StructuredKernel:
    """A table with a background, never made dense, reduced by logsumexp or (`largest`) by maximum.

    The cells that were seen are contracted one by one, as by `SparseKernel`. The background
    share(a, b) (p(m | a) + p(m | b)) / 2 is contracted through the sums of the share over one
    parent and then the other's table: R K^2 multiplications for two parents where the dense product
    needs R K^3. Largest cells have no such form: those of the background are searched with bounds.
    """

    def __init__(
        self, table: Table, dtype: torch.dtype, device: torch.device, largest: bool = False
    ) -> None:
        background = table.background
        if background is None:
            raise TableError(
                f"the table of shape {table.shape} has exact support and no background; contract "
                "it by SparseKernel."
            )
        *parents, child = table.shape
        self.shape = (child, *parents)
        self.dtype, self.largest, self._arity = dtype, largest, len(parents)
        probability = table.probability
        if largest:  # of a cell; what is seen stands on top of the background
            probability = probability + background.at(table.keys, table.shape)
        cells = Table(table.shape, table.keys, probability)
        self._seen = SparseKernel(cells, dtype, device, largest)
        self._shares = Shares(background, parents, device)
        self._common = background.common
        self._tables = [part.to(device, dtype) for part in background.tables]
        self._logs = [part.log().to(device, dtype) for part in background.tables]
        self._search = LargestBackground(self.shape, self._shares, self._logs, self._common)

    def message(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        out = self._seen.message(to, incoming, given)
        if self.largest:
            return self._search.message(to, incoming, given, out)
        form = self._of_common if self._common else self._of_parents
        return torch.logaddexp(out, form(to, incoming, given).to(out.dtype))

    def _of_common(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        """One q for all rows: the child and the parents fall apart."""
        (row,) = self._logs[0]
        messages, tokens = _parents(incoming), _parents(given)
        if to == 0:
            return self._shares.total(messages, tokens)[:, None] + row
        child = row[given[0]] if 0 in given else log_sum(row + incoming[0])
        return self._shares.message(to, messages, tokens) + child[:, None]

    def _of_parents(
        self, to: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        """q is a mean over the parents: each adds its own term."""
        messages, tokens = _parents(incoming), _parents(given)
        terms = []
        if to == 0:
            if tokens:
                total = self._shares.total(messages, tokens)[:, None]
                terms += [total + self._logs[axis - 1][token] for axis, token in tokens.items()]
            for axis, message in messages.items():
                others = {other: m for other, m in messages.items() if other != axis}
                weight = message + self._shares.message(axis, others, tokens)
                terms.append(self._product(weight, axis))
        else:
            share = self._shares.message(to, messages, tokens)
            own = [to, *tokens]
            terms += [self._child(axis, incoming, given) + share for axis in own]
            for axis, message in messages.items():
                raised = messages | {axis: message + self._child(axis, incoming, given)}
                terms.append(self._shares.message(to, raised, tokens))
        return fold(torch.logaddexp, terms) - log(self._arity)

    def _child(
        self, axis: int, incoming: Mapping[int, Tensor], given: Mapping[int, Tensor]
    ) -> Tensor:
        """What the child says to one parent's table: [R, K_parent], or [R, 1] of a given parent."""
        logs = self._logs[axis - 1]
        if axis in given:
            rows = logs[given[axis]]
            if 0 in given:
                return rows.gather(1, given[0][:, None])
            return log_sum(rows + incoming[0])[:, None]
        if 0 in given:
            return logs.T[given[0]]
        return self._product(incoming[0], axis, transposed=True)

    def _product(self, weights: Tensor, axis: int, transposed: bool = False) -> Tensor:
        """Logarithm of exp(weights) [R, K] @ one parent's table.

        A scaled product; entries that come near underflow there, because the table is zero where
        the weights are large, are summed again in logarithms.
        """
        table, logs = self._tables[axis - 1], self._logs[axis - 1]
        if transposed:
            table, logs = table.T, logs.T
        weights = weights.to(table.dtype)
        top = weights.amax(-1, keepdim=True)
        top = top.masked_fill(top == float("-inf"), 0.0)
        mass = (weights - top).exp() @ table
        out = mass.log() + top
        weak = mass < torch.finfo(mass.dtype).tiny ** 0.5
        if weak.any():
            possible = (weights > float("-inf")).to(table.dtype) @ (table > 0).to(table.dtype)
            rows, columns = (weak & (possible > 0)).nonzero(as_tuple=True)
            step = max(1, _CHUNK_BYTES // (len(table) * table.element_size()))
            for r, c in zip(rows.split(step), columns.split(step), strict=True):
                out[r, c] = log_sum(weights[r] + logs.T[c])
        return out


def _parents(values: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {axis: value for axis, value in values.items() if axis}
