"""Scores of a trained model on chunks of a split, per stem and per chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mlass_ppl.data.audio import Chunks
from mlass_ppl.evaluate import summarise
from mlass_ppl.evaluate.audio import kept, sdr, sdri, si_sdr, si_sdri

from .data import in_memory

METRICS = ("sdr", "si_sdr", "sdri", "si_sdri")


@torch.inference_mode()
def evaluate(model: nn.Module, chunks: Chunks, batch_size: int = 8) -> dict[str, Any]:
    """Scores in dB of what `model` makes of the mean of each chunk's stems, [B, T] -> [B, n, T].

    `summary`: of each metric mean, 95 % bootstrap interval over chunks and number, for each stem
    and for their mean. `chunks`: track, first sample and the scores of each stem of every chunk,
    None where a score is not defined.
    """
    truths = in_memory(chunks, "songs", torch.float32)
    device = next(iter(model.parameters())).device
    estimates = torch.cat(
        [model(part.mean(1).to(device)).float().cpu() for part in truths.split(batch_size)]
    )
    mixtures = truths.mean(1)
    scores = {
        "sdr": sdr(estimates, truths),
        "si_sdr": si_sdr(estimates, truths),
        "sdri": sdri(estimates, truths, mixtures),
        "si_sdri": si_sdri(estimates, truths, mixtures),
    }
    stems = chunks.activity.stems
    return {
        "summary": {name: _summary(values, stems) for name, values in scores.items()},
        "chunks": [
            {
                "track": chunks.tracks[track].name,
                "start": start,
                **{
                    name: dict(zip(stems, map(_number, values[row]), strict=True))
                    for name, values in scores.items()
                },
            }
            for row, (track, start) in enumerate(chunks.places)
        ],
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: a line a stem and their mean, with 95 % intervals."""
    lines = [f"| dB | {' | '.join(METRICS)} |", f"|---|{'---|' * len(METRICS)}"]
    for stem in found["summary"]["sdr"]:
        cells = (found["summary"][name][stem] for name in METRICS)
        shown = (f"{c['mean']:.2f} [{c['ci95'][0]:.2f}, {c['ci95'][1]:.2f}]" for c in cells)
        lines.append(f"| {stem} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _summary(values: np.ndarray, stems: Sequence[str]) -> dict[str, Any]:
    """Of scores [N, n]: one entry a stem, and `mean`, that of each chunk's mean over stems."""
    columns = {stem: values[:, i] for i, stem in enumerate(stems)} | {"mean": values.mean(1)}
    out = {}
    for name, column in columns.items():
        scores, excluded = kept(column)
        found = summarise(scores)
        out[name] = {
            "mean": found.mean,
            "ci95": list(found.ci95),
            "n": found.n,
            "excluded": excluded,
        }
    return out


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
