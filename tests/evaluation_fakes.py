"""Stand-ins for a codec, a bundle, the separation and the refinement, for the harness's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mlass_ppl.declare import compile_program
from mlass_ppl.evaluate import Evaluation, Method, Pipeline, Record, Report, evaluate
from mlass_ppl.infer.base import Engine
from mlass_ppl.shapes import joint, star

LEVELS, CANDIDATES = 8, 5


class PatchCodec:
    """7 x 7 patches, each a grey level in 8."""

    alphabet, signal_shape, token_shape = LEVELS, (1, 28, 28), (7, 7)

    def encode(self, signals: Tensor) -> Tensor:
        levels = torch.nn.functional.avg_pool2d(signals, 4).flatten(1) * (LEVELS - 1)
        return levels.round().long()

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens.float() / (LEVELS - 1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        patches = latents.view(-1, 1, 7, 7)
        return patches.repeat_interleave(4, 2).repeat_interleave(4, 3)

    def decode(self, tokens: Tensor) -> Tensor:
        return self.decode_latents(self.embed(tokens))


@dataclass(frozen=True)
class Bundle:
    name: str = "fake"
    codec: Any = field(default_factory=PatchCodec)
    smoothing: None = None
    card: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def tables(self, graph: Any, factors: Any) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Sure(Engine):
    """An engine that plans without tables; `error` is raised instead for 3 sources."""

    error: type[Exception] | None = None

    def plan(self, graph: Any, tables: Any) -> Any:
        if self.error is not None and len(graph.sources) == 3:
            raise self.error("3 sources are too many.")


@dataclass(frozen=True)
class Search:
    candidates: int = CANDIDATES


@dataclass(frozen=True)
class HalfWay:
    """Refinement that goes half the way from the estimate to the mixture."""

    steps: int = 3

    def check(self, bundle: Any) -> None:
        assert isinstance(bundle, Bundle)

    def __call__(
        self, bundle: Any, signals: Any, tokens: Any, weights: Any, observed: Any, progress: Any
    ) -> dict[str, Tensor]:
        ((site, own),) = weights.items()
        assert sum(own.values()) == pytest.approx(1.0)
        progress(self.steps, self.steps)
        assert signals.keys() == tokens.keys() == own.keys()
        return {name: (signal + observed[site]) / 2 for name, signal in signals.items()}


@dataclass
class Separate:
    """Random tokens near the mixture's, from each mixture's own stream; `calls` notes the streams.

    `stop_after` calls it is interrupted, as by Ctrl-C.
    """

    calls: list[list[int]] = field(default_factory=list)
    stop_after: int | None = None

    def __call__(
        self,
        mixture: Tensor,
        program: Callable[[], Any],
        bundle: Any,
        *,
        infer: Any,
        search: Any,
        estimate: Any,
        seed: int,
        streams: list[int],
        batch_size: int,
        keep_candidates: bool,
        on_unseen: str,
        progress: Callable[[int, int], None],
    ) -> Any:
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(streams)
        progress(1, 2)
        names = compile_program(program).sources
        base = bundle.codec.encode(mixture)
        drawn = []
        for stream, tokens in zip(streams, base, strict=True):
            random = np.random.default_rng([seed, stream])
            noise = random.integers(-2, 3, (search.candidates, len(names), 49))
            drawn.append((tokens + torch.from_numpy(noise)).clamp(0, LEVELS - 1))
        tokens = torch.stack(drawn)  # [M, C, n, T]
        decoded = bundle.codec.decode(tokens.flatten(0, 2))
        candidates = decoded.view(*tokens.shape[:3], 1, 28, 28)
        errors = (candidates.mean(2) - mixture[:, None]).square().mean((2, 3, 4))
        chosen, rows = errors.argmin(1), torch.arange(len(mixture))
        progress(2, 2)
        return SimpleNamespace(
            signals={name: candidates[rows, chosen, i] for i, name in enumerate(names)},
            candidates={name: candidates[:, :, i] for i, name in enumerate(names)},
            tokens={name: tokens[rows, chosen, i] for i, name in enumerate(names)},
            chosen=chosen,
            evidence=torch.zeros(len(mixture), search.candidates, 49),
            notices=(),
        )


def blobs() -> Tensor:
    """Twelve smooth images in [0, 1]."""
    noise = torch.rand(12, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, 28, mode="bilinear").clamp(0, 1)


METHODS = (Method("exact", joint, Sure()), Method("bp", star, Sure()))
EVALUATION = Evaluation(METHODS, Search(), HalfWay(), sources=(2, 3), num=7, batch_size=3)


def run(
    folder: Path,
    images: Tensor,
    evaluation: Evaluation = EVALUATION,
    separate: Any = None,
    **options: Any,
) -> Report:
    pipeline = Pipeline(separate or Separate(), compile_program)
    options.setdefault("notice", lambda line: None)
    return evaluate(evaluation, Bundle(), images, folder, pipeline=pipeline, **options)


def records(folder: Path) -> list[Record]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [Record.from_json(line) for line in lines]


def scores(folder: Path) -> dict[Any, Any]:
    """Everything that a run found, without its times and its memory."""
    return {
        (record.key, stage): (one.psnr, one.permutation, one.error, one.candidate, record.images)
        for record in records(folder)
        for stage, one in record.stages.items()
    }
