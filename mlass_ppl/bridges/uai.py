"""Small mixing graphs as UAI files, the text format of the inference competitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .._programs.row import Row, check_row
from ..declare import Program, compile_program
from ..errors import DataError, GraphError, TableError
from ..evidence import Token
from ..graph import MixingGraph
from ..tables.table import Table
from ._build import Read, factor_graph, network_graph
from ._factors import log_factors, scaled

if TYPE_CHECKING:
    from ..infer.base import AnyTable


def write_uai(
    path: str | Path,
    program: Program | MixingGraph,
    tables: Mapping[str, AnyTable],
    log_priors: Mapping[str, Tensor],
    evidence: Mapping[str, Any] | None = None,
    *,
    limit: int = 1_000_000,
) -> tuple[Path, Path]:
    """Write the model to `path` and what is observed of it to `path` + ".evid"; returns both.

    Variables are numbered in the order of the graph's sites (those with a token). Where every table
    row and prior sums to 1 and evidence is tokens alone, the header is BAYES and functions are the
    priors and tables as they are, the child last. Otherwise it is MARKOV, with the factors of the
    posterior: likelihood powers, log weights and features' likelihoods are in it, and its partition
    function under the evidence is p(evidence). Numbers have all their digits.

    log_priors: nats [K] by source. evidence: by observed site, as declared. limit: of numbers in
    the file. Raises TableError when there would be more, EngineError and GraphError.

    The format: https://uaicompetition.github.io/uci-2022/file-formats/
    """
    graph = compile_program(program)
    row = check_row(graph, tables, log_priors, evidence)
    shapes = [[row.sizes[name] for name in factor.tokens] for factor in graph.factors]
    cells = sum(map(prod, shapes)) + sum(row.sizes[name] for name in graph.sources)
    if cells > limit:
        raise TableError(
            f"'{graph.name}' has {cells:.3g} numbers, about {20 * cells / 1e9:.3g} GB of text; "
            f"write_uai(limit={limit}) allows {limit:.3g}. UAI files are for small graphs: take a "
            "smaller alphabet, or keep the tables in a bundle."
        )
    names = [site.name for site in graph.sites if site.name in row.sizes]
    kind, functions = _bayes(row) or _markov(row)
    lines = [kind, str(len(names)), " ".join(str(row.sizes[name]) for name in names)]
    lines.append(str(len(functions)))
    for scope, _ in functions:
        lines.append(" ".join(map(str, (len(scope), *map(names.index, scope)))))
    for _, values in functions:
        numbers = [
            np.format_float_positional(x, trim="0") for x in values.reshape(-1).tolist()
        ]  # without exponents, which not every reader takes
        lines += ["", str(len(numbers)), " ".join(numbers)]
    given = [f"{names.index(name)} {int(token)}" for name, token in row.tokens.items()]
    model, observed = Path(path), Path(f"{path}.evid")
    model.write_text("\n".join(lines) + "\n", "utf-8")
    observed.write_text(" ".join([str(len(given)), *given]) + "\n", "utf-8")
    return model, observed


Functions = list[tuple[tuple[str, ...], Tensor]]


def _bayes(row: Row) -> tuple[str, Functions] | None:
    """Priors and tables, where they are a network's."""
    graph = row.graph
    functions: Functions = []
    plain = not row.graph.features and not row.weights
    if not plain or any(row.power(name) != 1 for name in row.tokens):
        return None
    for name, log in row.log_priors.items():
        functions.append(((name,), log.double().cpu().exp()))
    for factor in graph.factors:
        functions.append(((*factor.parents, factor.child), row.dense(factor.name)))
    whole = all(((values.sum(-1) - 1).abs() < 1e-6).all() for _, values in functions)
    return ("BAYES", functions) if whole else None


def _markov(row: Row) -> tuple[str, Functions]:
    """Factors of the posterior. What scaling takes from one is given back in equal parts to all,
    lest a factor leave the range of numbers."""
    parts = [(factor.scope, *scaled(factor)) for factor in log_factors(row, reduce=False)]
    share = sum(scale for _, _, scale in parts) / len(parts)
    factor = float(np.exp(share))
    if not 1e-200 < factor < 1e200:
        raise TableError(
            f"'{row.graph.name}' has a likelihood of about e^{share * len(parts):.3g}, which UAI "
            "files, made of plain numbers, cannot hold. Shift its log weights towards 0."
        )
    return "MARKOV", [(scope, values * factor) for scope, values, _ in parts]


