"""Which latent site to sum out first, and what each step then works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from ...graph import MixingGraph


@dataclass(frozen=True)
class Bucket:
    """One step of variable elimination: everything that mentions `site` is multiplied, and `site`
    is summed out (bucket elimination; Dechter, 1999).

    separator: the other sites involved, in the order of declaration; the message is over them.
    factors: names of the factors that are multiplied here. children: numbers of the earlier
    buckets whose messages are.
    """

    site: str
    separator: tuple[str, ...]
    factors: tuple[str, ...]
    children: tuple[int, ...]

    @property
    def clique(self) -> tuple[str, ...]:
        return (self.site, *self.separator)

    def states(self, sizes: Mapping[str, int]) -> float:
        """Joint states of the clique, were all of them possible."""
        return prod(float(sizes.get(name, 1)) for name in self.clique)

    def operations(self, sizes: Mapping[str, int]) -> float:
        """Multiplications of the site's own weights by the factors and the messages."""
        return self.states(sizes) * max(1, len(self.factors) + len(self.children))


def buckets(graph: MixingGraph, sizes: Mapping[str, int]) -> tuple[Bucket, ...]:
    """The steps that eliminate every latent site of a graph; the messages of each tree of buckets
    end in one whose separator is empty.

    sizes: {site: K}; a site without one counts as 1.
    """
    latent = graph.latent
    scopes = {
        factor.name: tuple(name for name in latent if name in factor.tokens)
        for factor in graph.factors
    }
    places = {name: place for place, name in enumerate(latent)}
    waiting = {name: set(scope) for name, scope in scopes.items()}
    messages: dict[int, set[str]] = {}
    out: list[Bucket] = []
    for site in elimination_order(latent, scopes.values(), sizes):
        factors = tuple(name for name, scope in waiting.items() if site in scope)
        children = tuple(number for number, scope in messages.items() if site in scope)
        clique = {site}.union(*(waiting.pop(name) for name in factors))
        clique = clique.union(*(messages.pop(number) for number in children))
        separator = tuple(sorted(clique - {site}, key=places.__getitem__))
        if separator:
            messages[len(out)] = set(separator)
        out.append(Bucket(site, separator, factors, children))
    return tuple(out)


def elimination_order(
    sites: tuple[str, ...], scopes: Iterable[tuple[str, ...]], sizes: Mapping[str, int]
) -> tuple[str, ...]:
    """All sites in the order in which to sum them out.

    Two planners propose an order, and the one that visits fewer joint states is taken: opt_einsum,
    which looks ahead, and minimal fill, which is optimal on trees. A graph always gets the same.
    """
    # Numbers, not names: the order of a set of strings changes from one process to the next.
    places = {name: place for place, name in enumerate(sites)}
    numbered = [frozenset(places[name] for name in scope) for scope in scopes]
    weights = [sizes.get(name, 1) for name in sites]

    def visited(order: list[int]) -> float:
        return sum(prod(map(weights.__getitem__, clique), start=1.0)
                   for clique in _cliques(order, numbered))  # fmt: skip

    planned = min((_contracted(numbered, weights), _least_fill(numbered, weights)), key=visited)
    return tuple(sites[place] for place in planned)


def _contracted(scopes: list[frozenset[int]], weights: list[int]) -> list[int]:
    """A site in one scope alone goes first, since that enlarges nothing; opt_einsum says in which
    order to contract what is left, and a site goes when nothing outside the contracted pair
    mentions it."""
    from opt_einsum.paths import auto

    left, order = list(scopes), []

    def leave(inside: frozenset[int], outside: list[frozenset[int]]) -> frozenset[int]:
        gone = sorted(inside.difference(*outside))
        order.extend(gone)
        return inside.difference(gone)

    for number, scope in enumerate(left):
        left[number] = leave(scope, left[:number] + left[number + 1 :])
    left = [scope for scope in left if scope]
    if left:
        for pair in auto(left, frozenset(), dict(enumerate(weights))):
            parts = [left.pop(place) for place in sorted(pair, reverse=True)]
            left.append(leave(frozenset().union(*parts), left))
    return order + [site for site in range(len(weights)) if site not in order]


def _least_fill(scopes: list[frozenset[int]], weights: list[int]) -> list[int]:
    """Next goes the site whose neighbours lack the fewest ties among them, weighted by their sizes
    (Kjaerulff, 1990); of several the one with the smallest clique."""
    around: list[set[int]] = [set() for _ in weights]
    for scope in scopes:
        for site in scope:
            around[site] |= scope - {site}
    left, order = set(range(len(weights))), []

    def price(site: int) -> tuple[float, float, int]:
        near = sorted(around[site])
        fill = sum(
            float(weights[a] * weights[b]) for a in near for b in near if a < b not in around[a]
        )
        return fill, prod((weights[other] for other in near), start=float(weights[site])), site

    while left:
        site = min(left, key=price)
        for other in around[site]:
            around[other] |= around[site] - {other}
            around[other].discard(site)
        left.remove(site)
        order.append(site)
    return order


def _cliques(order: Iterable[int], scopes: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """What each step of an elimination works on."""
    left, out = list(scopes), []
    for site in order:
        clique = frozenset({site}).union(*(scope for scope in left if site in scope))
        left = [scope for scope in left if site not in scope] + [clique - {site}]
        out.append(clique)
    return out
