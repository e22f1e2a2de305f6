"""What was mixed to count a table: the identity of a table, whatever its sites are called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..graph import Factor, MixingGraph


@dataclass(frozen=True)
class Recipe:
    """leaves: the kind of each source in the mixture (the key of its prior), those of the parents
    first. parents: for each parent, the weight of each leaf. child: the weight of each leaf.
    Weights are rounded to six digits.
    """

    leaves: tuple[str, ...]
    parents: tuple[tuple[float, ...], ...]
    child: tuple[float, ...]

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
        return cls(
            tuple(kind(leaf) for leaf in order),
            tuple(tuple(round(part.get(leaf, 0.0), 6) for leaf in order) for part in given),
            tuple(round(child.get(leaf, 0.0), 6) for leaf in order),
        )

    @property
    def slug(self) -> str:
        """Short name for files: kinds, number of parents, and a digest."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:8]
        return f"{len(self.parents)}of{len(self.leaves)}-{digest}"

    def to_json(self) -> dict[str, Any]:
        return {
            "leaves": list(self.leaves),
            "parents": [list(part) for part in self.parents],
            "child": list(self.child),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        return cls(
            tuple(data["leaves"]),
            tuple(tuple(float(w) for w in part) for part in data["parents"]),
            tuple(float(w) for w in data["child"]),
        )

    def __str__(self) -> str:
        def signal(weights: tuple[float, ...]) -> str:
            return " + ".join(
                f"{weight:.3g} {kind}#{place + 1}"
                for place, (weight, kind) in enumerate(zip(weights, self.leaves, strict=True))
                if weight
            )

        return f"p({signal(self.child)} | {'; '.join(map(signal, self.parents))})"
