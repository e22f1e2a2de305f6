"""How much a recipe of a bundle of sound takes of everything."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..codecs import AudioVQConfig


@dataclass(frozen=True)
class SoundSizes:
    """Sizes of the parts of a bundle of sound.

    stem, mixture: codecs of each stem and of mixtures, of one length, rate and hop. segment:
    samples of what a decoder is trained on; segments, mixed: how many of a stem's codec and of the
    mixtures'; fitted: of how many of them codes are the k-means; codec_batch: in a step.
    width, layers, heads: of the priors. windows, more: what a prior is trained on in its first and
    second pass, at most `rate` and `more_rate`; varied, varied_rate: those of a third one, where
    there are variants of the songs; prior_batch: in a step. changed: share of the segments, of the
    second pass's windows and of the counted signals that are sped up or slowed down. signals:
    counted by stem for cells; mixtures: for each table of partial mixtures; sources: numbers of
    stems that chains are counted for. strength, min_std: as of `Shrink`.
    """

    stem: AudioVQConfig = field(default_factory=lambda: AudioVQConfig(features=16))
    mixture: AudioVQConfig = field(
        default_factory=lambda: AudioVQConfig(alphabet=2_048, features=16, width=96, blocks=3)
    )
    segment: int = 16_384
    segments: int = 9_000
    mixed: int = 12_000
    fitted: int = 6_000
    codec_batch: int = 24
    width: int = 256
    layers: int = 3
    heads: int = 4
    windows: int = 8_000
    more: int = 8_500
    varied: int = 13_000
    rate: float = 1.2e-3
    more_rate: float = 1e-3
    varied_rate: float = 1e-3
    prior_batch: int = 16
    changed: float = 2 / 3
    signals: int = 2_000
    mixtures: int = 12_000
    sources: tuple[int, ...] = (3, 4)
    strength: float = 8.0
    min_std: float = 0.01

    def pieces(self, stems: int, *, variants: bool = False) -> int:
        """How many steps there are for so many stems."""
        return 2 + (2 + variants) * stems + sum(2 < n <= stems for n in self.sources)
