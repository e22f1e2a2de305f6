"""The tables of an evaluation on stems: all metrics of their mean, then the stems one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..published import NOTE, published_stems
from ..report import Grid, provenance_lines
from ..rows import FLOOR, SILENCE, Row, StemRow
from .references import mixture_copy_sdr

_HEADER = (
    "row",
    "stage",
    "SI-SDRi dB",
    "SDR dB",
    "SDR over the mixture",
    "below it",
    "SI-SDR dB",
    "log-mel L1",
    "n",
    "s/mixture",
    "real time",
    "peak MB",
)
_DISPENSABLE = (
    "peak MB",
    "SI-SDR dB",
    "below it",
    "s/mixture",
    "n",
    "real time",
    "log-mel L1",
    "SDR over the mixture",
)
_BY_STEM = {
    "si_sdri_db": "SI-SDRi in dB of each stem: what is gained over copying the mixture",
    "sdr_db": "SDR in dB of each stem: what is gained over silence",
    "sdri_db": "SDR improvement in dB of each stem: what is gained over copying the mixture",
}

_Line = dict[tuple[str, str | None], StemRow]
"""The rows of one line of the tables, by metric and stem."""


@dataclass(frozen=True)
class StemLayout:
    """For each number of sources a table of all metrics, and one by stem for three of them."""

    def grids(self, rows: Sequence[Row], run: dict[str, Any]) -> Iterator[Grid]:
        for sources in sorted({row.sources for row in rows}):
            lines = _lines(rows, sources)
            stems = run["config"]["stems"][:sources]
            title = f"Mixtures of {', '.join(stems)}"
            yield Grid(
                title,
                _HEADER,
                [_overview(line) for line in lines.values()] + _published(run, stems),
                _DISPENSABLE,
            )
            for metric, what in _BY_STEM.items():
                cells = [
                    [*key, *(_score(line.get((metric, stem))) for stem in (*stems, None))]
                    for key, line in lines.items()
                ]
                yield Grid(f"{title}: {what}", ("row", "stage", *stems, "mean"), cells, wrap=True)

    def footer(self, rows: Sequence[Row], run: dict[str, Any]) -> list[str]:
        config = run["config"]
        seconds = config["samples"] / config["sample_rate"]
        least = f", each stem at {config['threshold_db']:g} dB of full scale or above"
        copies = (f"{mixture_copy_sdr(n):.2f} dB for {n}" for n in config["sources"])
        return [
            *provenance_lines(run, "then " + (config["refine"] or "nothing") + "."),
            f"Mixtures: the mean of their stems, of {config['data']} ({config['select']}), "
            f"{seconds:.2f} s at {config['sample_rate']:,} Hz"
            f"{least if config['select'] == 'song_chunks' else ''}.",
            "Mean over mixtures with its 95 % bootstrap interval, which resamples whole songs. "
            "SDR is plain, 10 log10(|s|² / |s - ŝ|²); SI-SDRi and SDR improvement are the paired "
            "differences to the mixture copied to every output, and SDR is that to silence, which "
            "scores 0 dB. Stems by their labels, no permutation unless their priors are the same.",
            "A copied mixture of stems of equal energy that do not correlate has an SDR of 10 "
            f"log10(n / (n - 1)): {', '.join(copies)}. The SI-SDR of silence, -100 dB, is not "
            "shown.",
            "Real time: seconds of work for a second of sound. Rows `supervised` were trained on "
            "pairs of mixtures and stems. Published rows: another protocol, plain SDR over stems "
            "and mixtures together.",
            *_excluded(rows),
        ]


def _lines(rows: Sequence[Row], sources: int) -> dict[tuple[str, str], _Line]:
    lines: dict[tuple[str, str], _Line] = {}
    for row in rows:
        if isinstance(row, StemRow) and row.sources == sources:
            lines.setdefault((row.row, row.stage), {})[row.metric, row.stem] = row
    return lines


def _overview(line: _Line) -> list[str]:
    row = next(iter(line.values()))
    gain = line.get(("sdr_db", None))
    over = gain.paired if gain is not None and row.row != FLOOR else None
    return [
        row.row,
        row.stage,
        _score(line.get(("si_sdri_db", None))),
        _score(gain),
        "" if over is None else f"{over.mean:+.2f} [{over.ci95[0]:+.2f}, {over.ci95[1]:+.2f}]",
        "" if over is None else f"{over.below:.0%}",
        _score(line.get(("si_sdr_db", None)), interval=False),
        _score(line.get(("logmel_l1", None)), interval=False),
        f"{row.summary.n:,}",
        "" if row.seconds is None else f"{row.seconds:.3f}",
        "" if row.real_time_factor is None else f"{row.real_time_factor:.2f}",
        "" if row.peak_mb is None else f"{row.peak_mb:,.0f}",
    ]


def _score(row: StemRow | None, *, interval: bool = True) -> str:
    """A mean, with its interval; empty where it says nothing."""
    if row is None or (row.row == SILENCE and row.metric.startswith("si_")):
        return ""
    low, high = row.summary.ci95
    return f"{row.summary.mean:.2f}" + (f" [{low:.2f}, {high:.2f}]" if interval else "")


def _published(run: dict[str, Any], stems: Sequence[str]) -> list[list[str]]:
    """The printed rows, which are of Slakh's bass, drums and piano alone."""
    lines: list[list[str]] = []
    if run["config"]["data"] != "slakh" or [*stems] != ["bass", "drums", "piano"][: len(stems)]:
        return lines
    for row in published_stems(len(stems)):
        cells = dict.fromkeys(_HEADER, "")
        cells["row"] = f"{row.row}, {NOTE}"
        cells["SDR dB"] = f"{row.mean:.2f} ± {row.std:.2f}"
        cells["n"] = f"{row.n:,}" if row.n else ""
        lines.append([*cells.values()])
    return lines


def _excluded(rows: Sequence[Row]) -> list[str]:
    """What is left out of which mean, said once for each stem."""
    found = {
        (row.sources, row.stem): row.excluded
        for row in rows
        if isinstance(row, StemRow) and row.stem and row.excluded and row.row == FLOOR
    }
    return [
        f"{sources} sources: {number:,} mixtures have no score of {stem} (it is silent there, or "
        "sounds alone) and are left out of its means and of those over all stems."
        for (sources, stem), number in found.items()
    ]
