"""The sites of a Pyro model, read by running it with every discrete one enumerated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import GraphError
from ..tables.gaussian import GaussianTable
from ..tables.table import Table

_MOST = 60
"""Sites that can be enumerated: a tensor has at most 64 dimensions."""


@dataclass
class PyroSite:
    """A sample statement.

    parents: sites that its distribution depends on, in the order of their statements. log: of
    "discrete" ones log p(value | parents), nats, float64 [K_parents..., K]; of a "factor" its log
    [K_parents...]; of "normal" ones the log density of what was observed [K_parents...].
    support: values of a discrete site, [K]. value: those along its enumeration dimension.
    observation: token, feature [D], or None. gaussian: mean and std [K_parents..., D].
    """

    name: str
    kind: Literal["discrete", "normal", "factor"]
    parents: tuple[str, ...]
    log: Tensor
    power: float = 1.0
    support: Tensor | None = None
    value: Tensor | None = None
    observation: Any = None
    gaussian: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> int:
        """K of a discrete site."""
        return self.log.shape[-1]

    def table(self) -> Table | GaussianTable:
        if self.gaussian is not None:
            return GaussianTable.from_arrays(*self.gaussian, possible=self.log > float("-inf"))
        p = self.log.exp()
        total = p.sum(-1, keepdim=True)
        rounding = (total - 1).abs() < 1e-4  # of single precision
        return Table.from_array(torch.where(rounding, p / total, p))


class Enumeration(Messenger):
    """Gives every discrete site all its values, along a dimension of its own.

    As in Pyro's parallel enumeration, but also of observed sites, so that tables keep the axes of
    observed parents, and for whole graphs without plates. Dimension -1 stays free to show batches.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model
        self.sites: list[PyroSite] = []
        self._owners: dict[int, PyroSite] = {}

    def _pyro_sample(self, msg: Any) -> None:
        fn, name, observed = msg["fn"], msg["name"], msg["is_observed"]
        msg["stop"] = True  # handlers around the reading are not to see it
        if msg["infer"].get("_deterministic"):
            return
        check_statement(self.model, msg, [site.name for site in self.sites])
        power = float(msg["scale"]) * own_power(fn)
        if isinstance(fn, dist.Unit):
            log, parents = self._spread(name, fn.log_factor)
            self.sites.append(PyroSite(name, "factor", parents, log, power))
        elif observed and (normal := normal_of(fn)) is not None:
            value = torch.as_tensor(msg["value"]).to(normal.loc)
            log, parents = self._spread(name, fn.log_prob(value) / own_power(fn))
            site = PyroSite(name, "normal", parents, log, power, observation=value.reshape(-1))
            shape = fn.batch_shape + fn.event_shape
            mean, std = (
                self._spread(
                    name, part.expand(shape).reshape(*fn.batch_shape, -1).movedim(-1, 0), own=1
                )[0]
                for part in (normal.loc, normal.scale)
            )
            site.gaussian = mean, std
            self.sites.append(site)
        else:
            support = fn.enumerate_support(expand=False)
            log, parents = self._spread(name, fn.log_prob(support) / own_power(fn), own=1)
            site = PyroSite(name, "discrete", parents, log, power, support.reshape(-1))
            place = -2 - len(self._owners)
            site.value = site.support.reshape([-1] + [1] * (-place - 1))  # type: ignore[union-attr]
            site.observation = _token(self.model, site, msg["value"]) if observed else None
            self.sites.append(site)
            self._owners[place] = site
            msg.update(value=site.value, done=True, is_observed=False)

    def _spread(self, name: str, values: Tensor, own: int = 0) -> tuple[Tensor, tuple[str, ...]]:
        """Values [own..., batch...], whose batch lies along the dimensions of other sites, as
        float64 [K_parents..., own...], and the parents."""
        batch = values.shape[own:]
        owners = []
        for place in range(-1, -1 - len(batch), -1):  # the first statement's dimension is -2
            owner = self._owners.get(place)
            if batch[place] == 1:
                continue
            if owner is None or owner.size != batch[place]:
                raise GraphError(
                    f"site '{name}' of '{self.model}' has a batch of shape {list(batch)}, which is "
                    "not one axis for each of its parents. from_pyro reads a single position "
                    "without batches, and tables are indexed with all sites at once: T[a, b] or "
                    "Vindex(T)[a, b], not T[a][b]."
                )
            owners.append(owner)
        kept = [size for size in batch if size != 1]
        dense = values.double().reshape([*values.shape[:own], *kept])
        axes = [own + axis for axis in reversed(range(len(kept)))]
        return dense.permute([*axes, *range(own)]), tuple(owner.name for owner in owners)