def read_uai(
    path: str | Path, *, names: Sequence[str] | None = None, observed: Sequence[str] | None = None
) -> Read:
    """Read a UAI file, and its evidence from `path` + ".evid" if there is one: graph, tables, log
    priors and evidence.

    names: of the variables (default x0, x1, ...), as in `[site.name for site in graph.sites]`.
    A BAYES file becomes the network that it is where every variable with evidence has parents and
    every other leads to one; without evidence, `observed` are its observed sites (default: the
    variables that lead nowhere). Any other file becomes a mixing graph of the same posterior, in
    which every variable is a source and every function an observed binary mixture; evidence is then
    in the priors. Raises DataError on a malformed file, TableError and GraphError.
    """
    path = Path(path)
    words = _Words(path)
    kind = words.word("BAYES or MARKOV")
    if kind not in ("BAYES", "MARKOV"):
        raise DataError(f"{path} starts with '{kind}'; expected BAYES or MARKOV.")
    sizes = [words.whole("an alphabet", 1) for _ in range(words.whole("number of variables", 1))]
    if names is None:
        names = [f"x{i}" for i in range(len(sizes))]
    if len(names) != len(sizes):
        raise DataError(f"{path} has {len(sizes)} variables; names= gives {len(names)}.")
    scopes = []
    for _ in range(words.whole("number of functions", 0)):
        arity = words.whole("number of a function's variables", 0)
        scopes.append([words.whole("a variable", 0, len(sizes)) for _ in range(arity)])
    functions: Functions = []
    for scope in scopes:
        shape = [sizes[i] for i in scope]
        count = words.whole("number of a function's values", 0)
        if count != prod(shape):
            raise DataError(f"{path} lists {count} values for a function of shape {shape}.")
        values = torch.tensor([words.number() for _ in range(count)], dtype=torch.float64)
        functions.append((tuple(names[i] for i in scope), values.reshape(shape)))
    words.end()
    given = _evidence(Path(f"{path}.evid"), names, sizes)
    cards = dict(zip(names, sizes, strict=True))
    if kind == "BAYES" and (found := _network(path, cards, functions, given, observed)):
        return found
    for name, token in given.items():
        values = torch.zeros(cards[name], dtype=torch.float64)
        values[token] = 1.0
        functions.append(((name,), values))
    return factor_graph(path.stem, cards, functions)


def _network(
    path: Path,
    cards: Mapping[str, int],
    functions: Functions,
    given: Mapping[str, int],
    observed: Sequence[str] | None,
) -> Read | None:
    """The file's network as a mixing graph, or None where its evidence does not make it one."""
    arrays = {scope[-1]: (scope[:-1], values) for scope, values in functions if scope}
    if set(arrays) != set(cards) or len(functions) != len(cards):
        raise DataError(f"{path} is BAYES, but has not one function for each variable.")
    parents: dict[str, tuple[str, ...]] = {}
    while len(parents) < len(cards):  # parents first
        ready = [n for n in cards if n not in parents and set(arrays[n][0]) <= set(parents)]
        if not ready:
            raise DataError(f"{path} is BAYES, but its functions have a cycle.")
        parents.update({name: arrays[name][0] for name in ready})
    ends = [name for name in cards if not any(name in scope for scope, _ in arrays.values())]
    seen = list(given) or (ends if observed is None else list(observed))
    try:
        graph = network_graph(path.stem, parents, cards, dict.fromkeys(seen, Token()))
    except GraphError:
        if given:
            return None
        raise
    tables = {name: Table.from_array(arrays[name][1]) for name in graph.mixtures}
    log_priors = {name: arrays[name][1].log() for name in graph.sources}
    return graph, tables, log_priors, dict(given)


def _evidence(path: Path, names: Sequence[str], sizes: Sequence[int]) -> dict[str, int]:
    if not path.exists():
        return {}
    words, out = _Words(path), {}
    for _ in range(words.whole("number of observed variables", 0)):
        place = words.whole("a variable", 0, len(names))
        out[names[place]] = words.whole("its value", 0, sizes[place])
    words.end()
    return out


class _Words:
    """The words of a file, one after the other, with errors that say what was expected."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path} ({error}).") from error
        self._words: Iterator[str] = iter(text.split())

    def word(self, what: str) -> str:
        found = next(self._words, None)
        if found is None:
            raise DataError(f"{self.path} ends where {what} was expected.")
        return found

    def whole(self, what: str, least: int, below: int | None = None) -> int:
        word = self.word(what)
        if not word.isdecimal() or int(word) < least or (below is not None and int(word) >= below):
            bound = f"in [{least}, {below})" if below is not None else f"of at least {least}"
            raise DataError(f"{self.path} has '{word}'; expected {what}, a whole number {bound}.")
        return int(word)

    def number(self) -> float:
        word = self.word("a function's value")
        try:
            return float(word)
        except ValueError as error:
            raise DataError(f"{self.path} has '{word}'; expected a number.") from error

    def end(self) -> None:
        if (word := next(self._words, None)) is not None:
            raise DataError(f"{self.path} goes on with '{word}' where its end was expected.")
