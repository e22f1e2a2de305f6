"""Declaring a mixing graph as a Pyro program of `source` and `mix` sites.

Both are `pyro.sample` statements. `compile_program` runs the program once under an effect handler
that answers each of them with a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar, NoReturn

import pyro
import pyro.distributions as dist
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from .errors import GraphError
from .graph import Mix, MixingGraph, Site, Source

Program = Callable[[], Any]


class _Symbol:
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
class _Declared:
    """What a site says of itself before anything is bound to it."""

    site: Source | None
    parents: tuple[Any, ...] = ()
    weights: tuple[float, ...] | None = None
    hidden: tuple[Any, ...] = ()
    alphabet: int | None = None


class _SiteDistribution(dist.TorchDistribution):
    """Placeholder that a handler replaces; sampling from it explains what is missing."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_enumerate_support = False

    def __init__(self, name: str, declared: _Declared) -> None:
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


def source(name: str, *, prior: str | None = None, alphabet: int | None = None) -> Any:
    """Declare a source: one latent token with an autoregressive prior.

    prior: key of its prior in a bundle (default: its name, or the bundle's only prior).
    alphabet: its number of tokens K, where no codec says so.
    """
    _check_name(name)
    declared = _Declared(Source(name, prior, _check_alphabet(name, alphabet)))
    return pyro.sample(name, _SiteDistribution(name, declared))


def mix(
    name: str,
    *parents: Any,
    weights: Sequence[float] | None = None,
    hidden: Sequence[Any] = (),
    alphabet: int | None = None,
) -> Any:
    """Declare a mixture of earlier sites: one token with a table p(token | parents).

    weights: of the parents' signals and then of the hidden ones, summing to 1; by default the
    mixture is the mean of all its sources. hidden: sites that are part of the signal while the
    table is averaged over them: `mix("m", a, hidden=[b])` is an extractor's p(m | a).
    """
    _check_name(name)
    declared = _Declared(
        None,
        parents,
        None if weights is None else _check_weights(name, weights),
        _check_hidden(name, hidden),
        _check_alphabet(name, alphabet),
    )
    return pyro.sample(name, _SiteDistribution(name, declared))


def compile_program(program: Program | MixingGraph) -> MixingGraph:
    """Run a program once and freeze the graph that it declares; a graph is returned as it is.

    Raises GraphError when the program computes with a site's value, samples anything but sources
    and mixtures, uses a plate, declares a name twice, leaves a site dangling or returns no site.
    """
    if isinstance(program, MixingGraph):
        return program
    if not callable(program):
        raise GraphError(
            "expected a program (a function of source and mix sites), got "
            f"{type(program).__name__}."
        )
    name = getattr(program, "__name__", type(program).__name__)
    try:
        signature(program).bind()
    except TypeError as error:
        raise GraphError(
            f"program '{name}' is {error}; a mixing program takes none. Wrap it, as in "
            f"lambda: {name}(...), or call it where it returns a program, as in chain(3)."
        ) from error
    with pyro.poutine.block(), _Compiler(name) as compiler:
        returned = program()
    observed = returned if isinstance(returned, (tuple, list)) else [returned]
    for value in observed:
        if not isinstance(value, _Symbol):
            raise GraphError(
                f"program '{name}' returned {value!r}; expected the observed mixture site (or a "
                "tuple of them), as in: return mix('mixture', a, b)."
            )
    return MixingGraph(name, tuple(compiler.sites), tuple(value.name for value in observed))


class _Compiler(Messenger):
    """Answers every declared site with a symbol and notes it down."""

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
        if not isinstance(fn, _SiteDistribution):
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
        msg["value"], msg["done"] = _Symbol(name), True

    def _add_mix(self, name: str, declared: _Declared) -> None:
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
            if not isinstance(part, _Symbol):
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


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise GraphError(f"a site needs a name, a non-empty string; got {name!r}.")


def _check_alphabet(name: str, alphabet: int | None) -> int | None:
    if alphabet is not None and (type(alphabet) is not int or alphabet < 1):
        raise GraphError(f"alphabet of '{name}' must be a positive integer, got {alphabet!r}.")
    return alphabet


def _check_weights(name: str, weights: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(weight) for weight in weights)
    except (TypeError, ValueError) as error:
        raise GraphError(
            f"weights of mixture '{name}' must be numbers, one for each part, got {weights!r}."
        ) from error


def _check_hidden(name: str, hidden: Sequence[Any]) -> tuple[Any, ...]:
    if not isinstance(hidden, (list, tuple)):
        raise GraphError(
            f"hidden of mixture '{name}' must be a list of sites, as hidden=[b]; got {hidden!r}."
        )
    return tuple(hidden)
