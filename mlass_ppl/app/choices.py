"""Which graphs and engines go together with a bundle, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..bundle import Bundle
from ..declare import Program, compile_program, mix, source
from ..errors import MlassError, OptionError, PlanError
from ..evidence import Feature
from ..graph import MixingGraph
from ..infer import BP, Auto, Engine, Exact, Extractor, LoopyBP, Truncated
from ..infer.cost import Cost, exact_cost
from ..infer.report import number
from ..shapes import additive, balanced, chain, joint, star

_AFFORDED = 4e6
"""Operations for each token of a candidate: about a minute for an image or a few seconds of sound.
"""

Sources = int | Sequence[str]


@dataclass(frozen=True)
class Shape:
    """A kind of graph. about: one sentence. make: the program of sources, by number or name."""

    name: str
    about: str
    make: Callable[[Sources], Program]


@dataclass(frozen=True)
class Offer:
    """engines: those that can run, by name. refused: {name: why not}."""

    engines: Mapping[str, Engine]
    refused: Mapping[str, str]

    def engine(self, name: str) -> Engine:
        """Raises OptionError, with the reason, on an engine that is not offered."""
        if name not in self.engines:
            why = self.refused.get(name, f"there are {', '.join(self.engines)}")
            raise OptionError(f"{name} is not offered for this graph: {why}")
        return self.engines[name]


def stereo(sources: Sources) -> Program:
    """Two sources on two channels, each louder on its own side; both channels are observed."""
    names = [f"source_{i + 1}" for i in range(sources)] if isinstance(sources, int) else sources
    if len(names) != 2:
        raise OptionError(f"the stereo graph has 2 sources, got {sources!r}.")

    def program() -> Any:
        first, second = (source(name) for name in names)
        sound = Feature(linear=True)
        left = mix("left", first, second, weights=(0.7, 0.3), evidence=sound)
        return left, mix("right", first, second, weights=(0.3, 0.7), evidence=sound)

    program.__name__ = "stereo(2)"
    return program


def linear_chain(sources: Sources) -> Program:
    """A chain whose mixture is observed by a feature that is linear in the sources."""
    return chain(sources, evidence=Feature(linear=True))


_ADDITIVE = Shape(
    "additive", "What is seen or heard, patch by patch, is a sum of all sources at once.", additive
)
_CHAIN = "Sources join one by one: partial mixtures on the way, each a latent token (MLASS)."
_STAR = Shape("star", "Each source on its own, the others averaged over (MLASS-PE).", star)

DIGIT_SHAPES = (
    _ADDITIVE,
    Shape("chain", _CHAIN, chain),
    Shape("joint", "One table of the mixture's token given all sources' tokens (LASS).", joint),
    _STAR,
    Shape("balanced", "A binary tree of partial mixtures.", balanced),
    Shape(
        "stereo", "Two digits on two channels, each louder on one: a graph with a cycle.", stereo
    ),
)
SOUND_SHAPES = (
    _ADDITIVE,
    Shape("chain", _CHAIN, linear_chain),
    Shape("chain of tokens", "The same with the mixture's token in place of its spectrum.", chain),
    _STAR,
)


@dataclass(frozen=True)
class Choices:
    """The graphs of a bundle and the engines for each. keep: tokens of each source that engines
    with lists look at, default all (`BP`) or their own (`Auto`, `Truncated`)."""

    bundle: Bundle
    shapes: Sequence[Shape]
    keep: int | None = None
    _offers: dict[tuple[str, str], Offer] = field(default_factory=dict, repr=False)

    def shape(self, name: str) -> Shape:
        """Raises OptionError on an unknown name."""
        for shape in self.shapes:
            if shape.name == name:
                return shape
        names = ", ".join(shape.name for shape in self.shapes)
        raise OptionError(f"there is no graph '{name}'; there are {names}.")

    def graph(self, name: str, sources: Sources) -> MixingGraph:
        return compile_program(self.shape(name).make(sources))

    def graphs(self, sources: Sources) -> tuple[str, ...]:
        """The shapes that some engine can run for these sources."""
        return tuple(
            shape.name
            for shape in self.shapes
            if (shape.make is not stereo or sources == 2)
            and self.offer(shape.name, sources).engines
        )

    def offer(self, name: str, sources: Sources) -> Offer:
        """The engines for a graph, each tried by planning it with the bundle's tables."""
        key = (name, str(sources))
        if key not in self._offers:
            graph = self.graph(name, sources)
            engines, refused = {}, {}
            for label, engine in self._engines().items():
                try:
                    self._check(graph, engine)
                except MlassError as error:
                    refused[label] = str(error).partition("\n")[0]
                else:
                    engines[label] = engine
            self._offers[key] = Offer(engines, refused)
        return self._offers[key]

    def _engines(self) -> dict[str, Engine]:
        lists = {} if self.keep is None else {"keep": self.keep}
        engines: tuple[Engine, ...] = (
            Auto(**lists), BP(keep=self.keep), Exact(), Extractor(), Truncated(**lists), LoopyBP()
        )  # fmt: skip
        return {type(engine).__name__: engine for engine in engines}

    def _check(self, graph: MixingGraph, engine: Engine) -> None:
        """Raise the error of planning, or PlanError where a visitor would wait too long."""
        if graph.features and isinstance(engine, Exact):  # which plans every joint state
            sizes = [self.bundle.codec_of(graph, name).alphabet for name in graph.sources]
            _afford(engine, exact_cost(graph, graph.alphabets(max(sizes))))
        plan = engine.plan(graph, self.bundle.tables(graph, engine.factors(graph)))
        if (cost := getattr(plan, "cost", None)) is not None:
            _afford(engine, cost)


def _afford(engine: Engine, cost: Cost) -> None:
    if cost.operations > _AFFORDED:
        raise PlanError(
            f"{type(engine).__name__} needs {number(cost.operations)} operations for each token of "
            f"a candidate; this page stops at {number(_AFFORDED)}. In Python it runs all the same."
        )
