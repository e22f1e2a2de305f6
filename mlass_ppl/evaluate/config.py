"""What to evaluate: methods, mixtures, seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._version import __version__
from ..data import Split
from ..errors import OptionError
from ..estimate import Nearest
from ..infer.base import Engine
from .provenance import bundle_hash
from .stimuli import Stimuli


@dataclass(frozen=True)
class Method:
    """A row of its own: an engine on the program that it separates n sources with.

    `shape` makes the program of n sources or of named ones (`mlass_ppl.joint`, `chain`, `star`),
    `infer` is the engine; both stand in the configuration under their own names.
    """

    name: str
    shape: Callable[[Any], Callable[..., Any]]
    infer: Engine

    def describe(self) -> str:
        return f"{self.infer!r} on {self.shape.__name__}(n)"


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate. The references' protocol: split `test`, pairing seed 100.

    `sources` numbers of sources, `methods` the rows to separate with, `search` and `refine` as
    `separate` takes them (`refine=None`: raw rows alone), `estimate` too, `num` mixtures from the
    first on, `batch_size` mixtures at once: it changes no score. `pairing_seed` draws the mixtures.
    Positions whose mixture token the tables never saw fall back to the prior; the rows count them.
    """

    methods: tuple[Method, ...]
    search: Any
    refine: Any = None
    estimate: Any = Nearest()
    sources: tuple[int, ...] = (2, 3)
    num: int = 1000
    pairing_seed: int = 100
    seed: int = 0
    batch_size: int = 64
    split: Split = "test"

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names) or len(set(self.sources)) < len(self.sources):
            raise OptionError(
                f"every method and number of sources stands once, not {names} on {self.sources}."
            )
        if not self.sources or min(self.sources) < 2:
            raise OptionError(f"a mixture takes two or more sources, not {self.sources}.")
        if self.num < 1 or self.batch_size < 1:
            raise OptionError(
                f"num and batch_size must be 1 or more, not {self.num} and {self.batch_size}."
            )
        if self.seed < 0 or self.pairing_seed < 0:
            raise OptionError(f"seeds must be 0 or more, not {self.seed} and {self.pairing_seed}.")

    def describe(self, bundle: Any, stimuli: Stimuli) -> dict[str, Any]:
        """The configuration as JSON; a run directory belongs to exactly one."""
        return {
            "version": __version__,
            "bundle": bundle.name,
            "bundle_sha256": bundle_hash(bundle),
            "split": self.split,
            **stimuli.describe(bundle),
            "sources": list(self.sources),
            "methods": {method.name: method.describe() for method in self.methods},
            "search": repr(self.search),
            "candidates": self.search.candidates,
            "estimate": repr(self.estimate),
            "refine": repr(self.refine) if self.refine is not None else None,
            "num": self.num,
            "pairing_seed": self.pairing_seed,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }
