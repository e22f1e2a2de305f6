"""The Pyro side of `bind`: categorical distributions for the sites of a mixing program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ._tracing import SiteDistribution
from .errors import TableError
from .tables.table import Table


class Binding(Messenger):
    """Gives each declared site its categorical distribution."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        log_priors: Mapping[str, Tensor],
        evidence: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.tables, self.log_priors, self.evidence = tables, log_priors, evidence

    def _pyro_sample(self, msg: Any) -> None:
        fn, name = msg["fn"], msg["name"]
        if not isinstance(fn, SiteDistribution):
            return
        if fn.declared.site is not None:
            msg["fn"] = dist.Categorical(logits=self.log_priors[name])
        else:
            like = next(iter(self.log_priors.values()))
            rows = self.tables[name].dense(like.dtype).to(like.device)
            msg["fn"] = Conditional(rows[fn.declared.parents], name=name)
        if name in self.evidence and not msg["is_observed"]:
            msg["value"] = torch.as_tensor(self.evidence[name])
            msg["is_observed"] = True


class Conditional(dist.Categorical):
    """Rows of a table. Where the table has none, every token has probability zero; `Categorical`
    would divide zero by zero."""

    def __init__(self, probs: Any = None, logits: Any = None, name: str = "site") -> None:
        logits = probs.log() if logits is None else logits
        self.name, self.empty = name, (logits == float("-inf")).all(-1)
        super().__init__(logits=logits.masked_fill(self.empty[..., None], 0.0))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Conditional:
        logits = self.logits.masked_fill(self.empty[..., None], float("-inf"))
        return Conditional(logits=logits.expand(*batch_shape, -1), name=self.name)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value).masked_fill(self.empty, float("-inf"))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        if self._validate_args and self.empty.any():  # drawing a program turns validation off
            raise TableError(
                f"'{self.name}' cannot be simulated: its table never saw the parents that were "
                "drawn. Smooth the table, Table.from_counts(counts, Additive(alpha)), or give "
                "priors that stay on what was counted."
            )
        return super().sample(torch.Size(sample_shape))
