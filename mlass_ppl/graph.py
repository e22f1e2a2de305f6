"""The frozen mixing graph: sources, mixtures and the factors that tie them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .errors import GraphError

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Source:
    """A source site: `prior` is the key of its prior in a bundle, `alphabet` its K if declared."""

    name: str
    prior: str | None = None
    alphabet: int | None = None


@dataclass(frozen=True)
class Mix:
    """A mixture site.

    weights: one for each of `parents` and then of `hidden`, summing to 1; the site's signal is
    their weighted sum. hidden: sites that sound in the mixture but are not conditioned on: the
    table is p(site | parents), averaged over them.
    """

    name: str
    parents: tuple[str, ...]
    weights: tuple[float, ...]
    hidden: tuple[str, ...] = ()
    alphabet: int | None = None


Site = Source | Mix


@dataclass(frozen=True)
class Factor:
    """One conditional table p(child | parents) of a graph; scope = (child, *parents)."""

    child: str
    parents: tuple[str, ...]
    name: str

    @property
    def scope(self) -> tuple[str, ...]:
        return (self.child, *self.parents)


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
        seen: set[str] = set()
        for site in self.sites:
            if site.name in seen:
                raise GraphError(f"'{self.name}' declares site '{site.name}' twice.")
            if isinstance(site, Mix):
                _check_mix(self.name, site, seen)
            seen.add(site.name)
        if not any(isinstance(site, Source) for site in self.sites):
            raise GraphError(f"'{self.name}' declares no source: call source(name) in it.")
        if not self.observed:
            raise GraphError(
                f"'{self.name}' observes nothing: return the site of the mixture that is given."
            )
        if len(set(self.observed)) != len(self.observed):
            raise GraphError(f"'{self.name}' returns a site twice: {list(self.observed)}.")
        for name in self.observed:
            if name not in seen:
                raise GraphError(f"'{self.name}' returns '{name}', which it does not declare.")
            if isinstance(self.site(name), Source):
                raise GraphError(
                    f"'{self.name}' returns the source '{name}'; what is observed is a mixture: "
                    "return mix(...)."
                )
        reached = set(self.observed)
        for site in reversed(self.sites):
            if site.name in reached and isinstance(site, Mix):
                reached.update(site.parents + site.hidden)
        if loose := [site.name for site in self.sites if site.name not in reached]:
            raise GraphError(
                f"'{self.name}' declares {loose}, which the observed {list(self.observed)} do not "
                "depend on: nothing could be learned about them. Mix them in or drop them."
            )

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

    @cached_property
    def latent(self) -> tuple[str, ...]:
        """Sites that are not observed, in the order of declaration."""
        return tuple(site.name for site in self.sites if site.name not in self.observed)

    @cached_property
    def factors(self) -> tuple[Factor, ...]:
        """One factor for each mixture site."""
        return tuple(
            Factor(site.name, site.parents, site.name)
            for site in self.sites
            if isinstance(site, Mix)
        )

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

        Observed sites are known, so they are cut apart and close no cycle.
        """
        import networkx as nx

        graph = nx.Graph()
        for factor in self.factors:
            node = ("factor", factor.name)
            graph.add_node(node)
            for name in factor.scope:
                if name not in self.observed:
                    graph.add_edge(node, ("site", name))
        try:
            edges = nx.find_cycle(graph)
        except nx.NetworkXNoCycle:
            return None
        return [node[1] for edge in edges for node in edge[:1] if node[0] == "site"]

    def to_networkx(self) -> nx.DiGraph:
        """Directed graph: nodes carry `kind` ("source" or "mix") and `observed`, edges from
        parents to children carry `weight` and `hidden`."""
        import networkx as nx

        graph = nx.DiGraph(name=self.name)
        for site in self.sites:
            kind = "source" if isinstance(site, Source) else "mix"
            graph.add_node(site.name, kind=kind, observed=site.name in self.observed)
            if isinstance(site, Mix):
                parts = site.parents + site.hidden
                for part, weight in zip(parts, site.weights, strict=True):
                    graph.add_edge(part, site.name, weight=weight, hidden=part in site.hidden)
        return graph

    def describe(self, alphabet: int | Mapping[str, int] | None = None) -> str:
        """Sites, alphabets, factors and the cost of each engine, as text.

        alphabet: K of every site, or of each by name, for those that declare none.
        """
        from .infer.cost import cost_lines

        sizes = self.alphabets(alphabet)
        lines = [f"{self.name}: {len(self.sources)} sources, {len(self.mixtures)} mixtures"]
        width = max(len(site.name) for site in self.sites)
        for site in self.sites:
            size = sizes.get(site.name)
            label = f"  {site.name:<{width}}  K={size if size else '?':<5}"
            if isinstance(site, Source):
                lines.append(f"{label} source" + (f", prior '{site.prior}'" if site.prior else ""))
            else:
                given = ", ".join(site.parents)
                hidden = f", over {', '.join(site.hidden)}" if site.hidden else ""
                mark = "observed, " if site.name in self.observed else ""
                shares = " + ".join(
                    f"{weight:.3g} {part}"
                    for part, weight in zip(site.parents + site.hidden, site.weights, strict=True)
                )
                lines.append(f"{label} {mark}p(. | {given}{hidden}), signal = {shares}")
        lines += cost_lines(self, sizes)
        return "\n".join(lines)

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


def _check_mix(program: str, site: Mix, seen: set[str]) -> None:
    parts = site.parents + site.hidden
    if not site.parents:
        raise GraphError(
            f"mixture '{site.name}' of '{program}' has no parents: mix(name, first, second, ...)."
        )
    if len(set(parts)) != len(parts):
        raise GraphError(f"mixture '{site.name}' of '{program}' takes a part twice: {list(parts)}.")
    for part in parts:
        if part not in seen:
            raise GraphError(
                f"mixture '{site.name}' of '{program}' takes '{part}', which is not declared "
                "before it."
            )
    if len(site.weights) != len(parts):
        raise GraphError(
            f"mixture '{site.name}' of '{program}' has {len(parts)} parts and "
            f"{len(site.weights)} weights."
        )
    if any(not weight > 0 for weight in site.weights) or abs(sum(site.weights) - 1) > 1e-6:
        raise GraphError(
            f"weights of mixture '{site.name}' must be positive and sum to 1, got "
            f"{site.weights} (sum {sum(site.weights):.6g})."
        )
