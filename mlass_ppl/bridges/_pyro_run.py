"""Running a Pyro model to read its sites, and again to see that they were read right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from ..errors import GraphError
from ._pyro_sites import Enumeration, PyroSite, own_power

_STATES = 32
"""In how many joint states the model is run again, to see that it says the same."""


def read_sites(model: str, run: Callable[[], Any]) -> tuple[list[PyroSite], Any]:
    """The sites of a model, and what it returned. Raises GraphError when it cannot be read."""
    with Enumeration(model) as reader:
        returned = _attempt(model, run, "while its sites were enumerated")
    random = torch.Generator().manual_seed(0)
    for _ in range(_STATES):
        state = {
            site.name: int(torch.randint(site.size, (), generator=random))
            for site in reader.sites
            if site.kind == "discrete"
        }
        with OneState(model, reader.sites, state) as again:
            _attempt(model, run, f"in the state {state}")
        again.check_complete()
    return reader.sites, returned


def _attempt(model: str, run: Callable[[], Any], when: str) -> Any:
    try:
        return run()
    except GraphError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        text = text if len(text) < 160 else text[:160] + " ..."
        raise GraphError(
            f"'{model}' failed {when} ({type(error).__name__}: {text}). The value of a site is "
            "then a tensor of all its states: index tables with all sites at once, T[a, b] or "
            "Vindex(T)[a, b], and use no `if`, int() or .item() on sites."
        ) from error


class OneState(Messenger):
    """Fixes every discrete site to one state and compares what the model says of it."""

    def __init__(self, model: str, sites: list[PyroSite], state: Mapping[str, int]) -> None:
        super().__init__()
        self.model, self.state = model, state
        self._sites = {site.name: site for site in sites}
        self._left = set(self._sites)

    def _pyro_sample(self, msg: Any) -> None:
        fn, name = msg["fn"], msg["name"]
        msg["stop"] = True
        if msg["infer"].get("_deterministic"):
            return
        site = self._sites.get(name)
        if site is None:
            raise GraphError(self._varies(name))
        self._left.discard(name)
        place: tuple[int, ...] = tuple(self.state[parent] for parent in site.parents)
        if site.kind == "discrete":
            value = site.support[self.state[name]]  # type: ignore[index]
            place = (*place, self.state[name])
            msg.update(value=value, done=True, is_observed=False)
        else:
            value = msg["value"]
        found, wanted = fn.log_prob(value).double() / own_power(fn), site.log[place]
        same = found.numel() == 1 and (
            bool(found == wanted) or abs(float(found - wanted)) <= 1e-4 * max(1, abs(float(wanted)))
        )
        if not same:
            states = {parent: self.state[parent] for parent in site.parents}
            raise GraphError(
                f"site '{name}' of '{self.model}' has another distribution when its parents are "
                f"enumerated than in the one state {states}. Its parents are enumerated along a "
                "dimension each, so a table must be indexed with all of them at once: T[a, b] or "
                "Vindex(T)[a, b], not T[a][b]."
            )

    def _varies(self, name: str) -> str:
        return (
            f"'{self.model}' does not reach site '{name}' in every state. A mixing graph has the "
            "same sites whatever their values: leave out `if` on a site's value."
        )

    def check_complete(self) -> None:
        if self._left:
            raise GraphError(self._varies(min(self._left)))
