"""The result of a separation: signals, tokens and evidence by source name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._separating.saving import image_files, save, shown
from ._separating.signals import importance, mixed
from .errors import OptionError
from .graph import MixingGraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Separation:
    """M mixtures taken apart.

    observed: what was given at each observed site, {site: [M, *signal]}. signals: {source:
    [M, *signal]}, the chosen candidate as decoded. refined: the same after refinement, or None.
    tokens: {source: int64 [M, T]} of the chosen candidate. evidence: log p(what is observed |
    pasts) of each candidate and position, nats, [M, C, T]; -inf where a candidate met an
    observation that its tables rule out. errors: mean squared error between each candidate's
    mixtures and the given ones, [M, C]. chosen: the candidate of the smallest error, [M].
    candidates: {source: [M, C, *signal]} where they were kept. candidate_tokens: {source: int64
    [M, C, T]}. log_prior: log p of each candidate's tokens under the sources' priors as they are,
    not tempered, summed over sources and positions, nats, float64 [M, C]. log_weights: what the
    search made of each candidate, nats, float64 [M, C]: its evidence (`Sample`, `Greedy`), that
    since the last resampling (`SMC`), or log p(sources, observed), -inf for copies (`Beam`).
    variances: where the estimate is `Expectation` and the codecs know their deviations, those of
    each frame's cosine coefficients given what was observed, {source: [M, T, hop]}, in squared
    units of the codec's latents; else None.
    sample_rate: of waveforms, in Hz; None for images.
    seconds, refine_seconds: wall time of all M mixtures together. settings: engine (and, of
    `Auto`, which one it picked), search, bundle and seed. notices: what went otherwise than asked.
    """

    graph: MixingGraph
    observed: Mapping[str, Tensor]
    signals: Mapping[str, Tensor]
    refined: Mapping[str, Tensor] | None
    tokens: Mapping[str, Tensor]
    evidence: Tensor
    errors: Tensor
    chosen: Tensor
    candidates: Mapping[str, Tensor] | None = None
    candidate_tokens: Mapping[str, Tensor] = field(default_factory=dict)
    log_prior: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    log_weights: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    variances: Mapping[str, Tensor] | None = None
    sample_rate: int | None = None
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

    @property
    def mixtures(self) -> Tensor:
        """What was given at the first observed site, [M, *signal]."""
        return self.observed[self.graph.observed[0]]

    @cached_property
    def importance(self) -> Mapping[str, float]:
        """How much each observed signal counts in the errors, summing to 1; of sites that observe
        one and the same signal only the first is here."""
        weights = {name: self.graph.leaf_weights(name) for name in self.graph.observed}
        return importance(weights, {name: self.observed[name] for name in weights})

    def reconstruction(self, site: str | None = None) -> Tensor:
        """The signal that the separated sources make at a site (default: the first observed one),
        [M, *signal]. Raises GraphError when the program has no such site."""
        weights = self.graph.leaf_weights(site if site is not None else self.graph.observed[0])
        return mixed({name: self[name] for name in weights}, weights)

    def reconstruction_error(self) -> Tensor:
        """Mean squared error between `reconstruction` and what was given, over all observed
        signals, [M]."""
        errors = [
            share * (self.reconstruction(site) - self.observed[site]).square().flatten(1).mean(1)
            for site, share in self.importance.items()
        ]
        return torch.stack(errors).sum(0)

    def ranking(self, count: int) -> Tensor:
        """The `count` candidates of the smallest errors of each mixture, the best first,
        int64 [M, count]; of those with the same tokens at every source only one counts, and -1
        stands where a mixture has fewer. Raises OptionError on a count below 1."""
        if not isinstance(count, int) or count < 1:
            raise OptionError(f"count must be a whole number, at least 1, got {count!r}.")
        m, c = self.errors.shape
        order = self.errors.argsort(dim=1, stable=True)
        tokens = torch.cat(list(self.candidate_tokens.values()), 2)
        kind = tokens.flatten(0, 1).unique(dim=0, return_inverse=True)[1].reshape(m, c)
        same = kind.gather(1, order)
        by_kind = same.argsort(dim=1, stable=True)
        runs = same.gather(1, by_kind)
        first = torch.ones_like(runs, dtype=torch.bool)
        first[:, 1:] = runs[:, 1:] != runs[:, :-1]
        first = torch.zeros_like(first).scatter(1, by_kind, first)
        out = torch.full((m, max(c, count) + 1), -1)  # the last column takes what is left out
        place = torch.where(first, first.cumsum(1) - 1, out.shape[1] - 1)
        return out.scatter(1, place, order)[:, :count]

    def ranked(self, count: int) -> dict[str, Tensor]:
        """Several separations of each mixture: the signals, as decoded, of the `count` distinct
        candidates that come nearest to it, the best first, {source: [M, count, *signal]}.

        Raises OptionError when the candidates were not kept, on a count below 1, and where a
        mixture has fewer distinct candidates (`ranking` says which there are).
        """
        if self.candidates is None:
            raise OptionError(
                "the candidates' signals were not kept, only the chosen one's: call "
                "separate(..., keep_candidates=True)."
            )
        best = self.ranking(count)
        if (best < 0).any():
            found = (best >= 0).sum(1)
            least = int(found.argmin())
            raise OptionError(
                f"mixture {least} has {int(found[least])} distinct candidates, {count} were asked "
                f"for: ask for at most {int(found[least])}, or let the search keep more than "
                f"{self.errors.shape[1]}."
            )
        rows = torch.arange(len(best))[:, None]
        return {name: kept[rows, best] for name, kept in self.candidates.items()}

    def __repr__(self) -> str:
        m, c, t = self.evidence.shape
        settings = ", ".join(
            f"{key}={value if isinstance(value, str) else repr(value)}"
            for key, value in self.settings.items()
        )
        sites = f" ({', '.join(self.importance)})" if len(self.importance) > 1 else ""
        lines = [
            f"Separation of {m} mixture{'s' * (m != 1)}{sites} into {', '.join(self.signals)}",
            f"  {settings}",
            f"  {c} candidates of {t} tokens in {self.seconds:.2f} s"
            + (f", refined in {self.refine_seconds:.2f} s" if self.refined is not None else ""),
            f"  mixture error {float(self.reconstruction_error().mean()):.2e} (mean square)",
        ]
        return "\n".join([*lines, *(f"  notice: {notice}" for notice in self.notices)])

    def _repr_html_(self) -> str | None:
        """Of sounds, players of the first few mixtures and their stems; images have none."""
        if self.sample_rate is None:
            return None
        from .audio._player import players_html

        return players_html(repr(self), shown(self), self.sample_rate)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Grid of mixtures and their sources (matplotlib), also written to `path` when given. Of
        sounds, the spectrograms of the first few mixtures and their stems."""
        from .draw import draw_separation, draw_spectrograms

        if self.sample_rate is not None:
            return draw_spectrograms(shown(self), self.sample_rate, path=path)
        return draw_separation(self, path)

    def images(self) -> dict[str, Tensor]:
        """Sources and observed signals by the names of their files, {"drums.png": [M, *signal]}.

        Raises OptionError when a site's name cannot be a file's, or two files have one name, and
        SignalError on sounds.
        """
        return image_files(self)

    def save(self, directory: str | Path, force: bool = False) -> list[Path]:
        """Write sources and observed signals as PNG or WAV, and the tokens as safetensors.

        Files are `{source}.png` and `mixture.png`, or `{site}.png` where several signals were
        observed, in one folder for each mixture (`{number}/`) where there are several. Sounds are
        written as float32 to `{source}.wav`, each source as loud as it is in the mixture, and to
        `mixture.wav`, with a channel for each observed signal: they add up as far as the separation
        goes. Raises OptionError when a name cannot be a file's, and when a file is already there
        and `force` is false; nothing is written then.
        """
        return save(self, directory, force)
