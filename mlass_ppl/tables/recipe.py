"""What was mixed to count a table: the identity of a table, whatever its sites are called."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..graph import Factor, MixingGraph, Source


@dataclass(frozen=True)
class Recipe:
    """leaves: the kind of each source in the mixture (the key of its prior), those of the parents
    first. parents: for each parent, the weight of each leaf. child: the weight of each leaf.
    Weights are rounded to six digits. codecs: key of the codec of each parent and of the child, ""
    for the main one; empty where all are. feature: the child is a continuous feature, and what is
    counted are moments. cells: means and covariances of the feature of a signal given its own
    token, of which the tables of linear features are put together; the one parent is the signal.

    Classes of class-conditional priors are no part of it: a table is counted over all of them.
    """

    leaves: tuple[str, ...]
    parents: tuple[tuple[float, ...], ...]
    child: tuple[float, ...]
    codecs: tuple[str, ...] = ()
    feature: bool = False
    cells: bool = False

    @classmethod
    def of(cls, graph: MixingGraph, factor: Factor, kind: Callable[[str], str]) -> Recipe:
        """Recipe of a factor; `kind` names what a source is drawn from.

        Leaves are ordered by the parents and then, for those averaged over, by kind and weight:
        sources of one kind and weight are interchangeable.
        """
        child = graph.leaf_weights(factor.child)
        given = [graph.leaf_weights(parent) for parent in factor.parents]
        order = list(dict.fromkeys(leaf for part in given for leaf in part))
        order += sorted(set(child) - set(order), key=lambda leaf: (kind(leaf), child[leaf]))
        codecs = tuple(codec_key(graph, name) or "" for name in (*factor.parents, factor.child))
        return cls(
            tuple(kind(leaf) for leaf in order),
            tuple(tuple(round(part.get(leaf, 0.0), 6) for leaf in order) for part in given),
            tuple(round(child.get(leaf, 0.0), 6) for leaf in order),
            codecs if any(codecs) else (),
            factor.feature,
        )

    @classmethod
    def of_cells(
        cls, graph: MixingGraph, name: str, child: str, kind: Callable[[str], str]
    ) -> Recipe:
        """Recipe of the cells of a site's own signal, in the features of the site `child`."""
        shares = graph.leaf_weights(name)
        leaves = sorted((kind(leaf), round(weight, 6)) for leaf, weight in shares.items())
        weights = tuple(weight for _, weight in leaves)
        codecs = tuple(codec_key(graph, site) or "" for site in (name, child))
        return cls(
            tuple(kind for kind, _ in leaves),
            (weights,),
            weights,
            codecs if any(codecs) else (),
            feature=True,
            cells=True,
        )

    @property
    def exchangeable(self) -> bool:
        """Whether the parents can change places: some renaming of the leaves, kind for kind, then
        gives the same recipe."""
        leaves = Counter(zip(self.leaves, self.child, *self.parents, strict=True))
        for second in range(1, len(self.parents)):
            parents = list(self.parents)
            parents[second - 1 : second + 1] = parents[second], parents[second - 1]
            if Counter(zip(self.leaves, self.child, *parents, strict=True)) != leaves:
                return False
        return len(set(self.codecs[:-1])) <= 1

    @property
    def slug(self) -> str:
        """Short name for files: number of parents, number of leaves, and a digest."""
        text = f"Recipe(leaves={self.leaves!r}, parents={self.parents!r}, child={self.child!r})"
        if self.codecs or self.feature:  # else as it was before there were any
            text += f" {self.codecs!r} {self.feature!r}" + " cells" * self.cells
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{len(self.parents)}of{len(self.leaves)}-{digest}"

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "leaves": list(self.leaves),
            "parents": [list(part) for part in self.parents],
            "child": list(self.child),
        }
        if self.codecs:
            data["codecs"] = list(self.codecs)
        if self.feature:
            data["feature"] = True
        if self.cells:
            data["cells"] = True
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        return cls(
            tuple(data["leaves"]),
            tuple(tuple(float(w) for w in part) for part in data["parents"]),
            tuple(float(w) for w in data["child"]),
            tuple(str(key) for key in data.get("codecs", ())),
            bool(data.get("feature", False)),
            bool(data.get("cells", False)),
        )

    def __str__(self) -> str:
        codecs = self.codecs or ("",) * (len(self.parents) + 1)
        *given, child = (
            self._signal(weights, codec)
            for weights, codec in zip((*self.parents, self.child), codecs, strict=True)
        )
        child = f"x({child})" if self.feature else child
        return f"{'cells ' * self.cells}p({child} | {'; '.join(given)})"

    def _signal(self, weights: tuple[float, ...], codec: str) -> str:
        parts = " + ".join(
            f"{weight:.3g} {kind}#{place + 1}"
            for place, (weight, kind) in enumerate(zip(weights, self.leaves, strict=True))
            if weight
        )
        return f"{codec}[{parts}]" if codec else parts


def codec_key(graph: MixingGraph, name: str) -> str | None:
    """Key of the codec of a site's tokens or features; None for the main one."""
    site = graph.site(name)
    return None if isinstance(site, Source) else site.codec
