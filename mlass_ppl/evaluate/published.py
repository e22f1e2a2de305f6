"""Rows of the references, as they printed them. None was run again here."""

from __future__ import annotations

from dataclasses import dataclass

NOTE = "published, not re-run"


@dataclass(frozen=True)
class Published:
    """A printed row: mean and standard deviation of the PSNR in dB over `n` mixtures (None where
    the reference does not say how many). All are refined. `source` says where it was printed."""

    sources: int
    row: str
    mean: float
    std: float
    n: int | None
    source: str


_MLASS = "Scarcelli et al., MLASS report, table of MNIST results"


def published(sources: int) -> tuple[Published, ...]:
    """The references' rows for this number of sources, on the same protocol.

    The numbers of mixtures are those of the result files in MLASS's history, where those exist.
    """
    rows = (
        Published(2, "LASS", 24.23, 6.23, None, _MLASS),
        Published(2, "MLASS-BP", 19.30, 5.68, 175, _MLASS),
        Published(2, "MLASS-PE", 16.87, 3.77, None, _MLASS),
        Published(3, "MLASS-BP", 14.19, 2.23, None, _MLASS),
        Published(3, "MLASS-PE", 13.64, 1.76, 184, _MLASS),
    )
    return tuple(row for row in rows if row.sources == sources)
