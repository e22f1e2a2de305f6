"""Data sets of stems as what an evaluation mixes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..._separating.signals import interchangeable
from ..._separating.sound import Sound
from ...codecs import AudioCodec
from ...data.audio import StemDataset
from ...declare import compile_program
from ...errors import OptionError
from ...refine import Conditional
from ...shapes import joint
from ..provenance import codec_device
from ..records import Record
from ..rows import SILENCE, Scheme
from ..tasks import Silence, Task
from .baseline import Baseline
from .batch import METRICS, StemBatch
from .masks import IdealMask, PostFilter
from .report import StemLayout
from .selection import Cut, Select, Selection, song_chunks

if TYPE_CHECKING:
    from ..config import Evaluation
    from ..stimuli import Batch, Progress, Signals

STEMS = ("bass", "drums", "piano", "guitar")
"""The order of the stems of songs: mixtures of n sources hold the first n."""


@dataclass(frozen=True)
class StemMixtures:
    """A selection of mixtures, and the bundle whose codecs tokenise their stems."""

    selection: Selection
    stems: tuple[str, ...]
    bundle: Any
    baselines: tuple[Baseline, ...]

    def batch(self, index: np.ndarray) -> StemBatch:
        truths = torch.stack([self.selection.read(int(which)) for which in index])
        origins = [self.selection.origins[which] for which in index]
        graph = compile_program(joint(self.stems))
        groups = [
            [self.stems.index(name) for name in names]
            for names in interchangeable(graph, self.bundle.prior_key)
        ]
        rate = self.bundle.codec.sample_rate
        return StemBatch(index, origins, truths[:, :, None], rate, groups)

    def coded(self, batch: Batch) -> tuple[Signals, Signals]:
        """By each stem's own codec, at the level that its mixture is separated at."""
        graph = compile_program(joint(self.stems))
        gains = Sound.of({"mixture": batch.mixtures}, graph, self.bundle, None).gains[:, None, None]
        signals, tokens = {}, {}
        for name, truth in zip(self.stems, batch.truths.unbind(1), strict=True):
            codec = self.bundle.codec_of(graph, name)
            tokens[name] = codec.encode((truth * gains).to(codec_device(codec)))
            decoded = codec.decode(tokens[name])
            signals[name] = decoded / gains.to(decoded)
        return signals, tokens

    def known(self) -> list[Record]:
        every = (one.records(self.stems, self.selection.origins) for one in self.baselines)
        return [record for records in every for record in records]


@dataclass(frozen=True)
class StemStimuli:
    """Mixtures of the first n of `stems`, each the mean of n stems that sound together.

    data: name of the data set. tracks: of one split. select: `song_chunks`, or `recordings` of one
    speaker each. baselines: scores of other methods on the same mixtures. notice: called with what
    is left out of the data, and why.
    """

    data: str
    tracks: StemDataset
    stems: tuple[str, ...]
    select: Select = song_chunks
    baselines: tuple[Baseline, ...] = ()
    threshold_db: float = -40.0
    notice: Callable[[str], None] = print
    layout: StemLayout = StemLayout()

    def check(self, evaluation: Evaluation, bundle: Any) -> None:
        """As `Stimuli.check`; also where there are fewer stems than sources."""
        if not isinstance(bundle.codec, AudioCodec):
            raise OptionError(
                f"'{self.data}' is sound, but the codec of bundle '{bundle.name}' is of images. "
                "Name a bundle of sound with --bundle."
            )
        if max(evaluation.sources) > len(self.stems):
            raise OptionError(
                f"mixtures of {max(evaluation.sources)} sources need as many stems, but there are "
                f"{', '.join(self.stems) or 'none'}. Name them with --stems."
            )

    def stages(self, bundle: Any, refine: Any) -> Mapping[str, Any]:
        """`wiener` last; before it, where the codecs allow it, what it then filters."""
        if not isinstance(refine, PostFilter) or not Conditional.suits(bundle):
            return {"wiener": refine}
        return {"conditional": Conditional(), "wiener": replace(refine, before=Conditional())}

    def describe(self, bundle: Any) -> dict[str, Any]:
        cut = self._cut(bundle)
        return {
            "split_sha256": tracks_hash(self.tracks),
            "data": self.data,
            "select": self.select.__name__,
            "stems": list(self.stems),
            "samples": cut.samples,
            "sample_rate": cut.rate,
            "threshold_db": cut.threshold_db,
        }

    def parts(self, sources: int) -> tuple[str, ...]:
        return self.stems[:sources]

    def mixtures(
        self,
        evaluation: Evaluation,
        sources: int,
        bundle: Any,
        folder: Path,
        progress: Progress | None,
    ) -> StemMixtures:
        """As `Stimuli.mixtures`. The selection is kept in `folder`/mixtures-n.json."""
        stems = self.parts(sources)
        selection = self.select(
            self.tracks,
            stems,
            self._cut(bundle),
            evaluation.num,
            evaluation.pairing_seed,
            folder / f"mixtures-{sources}.json",
            None if progress is None else partial(progress, f"n={sources} finding mixtures"),
            self.notice,
        )
        ours = tuple(one for one in self.baselines if one.stems == stems)
        for one in ours:
            one.check(selection.origins)
        return StemMixtures(selection, stems, bundle, ours)

    def references(self) -> tuple[Task, ...]:
        return (Silence(SILENCE), IdealMask())

    def scheme(self, bundle: Any) -> Scheme:
        cut = self._cut(bundle)
        return Scheme(METRICS, self.stems, cut.samples / cut.rate)

    def _cut(self, bundle: Any) -> Cut:
        samples = bundle.codec.signal_shape[-1]
        return Cut(samples, bundle.codec.sample_rate, self.threshold_db)


def stems_of(bundle: Any, given: Sequence[str] = ()) -> tuple[str, ...]:
    """The stems that are mixed, `given` or those that the bundle has priors for: bass, drums,
    piano, guitar, then the others in the bundle's order."""
    if given:
        return tuple(given)
    first = [stem for stem in STEMS if stem in bundle.priors]
    return (*first, *(key for key in bundle.priors if key not in STEMS))


def tracks_hash(tracks: StemDataset) -> str:
    """SHA-256 of the names of tracks and stems and of the sizes of their files."""
    digest = hashlib.sha256()
    for track in tracks:
        for name, stem in track.stems.items():
            sizes = [file.path.stat().st_size for file in stem.files]
            digest.update(f"{track.name}\n{name}\n{sizes}\n".encode())
    return digest.hexdigest()
