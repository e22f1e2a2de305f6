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
from pyro.poutine.subsample_messenger import _Subsample

from .errors import GraphError
from .graph import Mix, Site, Source


class Symbol:
    """Stands for a site's value while a program is compiled."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _refuse(self, *_: object) -> NoReturn:
        raise GraphError(
            f"the value of {self} is not known while the graph is being declared: a "
            "program may pass it to mix(...) and return it, but not compute with it. To branch, "
            "write one program for each case."
        )

    @classmethod
    def __torch_function__(cls, _: Any, __: Any, args: Any = (), ___: Any = None) -> NoReturn:
        next((part for part in args if isinstance(part, cls)), cls("?"))._refuse()

    __bool__ = __int__ = __float__ = __index__ = __len__ = __iter__ = __getitem__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _refuse
    __rtruediv__ = __floordiv__ = __mod__ = __pow__ = __neg__ = __abs__ = __invert__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __call__ = __array__ = _refuse
    __hash__ = object.__hash__  # `==` would else answer False, and an `if` take that branch

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        self._refuse()

    def __repr__(self) -> str:
        return f"site '{self.name}'"


@dataclass
class Declared:
    """What a site says of itself before anything is bound to it."""

    site: Source | None
    parents: tuple[Any, ...] = ()
    weights: tuple[float, ...] | None = None
    hidden: tuple[Any, ...] = ()
    alphabet: int | None = None


class SiteDistribution(dist.TorchDistribution):
    """Placeholder that a handler replaces; sampling from it explains what is missing."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_enumerate_support = False

    def __init__(self, name: str, declared: Declared) -> None:
        self.name, self.declared = name, declared
        super().__init__(validate_args=False)

    def _unbound(self) -> NoReturn:
        raise GraphError(
            f"site '{self.name}' has no distribution yet: a mixing program only declares. Compile "
            "it with compile_program(program), or run it with tables and priors: "
            "bind(program, tables, log_priors)()."
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
        self.leaves: dict[str, dict[str, float]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        fn, name = msg["fn"], msg["name"]
        if plates := [frame.name for frame in msg["cond_indep_stack"]] or (
            [name] if isinstance(fn, _Subsample) else []
        ):
            raise GraphError(
                f"'{self.program}' uses plate '{plates[0]}'; declare each site on its own, with a "
                "Python loop where there are many."
            )
        if not isinstance(fn, SiteDistribution):
            raise GraphError(
                f"site '{name}' of '{self.program}' samples {type(fn).__name__}; a mixing program "
                "has only mlass_ppl.source and mlass_ppl.mix sites."
            )
        if name in self.leaves:
            raise GraphError(f"'{self.program}' declares site '{name}' twice.")
        declared = fn.declared
        if declared.site is not None:
            self.sites.append(declared.site)
            self.leaves[name] = {name: 1.0}
        else:
            self._add_mix(name, declared)
        msg["value"], msg["done"], msg["stop"] = Symbol(name), True, True

    def _add_mix(self, name: str, declared: Declared) -> None:
        parents = self._names(name, declared.parents)
        hidden = self._names(name, declared.hidden)
        parts = parents + hidden
        weights = declared.weights
        if weights is None:
            leaves = [len(self.leaves[part]) for part in parts]
            weights = tuple(count / sum(leaves) for count in leaves)
        self.sites.append(Mix(name, parents, weights, hidden, declared.alphabet))
        self.leaves[name] = {leaf: 1.0 for part in parts for leaf in self.leaves[part]}

    def _names(self, name: str, parts: Iterable[Any]) -> tuple[str, ...]:
        out = []
        for part in parts:
            if not isinstance(part, Symbol):
                raise GraphError(
                    f"mixture '{name}' takes {part!r}; expected sites that source(...) or mix(...) "
                    "returned."
                )
            if part.name not in self.leaves:
                raise GraphError(
                    f"mixture '{name}' takes '{part.name}', a site of another program."
                )
            out.append(part.name)
        return tuple(out)
