"""Scores of another separator on the same mixtures, read from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ..records import Record, StemScore
from .batch import METRICS, Origin

STAGE = "supervised"
_NAMES = {"sdr": "sdr_db", "si_sdr": "si_sdr_db", "sdri": "sdri_db", "si_sdri": "si_sdri_db"}


@dataclass(frozen=True)
class Baseline:
    """Scores {origin: {metric: score of each stem}} of mixtures of `stems`; `seconds` of work for
    one mixture, where the file tells."""

    name: str
    stems: tuple[str, ...]
    scores: Mapping[Origin, Mapping[str, tuple[float | None, ...]]]
    seconds: float | None = None

    @classmethod
    def read(cls, path: str | Path) -> Baseline:
        """Read `{"chunks": [{"track": NAME, "start": SAMPLE, "sdr": {STEM: dB or null}, "si_sdr":
        ..., "sdri": ..., "si_sdri": ..., "logmel_l1": ...}, ...], "run": {"seconds": ...}}`, which
        is what `python -m benchmarks.conv_tasnet evaluate --json` writes; any of the metrics may be
        missing, and so may `run`. The baseline is called after the file.

        Raises DataError when the file cannot be read as that.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text("utf-8"))
            chunks = content["chunks"]
            seconds = content.get("run", {}).get("seconds")
            known = [key for key in (*_NAMES, *METRICS) if key in chunks[0]]
            stems = tuple(chunks[0][known[0]])
            scores: dict[Origin, dict[str, tuple[float | None, ...]]] = {
                (str(chunk["track"]), int(chunk["start"])): {
                    _NAMES.get(key, key): tuple(_number(chunk[key][stem]) for stem in stems)
                    for key in known
                }
                for chunk in chunks
            }
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise DataError(
                f"'{path}' holds no scores of a baseline ({type(error).__name__}: {error}). "
                'Expected {"chunks": [{"track": ..., "start": ..., "sdr": {stem: dB}, ...}, ...]}.'
            ) from error
        return cls(path.stem, stems, scores, seconds and float(seconds) / len(scores))

    def check(self, origins: Sequence[Origin]) -> None:
        """Raise DataError unless the baseline was scored on some of the mixtures."""
        if not any(origin in self.scores for origin in origins):
            raise DataError(
                f"baseline '{self.name}' was scored on none of the {len(origins):,} mixtures, of "
                f"which the first is {origins[0]}. Score it on the same data, split and seed."
            )

    def records(self, stems: Sequence[str], origins: Sequence[Origin]) -> list[Record]:
        """Records of the mixtures that the baseline was scored on, as of a row `baseline:NAME`."""
        order = tuple(range(len(stems)))
        return [
            Record(
                sources=len(stems),
                method=f"baseline:{self.name}",
                index=index,
                images=(),
                stages={STAGE: StemScore(self.scores[origin], order, None, self.seconds)},
                chunk=origin,
            )
            for index, origin in enumerate(origins)
            if origin in self.scores
        ]


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
