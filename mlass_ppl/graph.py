"""The frozen mixing graph: sources, mixtures and the factors that tie them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .errors import GraphError
from .evidence import Evidence, Feature, Soft, Token

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Source:
    """A source site.

    prior: key of its prior in a bundle. alphabet: its K if declared. label: class that its prior
    is conditioned on.
    """

    name: str
    prior: str | None = None
    alphabet: int | None = None
    label: int | None = None


@dataclass(frozen=True)
class Mix:
    """A mixture site.

    weights: one for each of `parents` and then of `hidden`, summing to 1; the site's signal is
    their weighted sum. hidden: sites that sound in the mixture but are not conditioned on: the
    table is p(site | parents), averaged over them. evidence: what is observed, where the site is.
    codec: key of the codec of its tokens (default: the sources'). symmetric: the parents are
    exchangeable, so that the table is counted in each of their orders.
    """

    name: str
    parents: tuple[str, ...]
    weights: tuple[float, ...]
    hidden: tuple[str, ...] = ()
    alphabet: int | None = None
    evidence: Evidence = Token()
    codec: str | None = None
    symmetric: bool = False


Site = Source | Mix


@dataclass(frozen=True)
class Factor:
    """One conditional table p(child | parents) of a graph; scope = (child, *parents).

    feature: the child is a continuous feature, so that the parents alone have tokens. linear: its
    table is put together from moments of the parents (`Feature(linear=True)`).
    """

    child: str
    parents: tuple[str, ...]
    name: str
    feature: bool = False
    linear: bool = False

    @property
    def scope(self) -> tuple[str, ...]:
        return (self.child, *self.parents)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The sites of the scope that have a token."""
        return self.parents if self.feature else self.scope


@dataclass(frozen=True)
class MixingGraph:
    """A program's sites in the order of declaration, parents before children.

    observed: the sites that the program returned. Built by `compile_program`; checked here, so
    that a graph made by hand is as safe. Raises GraphError when it is malformed.
    """

    name: str
    sites: tuple[Site, ...]
    observed: tuple[str, ...]

    def __post_init__(self) -> None:
        from ._programs.graph_checks import check_graph

        check_graph(self)

    def site(self, name: str) -> Site:
        """The site of that name. Raises GraphError when there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise GraphError(
            f"'{self.name}' has no site '{name}'; it has {[site.name for site in self.sites]}."
        )

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites if isinstance(site, Source))

    @cached_property
    def mixtures(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites if isinstance(site, Mix))

    def evidence(self, name: str) -> Evidence:
        """What is observed at an observed site. Raises GraphError when it is none."""
        site = self.site(name)
        if name not in self.observed or isinstance(site, Source):
            fix = "What is observed is what the program returns: return it as well."
            if isinstance(site, Source):
                fix = "Sources are what is looked for; what is known of one is given as its prior."
            raise GraphError(
                f"'{self.name}' does not observe '{name}'; it observes {list(self.observed)}. {fix}"
            )
        return site.evidence

    def with_evidence(self, evidence: Mapping[str, Evidence]) -> MixingGraph:
        """The same graph with other kinds of evidence at some of its observed sites."""
        for name in evidence:
            self.evidence(name)
        sites = tuple(
            replace(site, evidence=evidence.get(site.name, site.evidence))
            if isinstance(site, Mix)
            else site
            for site in self.sites
        )
        return replace(self, sites=sites)

    @cached_property
    def known(self) -> tuple[str, ...]:
        """Observed sites whose token is given."""
        return tuple(name for name in self.observed if isinstance(self.evidence(name), Token))

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Observed sites of which a continuous feature is given, and that have no token."""
        return tuple(name for name in self.observed if isinstance(self.evidence(name), Feature))

    @cached_property
    def linear(self) -> tuple[str, ...]:
        """Those of `features` whose tables are put together from moments of the parents."""
        kinds = {name: self.evidence(name) for name in self.features}
        return tuple(n for n, kind in kinds.items() if isinstance(kind, Feature) and kind.linear)

    @cached_property
    def soft(self) -> tuple[str, ...]:
        """Observed sites with weights over their tokens, which stay latent."""
        return tuple(name for name in self.observed if isinstance(self.evidence(name), Soft))

    @cached_property
    def latent(self) -> tuple[str, ...]:
        """Sites that have a token which is not given, in the order of declaration."""
        given = {*self.known, *self.features}
        return tuple(site.name for site in self.sites if site.name not in given)

    @cached_property
    def factors(self) -> tuple[Factor, ...]:
        """One factor for each mixture site."""
        return tuple(
            self.factor(site.name, site.parents, site.name)
            for site in self.sites
            if isinstance(site, Mix)
        )

    def factor(self, child: str, parents: tuple[str, ...], name: str) -> Factor:
        """A table of this graph, p(child | parents), for engines that need others than its own."""
        return Factor(child, parents, name, child in self.features, child in self.linear)

    def leaf_weights(self, name: str) -> dict[str, float]:
        """How much of each source a site's signal holds: {source: weight}, summing to 1."""
        site = self.site(name)
        if isinstance(site, Source):
            return {name: 1.0}
        total: dict[str, float] = {}
        for part, weight in zip(site.parents + site.hidden, site.weights, strict=True):
            for source, share in self.leaf_weights(part).items():
                total[source] = total.get(source, 0.0) + weight * share
        return total

    @cached_property
    def is_tree(self) -> bool:
        """Whether belief propagation is exact: no cycle among factors and unobserved sites."""
        return self.cycle() is None

    def cycle(self) -> list[str] | None:
        """Names of the sites along one cycle of the factor graph, or None for a forest.

        Sites whose token is given are cut apart and close no cycle.
        """
        from ._programs.cycle import find_cycle

        return find_cycle(self)

    def to_networkx(self) -> nx.DiGraph:
        """Directed graph with everything that the sites declare; see `bridges.to_networkx`."""
        from .bridges import to_networkx

        return to_networkx(self)

    def describe(self, alphabet: int | Mapping[str, int] | None = None) -> str:
        """Sites, alphabets, factors and the cost of each engine, as text.

        alphabet: K of every site, or of each by name, for those that declare none.
        """
        from ._programs.describe import describe

        return describe(self, self.alphabets(alphabet))

    def alphabets(self, alphabet: int | Mapping[str, int] | None = None) -> dict[str, int]:
        """Known alphabet sizes by site: declared ones, else those given."""
        out = {}
        for site in self.sites:
            given = alphabet.get(site.name) if isinstance(alphabet, Mapping) else alphabet
            size = site.alphabet if site.alphabet is not None else given
            if size is not None:
                out[site.name] = size
        return out

    def __str__(self) -> str:
        return self.describe()

    def draw(self, path: Any = None) -> Figure:
        """Picture of the graph (matplotlib figure), also written to `path` when given."""
        from .draw import draw_graph

        return draw_graph(self, path)

    def _repr_svg_(self) -> str:
        from .draw import graph_svg

        return graph_svg(self)


def mean_weights(leaves: Sequence[Collection[str]]) -> tuple[float, ...]:
    """Weights of parts by the number of their sources, so that a mixture is the sources' mean."""
    total = sum(map(len, leaves))
    return tuple(len(part) / total for part in leaves)
