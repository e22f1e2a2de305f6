"""What happens at the `pyro.sample` statements of a mixing program while it is compiled.

Kept apart so that Pyro is imported when the first program is, not with the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import pyro
import pyro.distributions as dist
from pyro.poutine.messenger import Messenger

from ..errors import GraphError
from ..evidence import Evidence, Token
from ..graph import Mix, Site, Source, mean_weights
from .graph_checks import declared_twice
from .symbol import Symbol
from .tracing_checks import check_statement, refused_part


@dataclass
class Declared:
    """What a site says of itself before anything is bound to it."""

    site: Source | None
    parents: tuple[Any, ...] = ()
    weights: tuple[float, ...] | None = None
    hidden: tuple[Any, ...] = ()
    alphabet: int | None = None
    evidence: Evidence = Token()
    codec: str | None = None
    symmetric: bool = False


class SiteDistribution(dist.TorchDistribution):
    """Placeholder that a handler replaces; sampling from it explains what is missing."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_enumerate_support = False

    def __init__(self, name: str, declared: Declared) -> None:
        self.name, self.declared = name, declared
        super().__init__(validate_args=False)

    def _unbound(self) -> NoReturn:
        raise GraphError(
            f"site '{self.name}' has no distribution yet: a mixing program only declares, so it is "
            "not called but passed on. Compile it with compile_program(program), or run it with "
            "tables and priors: bind(program, tables, log_priors)()."
        )

    def sample(self, *_: Any, **__: Any) -> NoReturn:
        self._unbound()

    def log_prob(self, *_: Any) -> NoReturn:
        self._unbound()


def statement(name: str, declared: Declared) -> Any:
    """The `pyro.sample` statement of a declared site."""
    return pyro.sample(name, SiteDistribution(name, declared))


class Compiler(Messenger):
    """Answers every declared site with a symbol and notes it down, unseen by outer handlers."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program
        self.sites: list[Site] = []
        self.symbols: dict[str, Symbol] = {}
        self._leaves: dict[str, tuple[str, ...]] = {}

    def _pyro_param(self, msg: Any) -> None:
        raise GraphError(
            f"'{self.program}' calls pyro.param('{msg['name']}'); a mixing program has no "
            "parameters. Its tables and priors are given when it is used, as in "
            "bind(program, tables, log_priors)."
        )

    def _pyro_sample(self, msg: Any) -> None:
        check_statement(self.program, msg)
        name, declared = msg["name"], msg["fn"].declared
        if name in self.symbols:
            raise GraphError(declared_twice(self.program, name))
        if declared.site is not None:
            self.sites.append(declared.site)
            self._leaves[name] = (name,)
        else:
            self._add_mix(name, declared)
        self.symbols[name] = msg["value"] = Symbol(name)
        msg["done"] = msg["stop"] = True

    def _add_mix(self, name: str, declared: Declared) -> None:
        parents = self._names(name, declared.parents)
        hidden = self._names(name, declared.hidden)
        parts = parents + hidden
        weights = declared.weights
        if weights is None:
            weights = mean_weights([self._leaves[part] for part in parts])
        self.sites.append(
            Mix(
                name,
                parents,
                weights,
                hidden,
                declared.alphabet,
                declared.evidence,
                declared.codec,
                declared.symmetric,
            )
        )
        self._leaves[name] = tuple(dict.fromkeys(x for part in parts for x in self._leaves[part]))

    def _names(self, name: str, parts: Iterable[Any]) -> tuple[str, ...]:
        out = []
        for part in parts:
            if not isinstance(part, Symbol):
                raise GraphError(refused_part(name, part))
            if not self.knows(part):
                raise GraphError(
                    f"mixture '{name}' takes '{part.name}', a site of another program or of an "
                    "earlier run of this one. Declare its parts inside the program, each time "
                    f"that it runs: {part.name} = source('{part.name}')."
                )
            out.append(part.name)
        return tuple(out)

    def knows(self, symbol: Symbol) -> bool:
        """Whether this run declared that very site."""
        return self.symbols.get(symbol.name) is symbol
