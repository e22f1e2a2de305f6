"""The result of a separation: signals, tokens and evidence by source name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import OptionError, SignalError
from .graph import MixingGraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Separation:
    """M mixtures taken apart.

    mixtures: [M, *signal]. signals: {source: [M, *signal]}, the chosen candidate as decoded.
    refined: the same after refinement, or None. tokens: {source: int64 [M, T]} of the chosen
    candidate. evidence: log p(observed tokens | pasts) of each candidate and position, nats,
    [M, C, T]; -inf where a candidate met an observation that its tables rule out. errors: mean
    squared error between each candidate's mixture and the given one, [M, C]. chosen: the candidate
    of the smallest error, [M]. candidates: {source: [M, C, *signal]} where they were kept.
    seconds, refine_seconds: wall time of all M mixtures together. settings: engine, search,
    bundle and seed, as text.
    """

    graph: MixingGraph
    mixtures: Tensor
    signals: Mapping[str, Tensor]
    refined: Mapping[str, Tensor] | None
    tokens: Mapping[str, Tensor]
    evidence: Tensor
    errors: Tensor
    chosen: Tensor
    candidates: Mapping[str, Tensor] | None = None
    candidate_tokens: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    refine_seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def __getitem__(self, source: str) -> Tensor:
        """Signals of a source [M, *signal]: refined where that was done, else as decoded."""
        signals = self.signals if self.refined is None else self.refined
        if source not in signals:
            raise OptionError(f"no source '{source}' here; there are {list(signals)}.")
        return signals[source]

    def __iter__(self) -> Any:
        return iter(self.signals)

    def __len__(self) -> int:
        return len(self.mixtures)

    def reconstruction(self) -> Tensor:
        """The mixture that the separated sources make, [M, *signal]."""
        weights = self.graph.leaf_weights(self.graph.observed[0])
        return torch.stack([weight * self[name] for name, weight in weights.items()]).sum(0)

    def reconstruction_error(self) -> Tensor:
        """Mean squared error between `reconstruction` and the given mixture, [M]."""
        return (self.reconstruction() - self.mixtures).square().flatten(1).mean(1)

    def __repr__(self) -> str:
        m, c, t = self.evidence.shape
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        lines = [
            f"Separation of {m} mixture{'s' * (m != 1)} into {', '.join(self.signals)}",
            f"  {settings}",
            f"  {c} candidates of {t} tokens in {self.seconds:.2f} s"
            + (f", refined in {self.refine_seconds:.2f} s" if self.refined is not None else ""),
            f"  mixture error {float(self.reconstruction_error().mean()):.2e} (mean square)",
        ]
        return "\n".join([*lines, *(f"  notice: {notice}" for notice in self.notices)])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Grid of mixtures and their sources (matplotlib), also written to `path` when given."""
        from .draw import draw_separation

        return draw_separation(self, path)

    def save(self, directory: str | Path, force: bool = False) -> list[Path]:
        """Write each source of each mixture as a PNG, and the tokens as safetensors.

        Files are `{source}.png` for one mixture, else `{number}/{source}.png`. Raises OptionError
        when a file is already there and `force` is false; nothing is written then.
        """
        from PIL import Image
        from safetensors.torch import save_file

        if self.mixtures.ndim != 4 or self.mixtures.shape[1] != 1:
            raise SignalError(f"only grey images are saved, got {list(self.mixtures.shape)}.")
        directory = Path(directory)
        folders = (
            [directory]
            if len(self) == 1
            else [directory / f"{number:04d}" for number in range(len(self))]
        )
        plan: list[tuple[Path, Tensor]] = []
        for row, folder in enumerate(folders):
            plan += [(folder / f"{name}.png", self[name][row, 0]) for name in self.signals]
            plan.append((folder / "mixture.png", self.mixtures[row, 0]))
        tokens = directory / "tokens.safetensors"
        taken = [path for path in (*(path for path, _ in plan), tokens) if path.exists()]
        if taken and not force:
            raise OptionError(
                f"{taken[0]} exists ({len(taken)} files in all); pass force=True to overwrite."
            )
        for path, image in plan:
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
            Image.fromarray(pixels).save(path)
        save_file({name: value.contiguous() for name, value in self.tokens.items()}, tokens)
        return [*(path for path, _ in plan), tokens]
