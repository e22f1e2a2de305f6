"""One record per mixture and method: what every table is derived from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import DataError


@dataclass(frozen=True)
class Score:
    """How one estimate of one mixture of images scored.

    `psnr` dB of each true source under the best permutation; `permutation` the estimate that was
    assigned to it; `error` the mean squared error of the rebuilt mixture; `candidate` the position
    of the candidate among all (None where there is but one); `seconds` of wall time per mixture.
    """

    psnr: tuple[float, ...]
    permutation: tuple[int, ...]
    error: float
    seconds: float
    candidate: int | None = None

    @property
    def mean(self) -> float:
        """Mean over the sources, in dB: the mixture's score."""
        return sum(self.psnr) / len(self.psnr)

    @property
    def metrics(self) -> Mapping[str, tuple[float | None, ...]]:
        """Score of each true source, by metric."""
        return {"psnr_db": self.psnr}


@dataclass(frozen=True)
class StemScore:
    """How one estimate of one mixture of stems scored.

    `metrics` by name, of each true stem, None where it is not defined (a silent stem has no score);
    the other fields as of `Score`, None where a baseline does not tell them.
    """

    metrics: Mapping[str, tuple[float | None, ...]]
    permutation: tuple[int, ...]
    error: float | None
    seconds: float | None
    candidate: int | None = None


AnyScore = Score | StemScore


@dataclass(frozen=True)
class Record:
    """Everything that one method did with one mixture.

    `sources` n, `method` the row's name, `index` the mixture's number in the protocol (also its
    random stream), `images` the indices of its true sources in the split, `stages` the score of
    each stage (`raw`, `refined` or `wiener`, and `oracle`: the best raw candidate by ground truth),
    `peak_mb` the process's peak memory over the batch that the mixture was in (None where unknown),
    `ruled_out` the share of its candidates' positions whose observation the tables rule out, so
    that the priors alone decided there (None where nothing was sampled). Of sound `chunk` stands
    for `images`: a song and the first sample, or the recordings. `failed` says why there is no
    score.
    """

    sources: int
    method: str
    index: int
    images: tuple[int, ...]
    stages: Mapping[str, AnyScore]
    peak_mb: float | None = None
    ruled_out: float | None = None
    chunk: tuple[str | int, ...] = ()
    failed: str | None = None

    @property
    def key(self) -> tuple[int, str, int]:
        return self.sources, self.method, self.index

    def to_json(self) -> str:
        """The record on one line. Floats keep every digit."""
        fields = asdict(self)
        for name in ("chunk", "failed"):  # most records have neither
            if not fields[name]:
                del fields[name]
        return json.dumps(fields, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Read a line back. Raises DataError when it is no record."""
        try:
            fields = json.loads(line)
            stages = {name: _score(values) for name, values in fields.pop("stages").items()}
            fields["images"] = tuple(fields["images"])
            fields["chunk"] = tuple(fields.get("chunk", ()))
            return cls(stages=stages, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"no evaluation record: {line[:80]!r} ({error}).") from error


def _score(values: dict[str, Any]) -> AnyScore:
    permutation = tuple(values.pop("permutation"))
    if "metrics" in values:
        metrics = {name: tuple(each) for name, each in values.pop("metrics").items()}
        return StemScore(metrics=metrics, permutation=permutation, **values)
    psnr = tuple(float(value) for value in values.pop("psnr"))
    return Score(psnr=psnr, permutation=permutation, **values)
