"""Rows of the references, as they printed them. None was run again here."""

from __future__ import annotations

from dataclasses import dataclass

NOTE = "published, not re-run"


@dataclass(frozen=True)
class Published:
    """A printed row: mean and standard deviation of a score in dB over `n` mixtures (None where
    the reference does not say how many). `source` says where it was printed."""

    sources: int
    row: str
    mean: float
    std: float
    n: int | None
    source: str


_MLASS = "Scarcelli et al., MLASS report, table of MNIST results"
_SLAKH = "Scarcelli et al., MLASS report, table of Slakh results"


def published(sources: int) -> tuple[Published, ...]:
    """The references' PSNR for this number of digits, refined, on the same protocol.

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


def published_stems(sources: int) -> tuple[Published, ...]:
    """The references' plain SDR of so many stems of Slakh2100 (bass, drums, then piano), over stems
    and mixtures together.

    Another protocol than here: 44.1 kHz, a larger codec, and chunks of their own choice, 49 of them
    in the one result file that MLASS's history holds.
    """
    rows = (
        Published(2, "LASS", 5.01, 2.39, None, _SLAKH),
        Published(2, "MLASS", 3.09, 3.23, 49, _SLAKH),
        Published(3, "MLASS", -0.44, 2.96, None, _SLAKH),
    )
    return tuple(row for row in rows if row.sources == sources)