def normal_of(fn: Any) -> Any:
    """The normal distribution behind an observed number or vector, else None."""
    if isinstance(fn, torch.distributions.Independent) and len(fn.event_shape) == 1:
        fn = fn.base_dist
    normal = isinstance(fn, torch.distributions.Normal) and len(fn.event_shape) == 0
    return fn if normal else None


def own_power(fn: Any) -> float:
    """Exponent that a distribution of a bound program has by itself."""
    normal = normal_of(fn)
    return float(getattr(fn if normal is None else normal, "power", 1.0))


def _token(model: str, site: PyroSite, value: Any) -> int:
    observed = torch.as_tensor(value)
    assert site.support is not None
    places = site.support.eq(observed.to(site.support)).nonzero().flatten().tolist()
    if observed.numel() != 1 or len(places) != 1:
        raise GraphError(
            f"'{model}' observes {value!r} at site '{site.name}'; expected one value of its "
            f"support, which has {site.size}."
        )
    return int(places[0])


def check_statement(model: str, msg: Mapping[str, Any], taken: list[str]) -> None:
    """Raises GraphError on a statement that is no site of a mixing graph."""
    fn, name = msg["fn"], msg["name"]
    plates = [frame.name for frame in msg["cond_indep_stack"]]
    if plates or isinstance(fn, _Subsample):
        raise GraphError(
            f"'{model}' uses plate '{(plates or [name])[0]}'; from_pyro reads one position without "
            "plates. Drop the plate, or write its sites out in a Python loop."
        )
    if hasattr(fn, "declared"):
        raise GraphError(
            f"'{model}' is a mixing program already; it becomes a graph by compile_program(...), "
            "and a Pyro model by bind(program, tables, log_priors)."
        )
    if name in taken:
        raise GraphError(f"'{model}' has two sites '{name}'; give each a name of its own.")
    if msg["mask"] is not None or isinstance(fn, dist.MaskedDistribution):
        raise GraphError(
            f"site '{name}' of '{model}' is masked; a mixing graph has no masks. Drop the site, or "
            "tell by poutine.scale how much an observed one counts."
        )
    if isinstance(fn, dist.Unit) or (msg["is_observed"] and normal_of(fn) is not None):
        return
    kind = type(fn).__name__
    if not getattr(fn, "has_enumerate_support", False):
        what = "observed" if msg["is_observed"] else "latent"
        raise GraphError(
            f"site '{name}' of '{model}' is {what} and samples {kind}; a mixing graph has discrete "
            "sites of finite support, such as Categorical and Bernoulli, and of the continuous "
            "ones only observed Normal(...).to_event(1). Discretise it, or leave it out."
        )
    if len(fn.event_shape):
        raise GraphError(
            f"site '{name}' of '{model}' samples {kind}, a vector; expected a token, as from "
            "Categorical."
        )
    if not msg["is_observed"] and float(msg["scale"]) != 1:
        raise GraphError(
            f"site '{name}' of '{model}' is latent and scaled; only the likelihood of an observed "
            "site has a power."
        )
    if len(taken) >= _MOST:
        raise GraphError(
            f"'{model}' has more than {_MOST} sites, which cannot all be enumerated. Declare large "
            "graphs with mlass_ppl.source and mlass_ppl.mix."
        )
