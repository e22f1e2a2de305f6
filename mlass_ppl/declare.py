"""Declaring a mixing graph as a Pyro program of `source` and `mix` sites.

Both are `pyro.sample` statements. `compile_program` runs the program once under an effect handler
that answers each of them with a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

from .errors import GraphError
from .graph import MixingGraph, Source

Program = Callable[[], Any]


def source(name: str, *, prior: str | None = None, alphabet: int | None = None) -> Any:
    """Declare a source: one latent token with an autoregressive prior.

    prior: key of its prior in a bundle (default: its name, or the bundle's only prior).
    alphabet: its number of tokens K, where no codec says so.
    """
    from ._tracing import Declared, statement

    _check_name(name)
    return statement(name, Declared(Source(name, prior, _check_alphabet(name, alphabet))))


def mix(
    name: str,
    *parents: Any,
    weights: Sequence[float] | None = None,
    hidden: Sequence[Any] = (),
    alphabet: int | None = None,
) -> Any:
    """Declare a mixture of earlier sites: one token with a table p(token | parents).

    weights: of the parents' signals and then of the hidden ones, summing to 1; by default each part
    weighs as much as it has sources, so that parts without a common source give the mean of all.
    hidden: sites that are part of the signal while the table is averaged over them:
    `mix("m", a, hidden=[b])` is an extractor's p(m | a).
    """
    from ._tracing import Declared, statement

    _check_name(name)
    declared = Declared(
        None,
        parents,
        None if weights is None else _check_weights(name, weights),
        _check_hidden(name, hidden),
        _check_alphabet(name, alphabet),
    )
    return statement(name, declared)


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
    from ._tracing import Compiler, Symbol

    with Compiler(name) as compiler:
        returned = program()
    observed = returned if isinstance(returned, (tuple, list)) else [returned]
    for value in observed:
        if not isinstance(value, Symbol):
            raise GraphError(
                f"program '{name}' returned {value!r}; expected the observed mixture site (or a "
                "tuple of them), as in: return mix('mixture', a, b)."
            )
    return MixingGraph(name, tuple(compiler.sites), tuple(value.name for value in observed))


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
