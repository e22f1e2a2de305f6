"""What makes a mixing graph sound, and the sentences that say why one is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import GraphError
from ..evidence import Feature, Soft, Token
from ..graph import Mix, Source

if TYPE_CHECKING:
    from ..graph import MixingGraph


def check_graph(graph: MixingGraph) -> None:
    """Raises GraphError when a graph is malformed."""
    seen: set[str] = set()
    for site in graph.sites:
        if site.name in seen:
            raise GraphError(declared_twice(graph.name, site.name))
        check_alphabet(site.name, site.alphabet)
        if isinstance(site, Mix):
            _check_parts(graph, site, seen)
            _check_weights(site)
            _check_evidence(graph, site)
            _check_linear(graph, site)
            _check_symmetric(graph, site)
        else:
            check_label(site.name, site.label)
        seen.add(site.name)
    if not any(isinstance(site, Source) for site in graph.sites):
        raise GraphError(
            f"'{graph.name}' declares no source. Every program starts from them: a = source('a')."
        )
    _check_observed(graph, seen)
    _check_reached(graph)


def declared_twice(program: str, name: str) -> str:
    return (
        f"'{program}' declares site '{name}' twice. Every site needs a name of its own, in a loop "
        f"for instance f'{name}_{{i}}'."
    )


def check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise GraphError(
            f"a site needs a name, a non-empty string, as in source('a') and mix('m', a, b); got "
            f"{name!r}."
        )


def check_alphabet(name: str, alphabet: object) -> None:
    if alphabet is not None and (type(alphabet) is not int or alphabet < 1):
        raise GraphError(
            f"alphabet of '{name}' must be a positive integer, its number of tokens; got "
            f"{alphabet!r}."
        )


def check_label(name: str, label: object) -> None:
    if label is not None and (type(label) is not int or label < 0):
        raise GraphError(
            f"label of source '{name}' must be a class number (0, 1, 2, ...), got {label!r}. "
            "Without a class, leave label= out."
        )


def _check_parts(graph: MixingGraph, site: Mix, seen: set[str]) -> None:
    program, parts = graph.name, site.parents + site.hidden
    if not site.parents:
        raise GraphError(
            f"mixture '{site.name}' of '{program}' has no parents. Name what it mixes: "
            f"mix('{site.name}', a, b)."
        )
    if len(set(parts)) != len(parts):
        raise GraphError(
            f"mixture '{site.name}' of '{program}' takes a part twice: {list(parts)}. Name each "
            "once; weights=(...) say how loud each is."
        )
    for part in parts:
        if part not in seen:
            raise GraphError(
                f"mixture '{site.name}' of '{program}' takes '{part}', which is not declared "
                "before it."
            )
    if len(site.weights) != len(parts):
        equal = ", ".join([f"1/{len(parts)}"] * len(parts))
        raise GraphError(
            f"mixture '{site.name}' of '{program}' has {len(parts)} part"
            f"{'s' if len(parts) > 1 else ''} ({', '.join(parts)}) and {len(site.weights)} "
            f"weight{'' if len(site.weights) == 1 else 's'}. Give one for each, parents first and "
            f"then hidden: weights=({equal}); or none, for the mean of all sources."
        )


def _check_weights(site: Mix) -> None:
    total = sum(site.weights)
    positive = all(weight > 0 for weight in site.weights)
    if positive and abs(total - 1) <= 1e-6:
        return
    fix = "Parts are added, never subtracted; leave out a part of weight 0."
    if positive and total < float("inf"):
        fix = f"Divide them by their sum: x = {site.weights}; weights=[w / sum(x) for w in x]."
    raise GraphError(
        f"weights of mixture '{site.name}' must be positive and sum to 1, got {site.weights} (sum "
        f"{total:.6g}). {fix}"
    )


def check_evidence(name: str, evidence: object) -> None:
    if isinstance(evidence, type):
        kind = evidence.__name__
        raise GraphError(
            f"evidence of mixture '{name}' is the class {kind}, not one of its kind: write "
            f"evidence={kind}()."
        )
    if not isinstance(evidence, (Token, Soft, Feature)):
        raise GraphError(
            f"evidence of mixture '{name}' is the kind of what is observed, Token(), Soft() or "
            f"Feature(), got {evidence!r}. The value itself is given when the program is used, as "
            f"evidence={{'{name}': ...}}."
        )


def _check_evidence(graph: MixingGraph, site: Mix) -> None:
    check_evidence(site.name, site.evidence)
    if site.evidence != Token() and site.name not in graph.observed:
        raise GraphError(
            f"mixture '{site.name}' of '{graph.name}' declares evidence={site.evidence!r}, but is "
            f"not observed: the program returns {_listed(graph.observed)}. Return it as well, or "
            "drop its evidence=."
        )
    if isinstance(site.evidence, Feature):
        for other in graph.sites:
            if isinstance(other, Mix) and site.name in other.parents:
                raise GraphError(
                    f"mixture '{other.name}' of '{graph.name}' takes '{site.name}' as a parent, "
                    f"but of '{site.name}' a continuous feature is observed: it has no token that "
                    f"a table could be conditioned on. Observe its token, evidence=Token(), or mix "
                    f"its parts: mix('{other.name}', {', '.join(site.parents)}, ...)."
                )


def _check_linear(graph: MixingGraph, site: Mix) -> None:
    """Raises GraphError where parts of a linear feature share a source: being dependent, their
    covariances do not add up."""
    if not isinstance(site.evidence, Feature) or not site.evidence.linear:
        return
    heard: dict[str, str] = {}
    for part in site.parents + site.hidden:
        for leaf in graph.leaf_weights(part):
            if (other := heard.setdefault(leaf, part)) == part:
                continue
            raise GraphError(
                f"mixture '{site.name}' of '{graph.name}' observes a linear feature, but its parts "
                f"'{other}' and '{part}' both hold source '{leaf}': dependent parts have no "
                "moments that add up. Observe Feature(), whose table is counted for every "
                f"configuration of the parents, or mix the sources themselves: "
                f"mix('{site.name}', {', '.join(graph.leaf_weights(site.name))}, weights=...)."
            )


def _check_symmetric(graph: MixingGraph, site: Mix) -> None:
    if not site.symmetric:
        return
    weights = site.weights[: len(site.parents)]
    if max(weights) - min(weights) > 1e-6:
        raise GraphError(
            f"mixture '{site.name}' of '{graph.name}' declares symmetric=True, but its parents "
            f"weigh {weights}: only parents of equal weight are exchangeable. Drop symmetric=, or "
            "give them one weight."
        )
    facts = [_facts(graph, parent) for parent in site.parents]
    for parent, fact in zip(site.parents, facts, strict=True):
        for (what, here), first in zip(fact.items(), facts[0].values(), strict=True):
            if here != first and None not in (here, first):
                raise GraphError(
                    f"mixture '{site.name}' of '{graph.name}' declares symmetric=True, but its "
                    f"parents '{site.parents[0]}' and '{parent}' differ in {what} ({first} and "
                    f"{here}), so they are not exchangeable. Drop symmetric=."
                )


def _facts(graph: MixingGraph, name: str) -> dict[str, object]:
    """What parents share when swapping them changes nothing."""
    site, shares = graph.site(name), graph.leaf_weights(name)
    leaves = [graph.site(leaf) for leaf in shares]
    return {
        "alphabet": site.alphabet,
        "codec": (isinstance(site, Mix) and site.codec) or "the sources'",
        "their sources' shares": sorted(round(share, 6) for share in shares.values()),
        "prior": sorted(str(leaf.prior) for leaf in leaves if isinstance(leaf, Source)),
    }


def _check_observed(graph: MixingGraph, seen: set[str]) -> None:
    if not isinstance(graph.observed, tuple):
        raise GraphError(
            f"observed of '{graph.name}' must be a tuple of names, as ('mixture',); got "
            f"{graph.observed!r}."
        )
    if not graph.observed:
        raise GraphError(
            f"'{graph.name}' observes nothing: return the site of the mixture that is given, as "
            "in: return mix('mixture', a, b)."
        )
    if len(set(graph.observed)) != len(graph.observed):
        raise GraphError(
            f"'{graph.name}' returns a site twice: {list(graph.observed)}. Return each once."
        )
    for name in graph.observed:
        if name not in seen:
            raise GraphError(f"'{graph.name}' returns '{name}', which it does not declare.")
        if isinstance(graph.site(name), Source):
            raise GraphError(
                f"'{graph.name}' returns the source '{name}', but sources are what is looked for. "
                f"What is observed is a mixture: return mix('mixture', {name}, ...)."
            )


def _check_reached(graph: MixingGraph) -> None:
    reached = set(graph.observed)
    for site in reversed(graph.sites):
        if site.name in reached and isinstance(site, Mix):
            reached.update(site.parents + site.hidden)
    if loose := [site.name for site in graph.sites if site.name not in reached]:
        them = "it" if len(loose) == 1 else "them"
        parts = {part for s in graph.sites if isinstance(s, Mix) for part in s.parents + s.hidden}
        ends = ", ".join(name for name in loose if name not in parts)
        raise GraphError(
            f"'{graph.name}' declares {_listed(loose)}, which the observed "
            f"{_listed(graph.observed)} {'does' if len(graph.observed) == 1 else 'do'} not depend "
            f"on: nothing could be learned about {them}. Mix {them} in, as in "
            f"mix('{graph.observed[0]}', ..., {ends}), return a mixture of {them} as well, or drop "
            f"{them}."
        )


def _listed(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
