"""Declaring a mixing graph as a Pyro program of `source` and `mix` sites.

Both are `pyro.sample` statements. `compile_program` runs the program once under an effect handler
that answers each of them with a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ._programs.graph_checks import check_alphabet, check_evidence, check_label, check_name
from ._programs.program import check_program, explained, refused_return
from .errors import GraphError
from .evidence import Evidence, Token
from .graph import MixingGraph, Source

Program = Callable[[], Any]


def source(
    name: str,
    *,
    prior: str | None = None,
    alphabet: int | None = None,
    label: int | None = None,
) -> Any:
    """Declare a source: one latent token with an autoregressive prior.

    prior: key of its prior in a bundle (default: its name, or the bundle's only prior).
    alphabet: its number of tokens K, where no codec says so. label: class that the prior is
    conditioned on, as in `source("a", prior="digit", label=3)`.
    """
    from ._programs.tracing import Declared, statement

    check_name(name)
    check_alphabet(name, alphabet)
    check_label(name, label)
    return statement(name, Declared(Source(name, prior, alphabet, label)))


def mix(
    name: str,
    *parents: Any,
    weights: Sequence[float] | None = None,
    hidden: Sequence[Any] = (),
    alphabet: int | None = None,
    evidence: Evidence = Token(),
    codec: str | None = None,
    symmetric: bool = False,
) -> Any:
    """Declare a mixture of earlier sites: one token with a table p(token | parents).

    weights: of the parents' signals and then of the hidden ones, summing to 1; by default each part
    weighs as much as it has sources, so that parts without a common source give the mean of all.
    hidden: sites that are part of the signal while the table is averaged over them:
    `mix("m", a, hidden=[b])` is an extractor's p(m | a).
    evidence: what is observed where the site is returned: `Token()`, `Soft()`, `Feature()`
    or `Feature(linear=True)`.
    codec: key in the bundle of the codec of this site's tokens (default: the sources').
    symmetric: the parents are exchangeable: of one weight and one kind of prior. Their table is
    then counted in every order, from as many times the data.
    """
    from ._programs.tracing import Declared, statement

    check_name(name)
    check_alphabet(name, alphabet)
    check_evidence(name, evidence)
    declared = Declared(
        None,
        parents,
        None if weights is None else _check_weights(name, weights),
        _check_hidden(name, hidden),
        alphabet,
        evidence,
        codec,
        bool(symmetric),
    )
    return statement(name, declared)


def compile_program(program: Program | MixingGraph) -> MixingGraph:
    """Run a program once and freeze the graph that it declares; a graph is returned as it is.

    Raises GraphError when the program computes with a site's value, samples anything but sources
    and mixtures, uses a plate, declares a name twice, leaves a site dangling or returns no site.
    """
    if isinstance(program, MixingGraph):
        return program
    name = check_program(program)
    from ._programs.tracing import Compiler, Symbol

    with Compiler(name) as compiler, explained(name):
        returned = program()
    observed = returned if isinstance(returned, (tuple, list)) else [returned]
    for value in observed:
        if not isinstance(value, Symbol):
            raise GraphError(refused_return(name, value))
        if not compiler.knows(value):
            raise GraphError(
                f"program '{name}' returned '{value.name}', a site of another program or of an "
                f"earlier run of this one. Return what this run declares: return mix(...)."
            )
    return MixingGraph(name, tuple(compiler.sites), tuple(value.name for value in observed))


def _check_weights(name: str, weights: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(weight) for weight in weights)
    except (TypeError, ValueError) as error:
        raise GraphError(
            f"weights of mixture '{name}' must be numbers, one for each part, as "
            f"weights=(0.7, 0.3); got {weights!r}."
        ) from error


def _check_hidden(name: str, hidden: Sequence[Any]) -> tuple[Any, ...]:
    if not isinstance(hidden, (list, tuple)):
        raise GraphError(
            f"hidden of mixture '{name}' must be a list of sites, as hidden=[b]; got {hidden!r}."
        )
    return tuple(hidden)
